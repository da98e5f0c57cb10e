"""Files that are written completely or not at all.

Content goes to temporary names in the same folder, which are renamed once all
of it is written. After a full disk or a crash while writing, existing files are
intact. A crash between the renames of several files can leave new ones beside
old ones, which an adapter's record notices by its hash.
Folders that were made for files which were not written are removed again.

What goes to a URL, such as s3://, is uploaded once all of it is there (`ptune.places`).
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from ptune.errors import OutputError
from ptune.places import Place, RemotePath, UnreachableError

_SUFFIX = ".part"


def write_files(folder: Place, files: Mapping[str, bytes], remove: Sequence[str] = ()) -> None:
    """Write several files into one folder together, and then remove the files named in `remove`.

    Args:
        folder: is created if it does not exist.
        files: content by file name.
        remove: names of files to delete; missing ones are ignored.

    Raises:
        OutputError: the folder or a file cannot be written. Existing files are intact.
    """
    if isinstance(folder, RemotePath):
        with _uploading(folder):
            folder.write_files(files, remove)
        return
    new = _missing_folders(folder)
    make_folder(folder)
    temporary = {name: _temporary(folder / name) for name in files}
    try:
        for name, content in files.items():
            with temporary[name].open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for name, path in temporary.items():
            path.replace(folder / name)
        for name in remove:
            (folder / name).unlink(missing_ok=True)
    except OSError as err:
        raise _cannot_write(folder, err) from err
    finally:
        for path in temporary.values():
            with suppress(OSError):
                path.unlink()
        _remove_empty(new)


def _temporary(path: Path) -> Path:
    """Return the name of a file or folder until it is complete, which nothing else uses, not even on other machines."""
    return path.with_name(f".{path.name}-{secrets.token_hex(8)}{_SUFFIX}")


@contextmanager
def written_file(path: Place, mode: str = "w") -> Iterator[IO[str] | IO[bytes]]:
    """Open a file for streamed output. It gets its name only when the block ends without an error.

    Args:
        path: the file to write. Its folder is created if it does not exist.
        mode: "w" for UTF-8 text with line breaks as they are given, "wb" for bytes.

    Raises:
        OutputError: the file cannot be written. An existing file is intact.
    """
    if isinstance(path, RemotePath):
        with _uploaded_file(path, mode) as file:
            yield file
        return
    new = _missing_folders(path.parent)
    make_folder(path.parent)
    temporary = _temporary(path)
    try:
        with temporary.open(mode, **_text_options(mode)) as file:
            yield file
        temporary.replace(path)
    except OSError as err:
        if isinstance(err, OutputError):
            raise
        raise _cannot_write(path, err) from err
    finally:
        with suppress(OSError):
            temporary.unlink()
        _remove_empty(new)


@contextmanager
def written_folder(folder: Path) -> Iterator[Path]:
    """Open a new folder to write files into. It gets its name only when the block ends without an error.

    Args:
        folder: the folder to write. One that is there already is replaced as a whole, and stays if there is an error.

    Yields:
        The folder under a temporary name.

    Raises:
        OutputError: the folder cannot be written.
    """
    folder = folder.resolve()
    new = _missing_folders(folder.parent)
    make_folder(folder.parent)
    temporary, older = _temporary(folder), _temporary(folder)
    try:
        temporary.mkdir()
        yield temporary
        if folder.exists():
            folder.rename(older)
        temporary.rename(folder)
    except OSError as err:
        if isinstance(err, OutputError):
            raise
        raise _cannot_write(folder, err) from err
    finally:
        if older.exists() and not folder.exists():  # an error, or Ctrl-C, between the two renames
            older.rename(folder)
        for path in (temporary, older):
            shutil.rmtree(path, ignore_errors=True)
        _remove_empty(new)


@contextmanager
def _uploaded_file(path: RemotePath, mode: str) -> Iterator[IO[str] | IO[bytes]]:
    """Open a file as `written_file` does, which is on disk until it is complete."""
    handle, name = tempfile.mkstemp(prefix="ptune-")
    os.close(handle)
    try:
        with _uploading(path):
            with Path(name).open(mode, **_text_options(mode)) as file:
                yield file
            path.upload(Path(name))
    finally:
        Path(name).unlink(missing_ok=True)


@contextmanager
def _uploading(place: RemotePath) -> Iterator[None]:
    """Turn the error of a place that cannot be reached into that of one that cannot be written."""
    try:
        yield
    except UnreachableError as err:
        raise _cannot_write(place, err) from err


def _text_options(mode: str) -> dict[str, Any]:
    return {} if "b" in mode else {"encoding": "utf-8", "newline": ""}


def make_folder(folder: Path) -> None:
    """Create a folder if it does not exist, and check that files can be written into it.

    Raises:
        OutputError: the folder cannot be created or written into.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):  # has no name that another thread or process could use too
            pass
    except OSError as err:
        raise _cannot_write(folder, err) from err


def try_folder(folder: Place) -> None:
    """Check that files can be written into a folder, which may not exist yet. Nothing is left behind.

    Raises:
        OutputError: the folder cannot be created or written into.
    """
    if isinstance(folder, RemotePath):
        with _uploading(folder):
            folder.try_writing()
        return
    new = _missing_folders(folder)
    try:
        make_folder(folder)
    finally:
        _remove_empty(new)


def _missing_folders(folder: Path) -> list[Path]:
    """Return a folder and its parents as far as they do not exist, the innermost first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


def _remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders, the innermost first, up to the first one that is not empty."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _cannot_write(path: Place, err: OSError) -> OutputError:
    reason = "Not a directory" if isinstance(err, FileExistsError) else err.strerror or err
    return OutputError(f"cannot write '{path}': {reason}; existing files are intact")
