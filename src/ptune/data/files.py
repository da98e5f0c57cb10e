"""Open data files: on disk, compressed, in a pipe, or behind a URL that fsspec knows.

A `DataFile` knows the format of a file by its name, such as .csv of
train.csv.gz, and its encoding by its content. It can be opened many times; what
comes from a pipe or over a network is copied to a temporary file first.
"""

from __future__ import annotations

import bz2
import gzip
import io
import logging
import lzma
import os
import shutil
import sys
import tempfile
import weakref
import zipfile
from functools import cached_property
from pathlib import Path, PurePath
from typing import IO, Any

from ptune.data.encoding import find_encoding
from ptune.errors import ConfigError, DataError
from ptune.hub import expanded, hint
from ptune.places import Place, as_place

logger = logging.getLogger(__name__)

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".txt", ".xlsx", ".xls", ".ods")
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst", ".zip")
STANDARD_INPUT = "-"
_STANDARD_INPUT = "standard input"  # its name in messages


def split_name(name: str) -> tuple[str, str, str]:
    """Return the stem of a file's name, its ending and that of its compression: train.csv.gz is (train, .csv, .gz).

    Endings are in lower case, and "" if there is none.
    """
    path, compression = PurePath(name), ""
    if path.suffix.lower() in COMPRESSIONS:
        path, compression = PurePath(path.stem), path.suffix.lower()
    return path.stem, path.suffix.lower(), compression


def is_data_file(name: str) -> bool:
    """Return whether a name has the ending of a data file, compressed or not."""
    return split_name(name)[1] in SUFFIXES


def has_ending(source: str) -> bool:
    """Return whether a source has the ending of a data file or of a compressed one, and so is not a Hub id."""
    _, ending, compression = split_name(PurePath(source).name)
    return ending in SUFFIXES or bool(compression)


def as_file(source: str | Place | DataFile, ending: str | None = None) -> DataFile:
    """Return the data file that a path, a URL or "-" for standard input names.

    Args:
        source: the path or URL.
        ending: the format, such as .csv; None: by the file's name or, in a pipe, by its first line.

    Raises:
        DataError: the file does not exist, or its ending is unknown.
    """
    if isinstance(source, DataFile):
        return source
    if str(source) == STANDARD_INPUT:
        if sys.stdin is None:
            raise DataError("standard input is closed; give a file")
        return DataFile.from_pipe(sys.stdin.buffer, _STANDARD_INPUT, ending)
    place = as_place(source)
    if isinstance(place, Path) and (place.is_fifo() or place.is_char_device()):
        with place.open("rb") as pipe:
            return DataFile.from_pipe(pipe, str(place), ending)
    return DataFile(place, ending)


def check_other_file(source: Place | DataFile | str, output: Place) -> None:
    """Check that a command does not write over what it reads.

    Args:
        source: file or folder that is read.
        output: file or folder that is written.

    Raises:
        ConfigError: they are the same, or the output is a file in the folder that is read.
    """
    place = source.place if isinstance(source, DataFile) else as_place(source)
    if isinstance(place, Path) and isinstance(output, Path):
        place, output = expanded(place).resolve(), expanded(output).resolve()
    if place == output or (output.parent == place and place.is_dir()):
        raise ConfigError(f"the output '{output}' would write over the input, '{place}'; give another name")


class DataFile:
    """A file of rows.

    Args:
        place: where the file is.
        ending: the format, such as .csv; None: by the name.
        name: the file's name in messages; None: that of the place.

    Attributes:
        stem: the file's name without its endings.
        ending: the format, such as .csv.
        compression: the ending of the compression, such as .gz; "" if there is none.
    """

    def __init__(self, place: Place, ending: str | None = None, name: str | None = None) -> None:
        self.place = place
        self.name = name or str(place)
        self.stem, own_ending, self.compression = split_name(place.name)
        self.ending = ending or own_ending
        if not self.ending and self.compression == ".zip" and place.is_file():
            self.ending = split_name(self._member())[1]
        self._said: set[str] = set()

    @classmethod
    def from_pipe(cls, pipe: IO[bytes], name: str, ending: str | None = None) -> DataFile:
        """Return a file with what a pipe gives. It is written to a temporary file, which goes with the object.

        Args:
            pipe: an open pipe, which is read to its end.
            name: the name in messages.
            ending: the format, such as .csv; None: by the first line, see `ptune.data.formats`.
        """
        from ptune.data.formats import guess_format

        path = _copy(pipe)
        file = cls(path, ending or ".txt", name)
        weakref.finalize(file, path.unlink, missing_ok=True)
        if ending is None:
            with file.open() as content:
                file.ending = guess_format(content.readline(1 << 16))
            file.say(
                logging.INFO,
                f"{name} is read as {file.ending[1:]}, judged by its first line; if that is wrong, save it to a file "
                "whose name says what it is, or give ptune predict its --input-format",
            )
        return file

    def __str__(self) -> str:
        return self.name

    @property
    def where(self) -> str:
        """What an error message about the file begins with."""
        return self.name if self.name == _STANDARD_INPUT else f"data file '{self.name}'"

    def check(self) -> None:
        """Check that the file exists and that its format is known.

        Raises:
            DataError: it does not, or it is not.
        """
        if not self.place.is_file():
            near = hint(str(self.place)) if isinstance(self.place, Path) else ""
            raise DataError(f"{self.where}: there is no such file{near}")
        if self.ending not in SUFFIXES:
            shown = self.ending or self.compression
            raise DataError(
                f"{self.where}: the ending '{shown}' is unknown; use one of {', '.join(SUFFIXES)}, "
                f"which {', '.join(COMPRESSIONS)} may follow"
            )

    def open(self) -> IO[bytes]:
        """Open the file for reading bytes, without its compression."""
        path = self._local
        if self.compression == ".zip":
            with zipfile.ZipFile(path) as archive:
                return archive.open(self._member())
        if self.compression == ".zst":
            import pyarrow

            return pyarrow.input_stream(str(path), compression="zstd")
        if self.compression:
            openers: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
            return openers[self.compression](path, "rb")
        return path.open("rb")

    def open_text(self, newline: str | None = None) -> IO[str]:
        """Open the file for reading text in its encoding; `newline` is that of Python's `open`.

        Raises:
            DataError: the file is not UTF-8, nor anything else that can be told.
        """
        encoding = self.encoding  # before the file is opened, because it may be an error
        return io.TextIOWrapper(self.open(), encoding=encoding, newline=newline)

    @cached_property
    def encoding(self) -> str:
        """The name of the file's encoding, as Python knows it."""
        encoding, remark = find_encoding(self.open, self.where, self.name)
        if remark:
            self.say(logging.WARNING, remark)
        return encoding

    def say(self, level: int, message: str) -> None:
        """Log a message about the file, but not a second time."""
        if message not in self._said:
            self._said.add(message)
            logger.log(level, "%s", message)

    @cached_property
    def _local(self) -> Path:
        if isinstance(self.place, Path):
            return self.place
        with self.place.open("rb") as content:
            path = _copy(content)
        weakref.finalize(self, path.unlink, missing_ok=True)
        return path

    def _member(self) -> str:
        """Return the name of the data file in an archive, which has to be the only one."""
        try:
            with zipfile.ZipFile(self._local) as archive:
                members = [
                    info
                    for info in archive.infolist()
                    if is_data_file(info.filename) and not info.filename.startswith("__MACOSX")
                ]
        except zipfile.BadZipFile as err:
            raise DataError(f"{self.where} is not a zip archive, although its name says so: {err}") from err
        if len(members) != 1:
            names = ", ".join(info.filename for info in members[:5]) or "none"
            raise DataError(f"{self.where} should hold one data file, but it holds {names}; unpack it, and give a file")
        if members[0].flag_bits & 1:
            raise DataError(f"{self.where} has a password; unpack it, and give the file in it")
        return members[0].filename


def _copy(content: IO[bytes]) -> Path:
    """Copy a stream to a temporary file and return its path."""
    handle, name = tempfile.mkstemp(prefix="ptune-")
    try:
        with os.fdopen(handle, "wb") as file:
            shutil.copyfileobj(content, file)
    except BaseException:  # the disk is full, the connection is lost, or Ctrl-C
        Path(name).unlink()
        raise
    return Path(name)
