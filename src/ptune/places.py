"""Where files are: paths on disk, and URLs of object stores and other systems that fsspec knows.

A `RemotePath` has the part of `pathlib.Path` that reading and writing need, so most code does not ask which of the two
it has. `ptune.atomic` writes to both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from ptune.errors import DataError
from ptune.hub import expanded, why

# Protocols whose files appear under their name once they are complete. Elsewhere a file is renamed when it is.
_WHOLE = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "hf", "memory")
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}
_EXTRAS = {"s3fs": "'ptune[s3]'", "gcsfs": "'ptune[gcs]'"}
_TRIAL = ".ptune-trial"
_PART = ".part"


class UnreachableError(DataError, OSError):
    """A place behind a URL cannot be reached. `strerror` is the reason alone."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"'{url}' cannot be reached: {reason}")
        self.strerror = reason


class RemotePath:
    """A file or folder behind a URL, such as s3://, gs://, hf://, https:// or memory://.

    Raises:
        UnreachableError: the URL's protocol is unknown or needs a package, or the place cannot be reached. It is a
            `DataError` and an `OSError`, so those who read something else turn it into an error of theirs.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def __str__(self) -> str:
        return self.url

    def __repr__(self) -> str:
        return f"RemotePath({self.url!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and self.url == other.url

    def __hash__(self) -> int:
        return hash(self.url)

    def __lt__(self, other: RemotePath) -> bool:
        return self.url < other.url

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(f"{self.url.rstrip('/')}/{name}")

    @property
    def protocol(self) -> str:
        return self.url.split("://")[0].split("::")[-1].lower()

    @property
    def _pure(self) -> PurePosixPath:
        return PurePosixPath(self.url.split("::")[0].split("?")[0].rstrip("/"))

    @property
    def name(self) -> str:
        return self._pure.name

    @property
    def stem(self) -> str:
        return self._pure.stem

    @property
    def suffix(self) -> str:
        return self._pure.suffix

    @property
    def parent(self) -> RemotePath:
        head, _, _ = self.url.rstrip("/").rpartition("/")
        return self if head.endswith("/") or not head else RemotePath(head)

    def with_name(self, name: str) -> RemotePath:
        return self.parent / name

    def with_suffix(self, suffix: str) -> RemotePath:
        return self.with_name(self._pure.with_suffix(suffix).name)

    def resolve(self) -> RemotePath:
        return self

    def is_dir(self) -> bool:
        if self.protocol in ("http", "https"):  # a folder is a page with links there
            return self._ask("isdir")
        return self._info().get("type") == "directory"

    def is_file(self) -> bool:
        return self._info().get("type") == "file"

    def exists(self) -> bool:
        return bool(self._info())

    def iterdir(self) -> Iterator[RemotePath]:
        self._system[0].invalidate_cache()  # other processes may write here, too
        for name in self._ask("ls", detail=False):
            yield self / PurePosixPath(name).name

    def sizes(self, names: Sequence[str]) -> dict[str, tuple[int, str]]:
        """Return the size in bytes and the version of those of the named files that a folder holds.

        A version is a text that changes with the content, such as an ETag.
        """
        system, _ = self._system
        system.invalidate_cache()
        sizes = {}
        for name in names:
            file = self / name
            info = file._info()
            if info.get("type") == "file":
                sizes[name] = (int(info.get("size") or 0), str(file._ask("ukey")))
        return sizes

    def _info(self) -> dict[str, Any]:
        """Return what is known of the file or folder; nothing if there is none.

        fsspec's own `exists` and its like also say no where a network or a permission is missing.
        """
        try:
            return self._ask("info")
        except UnreachableError as err:
            if isinstance(err.__cause__, FileNotFoundError):
                return {}
            raise

    def open(self, mode: str = "rb") -> IO[bytes]:
        return self._ask("open", mode)

    def read_bytes(self) -> bytes:
        return self._ask("cat_file")

    def read_text(self, encoding: str = "utf-8") -> str:
        return self.read_bytes().decode(encoding)

    def download(self, file: Path) -> None:
        """Copy the file behind the URL to a file on disk."""
        self._ask("get_file", str(file))

    def upload(self, file: Path) -> None:
        """Copy a file on disk to the URL. It appears there once it is complete, in place of an older one."""
        if self.protocol in _WHOLE:
            self._ask("put_file", source=str(file))
            return
        part = self.with_name(f".{self.name}{_PART}")
        try:
            self.parent._ask("makedirs", exist_ok=True)
            part._ask("put_file", source=str(file))
            part.rename(self)
        except UnreachableError:
            part.unlink(missing_ok=True)
            raise

    def rename(self, target: RemotePath) -> None:
        self._ask("mv", target._system[1])

    def unlink(self, missing_ok: bool = False) -> None:
        if not missing_ok:
            self._ask("rm_file")
        else:
            with suppress(UnreachableError):
                self._ask("rm_file")

    def write_files(self, files: Mapping[str, bytes], remove: Sequence[str] = ()) -> None:
        """Write several files into a folder, and then remove the files named in `remove`.

        On the Hub this is a single commit. Elsewhere all files are uploaded under other names, and then get their names
        one after the other in the order of `files`.
        """
        if self.protocol == "hf":
            self._commit(files, remove)
            return
        parts = {name: self / f".{name}{_PART}" for name in files}
        if self.protocol not in _WHOLE:
            self._ask("makedirs", exist_ok=True)
        try:
            for name, content in files.items():
                parts[name]._ask("pipe_file", content)
            for name, part in parts.items():
                part.rename(self / name)
        except UnreachableError:
            for part in parts.values():
                part.unlink(missing_ok=True)
            raise
        for name in remove:
            (self / name).unlink(missing_ok=True)

    def _commit(self, files: Mapping[str, bytes], remove: Sequence[str]) -> None:
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        system, path = self._system
        try:
            at = system.resolve_path(path)
            inner = f"{at.path_in_repo}/" if at.path_in_repo else ""
            gone = [name for name in remove if (self / name).exists()]
            system._api.create_commit(
                at.repo_id,
                [CommitOperationAdd(inner + name, content) for name, content in files.items()]
                + [CommitOperationDelete(inner + name) for name in gone],
                commit_message=f"Upload {', '.join(files)}",
                repo_type=at.repo_type,
                revision=at.revision,
            )
            system.invalidate_cache(path)
        except Exception as err:  # the Hub's client has errors of many kinds
            raise UnreachableError(self.url, why(err)) from err

    def try_writing(self) -> None:
        """Check that files can be written into the folder, with a small file that is removed again.

        On the Hub, where every file is a commit, only the repository and the token are checked.
        """
        if self.protocol == "hf":
            system, path = self._system
            try:
                at = system.resolve_path(path)
                system._api.auth_check(at.repo_id, repo_type=at.repo_type, write=True)
            except Exception as err:  # the Hub's client has errors of many kinds
                raise UnreachableError(self.url, why(err)) from err
            return
        trial = self / _TRIAL
        if self.protocol not in _WHOLE:
            self._ask("makedirs", exist_ok=True)
        trial._ask("pipe_file", b"ptune checks that it can write here\n")
        trial.unlink(missing_ok=True)

    @cached_property
    def _system(self) -> tuple[Any, str]:
        """fsspec's file system and the path in it."""
        from fsspec.core import url_to_fs

        try:
            return url_to_fs(self.url)
        except ImportError as err:
            package = _PACKAGES.get(self.protocol)
            how = f"pip install {_EXTRAS[package]}" if package else " ".join(str(err).split())
            raise UnreachableError(self.url, f"{self.protocol}:// needs {package or 'another package'}: {how}") from err
        except Exception as err:  # an unknown protocol, or whatever a file system raises
            raise UnreachableError(self.url, " ".join(str(err).split())) from err

    def _ask(self, method: str, *behind: Any, source: str | None = None, **options: Any) -> Any:
        """Call a method of the file system with the path, `source` in front of it and other arguments behind it.

        File systems agree on the order of arguments and not on all of their names.
        """
        system, path = self._system
        front = () if source is None else (source,)
        try:
            return getattr(system, method)(*front, path, *behind, **options)
        except NotImplementedError as err:
            raise UnreachableError(self.url, f"{self.protocol}:// does not allow this ({method})") from err
        except FileNotFoundError as err:
            raise UnreachableError(self.url, "there is no such file, folder or bucket") from err
        except Exception as err:  # every file system has errors of its own
            raise UnreachableError(self.url, f"{why(err)}; check the URL, the network and your access") from err


Place = Path | RemotePath


def is_url(source: object) -> bool:
    """Return whether a source is a URL, and not a path or a Hub id."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", str(source)) is not None


def as_place(source: str | Path | RemotePath) -> Place:
    """Return a path on disk, or the place that a URL names. The URL file:///a/b is the path /a/b."""
    if isinstance(source, RemotePath):
        return source
    if not is_url(source):
        return expanded(source)
    if str(source).lower().startswith("file://"):
        parts = urlsplit(str(source))
        return expanded(unquote(parts.netloc + parts.path))
    return RemotePath(str(source))
