"""Adapters that are added, replaced and removed through HTTP. Their files go into the catalogue's folder."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import logging
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeVar

from ptune.adapter.fetch import locate_adapter
from ptune.adapter.layout import ADAPTER_FILES
from ptune.atomic import write_files
from ptune.errors import AdapterError, ConfigError, RequestError
from ptune.hub import is_there, parse_hub_id
from ptune.serving.bank import Bank, Loaded
from ptune.serving.catalogue import Catalogue, Entry, check_name, read_entry

logger = logging.getLogger(__name__)

# What the standard library raises for archives that are damaged, encrypted or compressed in an unknown way.
_BAD_ARCHIVE = (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, tarfile.TarError, zlib.error)
_HEADERS = 2**20  # bytes of a tar archive besides its files
T = TypeVar("T")
KINDS = 'application/zip, application/x-tar, or application/json with {"source": "owner/name@revision"}'


class Uploads:
    """Changes of the catalogue that callers ask for, one at a time.

    Args:
        catalogue: is changed.
        bank: loads new adapters.
        changing: is held while the catalogue changes.
        most: bytes of an adapter's files.
    """

    def __init__(self, catalogue: Catalogue, bank: Bank, changing: asyncio.Lock, most: int) -> None:
        self.catalogue = catalogue
        self.bank = bank
        self.changing = changing
        self.most = most

    async def put(self, name: str, body: bytes, kind: str) -> tuple[Entry, bool]:
        """Add an adapter, or replace the one of its name.

        It is unpacked beside the others, loaded and checked. Only then its files get their names. Requests see the old
        one or the new one.

        Args:
            name: of the adapter.
            body: a zip or tar archive of its files, or JSON with the source on the Hub.
            kind: the body's media type.

        Returns:
            The new entry, and whether there was none of this name.

        Raises:
            RequestError: the archive cannot be used, or the server has no folder for adapters.
            AdapterError: the adapter is damaged or does not go with the backbone.
        """
        return await _to_the_end(self._put(name, self._folder(name), body, kind))

    async def _put(self, name: str, folder: Path, body: bytes, kind: str) -> tuple[Entry, bool]:
        async with self.changing:
            is_new = name not in self.catalogue.entries
            with _writing():
                loaded = await asyncio.to_thread(self._store, name, folder, body, kind)
            self.bank.keep(loaded)
            self.catalogue.put(loaded.entry)
        return loaded.entry, is_new

    async def delete(self, name: str) -> None:
        """Remove an adapter and its files.

        Raises:
            RequestError: there is none (404), or it is not in the folder for adapters (409).
        """
        await _to_the_end(self._delete(name))

    async def _delete(self, name: str) -> None:
        async with self.changing:
            if name not in self.catalogue.broken:
                self.catalogue[name]
            folder = self._folder(name)
            if not (folder / name).is_dir():
                raise RequestError(
                    f"adapter '{name}' is not in the folder that the server writes to, so its files are not removed",
                    409,
                )
            with _writing():
                await asyncio.to_thread(_remove, folder, name)
            self.catalogue.drop(name)
            self.bank.drop(name)

    def _folder(self, name: str) -> Path:
        catalogue = self.catalogue
        if catalogue.upload_folder is None:
            raise RequestError(
                "the server has no folder of adapters to write to; start it as ptune serve DIR", 409, field="adapter"
            )
        if catalogue.is_fixed(name):
            raise RequestError(f"adapter '{name}' was named at the start of the server; give another name", 409)
        return catalogue.upload_folder

    def _store(self, name: str, folder: Path, body: bytes, kind: str) -> Loaded:
        """Write the files of an adapter, after they have been loaded from a folder of their own."""
        with tempfile.TemporaryDirectory(prefix=".upload-", dir=folder) as temporary:
            trial = Path(temporary) / name
            trial.mkdir()
            files = self._files(body, kind)
            for file_name, content in files.items():
                (trial / file_name).write_bytes(content)
            try:
                self.bank.read(read_entry(name, trial))
            except (AdapterError, ConfigError) as err:
                raise RequestError(str(err).replace(f"{trial}/", "").replace(str(trial), name), 422) from err
            target = folder / name
            if target.is_symlink():  # the folder that it leads to may be another adapter's too
                target.unlink()
                trial.rename(target)
            else:
                write_files(target, files, remove=[other for other in ADAPTER_FILES if other not in files])
        return self.bank.read(read_entry(name, target))

    def _files(self, body: bytes, kind: str) -> dict[str, bytes]:
        """Return the files of an adapter by name.

        Raises:
            RequestError: the body is of another kind (415), damaged, too large or holds no adapter (422).
        """
        if kind == "application/json":
            return self._fetched(body)
        if kind in ("application/zip", "application/x-zip-compressed"):
            members = _zipped(body)
        elif kind in ("application/x-tar", "application/gzip", "application/x-gtar", "application/x-gzip"):
            members = _tarred(body, self.most)
        else:
            raise RequestError(f"expected a body of type {KINDS}", 415)
        left, files = self.most, dict[str, bytes]()
        try:
            for path, file in members:
                file_name = PurePosixPath(path).name
                if file_name not in ADAPTER_FILES or len(PurePosixPath(path).parts) > 2:
                    continue
                # An archive may say less than it holds, so what counts is what comes out of it.
                content = file.read(left + 1)
                left -= len(content)
                if left < 0 or file_name in files:
                    raise RequestError(f"the archive has two files '{file_name}', or holds more than `max_upload`", 422)
                files[file_name] = content
        except RequestError:
            raise
        except _BAD_ARCHIVE as err:
            raise RequestError(f"the archive cannot be read: {err}", 422) from err
        if not files:
            raise RequestError(f"the archive has none of {', '.join(ADAPTER_FILES)} at its top", 422)
        return files

    def _fetched(self, body: bytes) -> dict[str, bytes]:
        """Return the files of an adapter on the Hub. A folder of this machine is not a source."""
        try:
            source = json.loads(body).get("source")
        except (ValueError, AttributeError, RecursionError) as err:
            raise RequestError(
                'expected JSON such as {"source": "owner/name@revision"}', 400, kind="Validation"
            ) from err
        if not isinstance(source, str) or parse_hub_id(source) is None or is_there(Path(source)):
            raise RequestError("`source` is not a Hub id; expected owner/name or owner/name@revision", 422)
        folder = locate_adapter(source, self.most)
        paths = {name: folder / name for name in ADAPTER_FILES if (folder / name).is_file()}
        if sum(path.stat().st_size for path in paths.values()) > self.most:
            raise RequestError(f"adapter '{source}' has more than `max_upload` bytes", 422)
        return {name: path.read_bytes() for name, path in paths.items()}


@contextmanager
def _writing() -> Iterator[None]:
    """Say that files cannot be written, without the path, which is the operator's.

    Raises:
        RequestError: they cannot (409).
    """
    try:
        yield
    except OSError as err:
        logger.warning("an adapter cannot be written or removed: %s", err)
        raise RequestError("the server cannot write to its folder of adapters; its log says why", 409) from err


async def _to_the_end(change: Coroutine[Any, Any, T]) -> T:
    """Return the result of a change, which goes on if the one who asked for it is cancelled: its thread would, too."""
    return await asyncio.shield(asyncio.create_task(change))


def _zipped(body: bytes) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield the names of an archive's files, and open files to read them from."""
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        for member in archive.infolist():
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"'{member.filename}' is compressed in another way than by deflate")
            if not member.is_dir():
                with archive.open(member) as file:
                    yield member.filename, file


def _tarred(body: bytes, most: int) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield the names of an archive's files, and open files to read them from.

    Args:
        body: the archive, plain or compressed by gzip.
        most: bytes that an adapter's files may have. Headers may take as much again.
    """
    if body[:2] == b"\x1f\x8b":
        with gzip.open(io.BytesIO(body)) as stream:
            body = stream.read(2 * most + _HEADERS + 1)
        if len(body) > 2 * most + _HEADERS:
            raise ValueError("it holds more than `max_upload`")
    with tarfile.open(fileobj=io.BytesIO(body), mode="r:") as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isfile() else None
            if file is not None:
                yield member.name, file


def _remove(folder: Path, name: str) -> None:
    """Remove the folder of an adapter. It loses its name first, so that nobody sees half of it."""
    with tempfile.TemporaryDirectory(prefix=".removed-", dir=folder) as temporary:
        (folder / check_name(name)).rename(Path(temporary) / name)
        shutil.rmtree(Path(temporary) / name, ignore_errors=True)
