"""Find the encoding of a text file.

It is UTF-8, or what the byte order mark says. A file that is neither is read as
Windows-1252, which contains Latin-1, if that is what it looks like.
"""

from __future__ import annotations

import codecs
import io
import re
import shlex
from collections.abc import Callable
from pathlib import PurePath
from typing import IO

from ptune.errors import DataError

_CHUNK = 1 << 20
# UTF-32 comes first because its mark begins like that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# What files that are no text begin with, as regular expressions, and what to do about them. The first letters of some
# could begin a header too.
_NO_TEXT = (
    (rb"\x1f\x8b", "a gzip file", "give it a name that says so, such as {name}.gz"),
    (
        rb"PK\x03\x04",
        "a zip archive or a spreadsheet",
        "give it a name that says so, such as {stem}.zip or {stem}.xlsx",
    ),
    (rb"\xd0\xcf\x11\xe0", "an old Excel file", "give it a name that says so, such as {stem}.xls"),
    (rb"PAR1\x15", "a Parquet file", "give it a name that says so, such as {stem}.parquet"),
    (rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)", "a bzip2 file", "give it a name that says so, such as {name}.bz2"),
    (rb"\xfd7zXZ", "an xz file", "give it a name that says so, such as {name}.xz"),
    (rb"\x28\xb5\x2f\xfd", "a zstd file", "give it a name that says so, such as {name}.zst"),
    (rb"%PDF-\d", "a PDF", "save its table as CSV"),
)
# Smallest share of zero bytes at even or odd places by which UTF-16 is told that has no byte order mark.
_ZEROS = 0.3
# Largest share of letters beyond ASCII in Windows-1252. In French it is 4 %; in Cyrillic or Chinese most letters are.
_WESTERN = 0.35


def find_encoding(open_file: Callable[[], IO[bytes]], where: str, name: str) -> tuple[str, str]:
    """Return the name of a file's encoding, and a remark for the user if it is not UTF-8, otherwise "".

    Args:
        open_file: opens the file. It is read to its end.
        where: what an error message begins with.
        name: the file's path, for the command that converts it.

    Raises:
        DataError: the encoding cannot be told. The message names the first byte that is not UTF-8.
        DataError: the file is no text.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    with open_file() as file:
        chunk = file.read(_CHUNK)
        for mark, encoding in _MARKS:
            if chunk.startswith(mark):
                return encoding, f"{where} is read as {encoding.upper()}, which its byte order mark stands for"
        for beginning, kind, advice in _NO_TEXT:
            if re.match(beginning, chunk):
                path = PurePath(name)
                raise DataError(f"{where} is {kind}, and not text; {advice.format(name=path.name, stem=path.stem)}")
        if encoding := _utf16(chunk):
            return encoding, f"{where} is read as UTF-16, judging by its zero bytes; it has no byte order mark"
        try:
            while chunk:
                decoder.decode(chunk)
                chunk = file.read(_CHUNK)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return _legacy_encoding(open_file, where, name)
    return "utf-8-sig", ""


def _utf16(chunk: bytes) -> str:
    """Return the kind of UTF-16 that a text without byte order mark is in; "" if it is not in UTF-16.

    Every other byte of a Western text in UTF-16 is zero, and a text in UTF-8 has none.
    """
    sample = chunk[: 1 << 12]
    for first, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        if sample[first::2].count(0) > _ZEROS * (len(sample) / 2) and not sample[1 - first :: 2].count(0):
            return encoding
    return ""


def decode(content: bytes, name: str) -> tuple[str, bool]:
    """Return the text of a small file, and whether it is in a Unicode encoding.

    Raises:
        DataError: see `find_encoding`.
    """
    encoding, _ = find_encoding(lambda: io.BytesIO(content), f"data file '{name}'", name)
    return content.decode(encoding), encoding != "cp1252"


def _legacy_encoding(open_file: Callable[[], IO[bytes]], where: str, name: str) -> tuple[str, str]:
    beyond_ascii, letters, offset = 0, 0, 0
    bad, is_utf8_elsewhere, is_western = "", False, True
    with open_file() as file:
        for number, line in enumerate(file, 1):
            if not line.isascii():
                beyond_ascii += sum(byte > 127 for byte in line)
                letters += sum(byte > 127 or chr(byte).isalpha() for byte in line)
                is_western = is_western and _decodes(line, "cp1252")
                try:
                    line.decode("utf-8")
                    is_utf8_elsewhere = True
                except UnicodeDecodeError as err:
                    bad = bad or (
                        f"byte 0x{line[err.start]:02x} does not decode (line {number}, byte {offset + err.start + 1} "
                        "of the file)"
                    )
            offset += len(line)
    path = PurePath(name)
    quoted, target = shlex.quote(name), shlex.quote(str(path.with_name(f"{path.stem}-utf8{path.suffix}")))
    if is_utf8_elsewhere:
        raise DataError(
            f"{where} is not UTF-8: {bad}, though other lines are UTF-8. Repair the line, or remove such bytes with "
            f"iconv -c -f UTF-8 -t UTF-8 {quoted} > {target}"
        )
    convert = f"iconv -f WINDOWS-1252 -t UTF-8 {quoted} > {target}"
    if is_western and beyond_ascii < _WESTERN * letters:
        return "cp1252", (
            f"{where} is not UTF-8: {bad}. It is read as Windows-1252. If characters come out wrong, convert it from "
            f"its own encoding, as in {convert}"
        )
    raise DataError(
        f"{where} is not UTF-8: {bad}. Convert it from its own encoding, such as WINDOWS-1251, GB18030 or SHIFT_JIS, "
        f"as in {convert}"
    )


def _decodes(line: bytes, encoding: str) -> bool:
    try:
        line.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True
