"""Files that are written whole or not at all.

Everything is first written under temporary names in the same folder, and only
then renamed. A full disk or a crash leaves what stood there before untouched.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from ptune.errors import OutputError

_SUFFIX = ".part"


def write_files(folder: Path, files: Mapping[str, bytes], remove: Sequence[str] = ()) -> None:
    """Write several files of one folder together; then remove those named in `remove`.

    Raises:
        OutputError: the folder or a file cannot be written; all old files are whole.
    """
    make_folder(folder)
    parts = {name: folder / f".{name}{_SUFFIX}" for name in files}
    try:
        for name, content in files.items():
            with parts[name].open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for name, part in parts.items():
            part.replace(folder / name)
        for name in remove:
            (folder / name).unlink(missing_ok=True)
    except OSError as err:
        raise _cannot_write(folder, err) from err
    finally:
        for part in parts.values():
            with suppress(OSError):
                part.unlink()


@contextmanager
def written_file(path: Path, mode: str = "w") -> Iterator[IO[str] | IO[bytes]]:
    """A file that takes its name when the block ends well, for output that is streamed.

    Raises:
        OutputError: the file cannot be written.
    """
    part = path.with_name(f".{path.name}{_SUFFIX}")
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    try:
        with part.open(mode, **text) as file:  # type: ignore[call-overload]
            yield file
        part.replace(path)
    except OSError as err:
        if isinstance(err, OutputError):
            raise
        raise _cannot_write(path, err) from err
    finally:
        with suppress(OSError):
            part.unlink()


def make_folder(folder: Path) -> None:
    """Create a folder and check that it can be written into.

    Raises:
        OutputError: it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):  # without a name that another thread or process could use too
            pass
    except OSError as err:
        raise _cannot_write(folder, err) from err


def _cannot_write(path: Path, err: OSError) -> OutputError:
    reason = "Not a directory" if isinstance(err, FileExistsError) else err.strerror or err
    return OutputError(f"cannot write '{path}': {reason}; what stood there before is unchanged")
