"""Read tables of text: CSV and TSV, with the separator and the quotation marks that the file turns out to have."""

from __future__ import annotations

import csv
import logging
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from ptune.data.files import DataFile, as_file
from ptune.errors import DataError

Row = dict[str, Any]

# The other separators that a .csv file may have. Their names are for people.
_SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "vertical bars"}
_EXCEL = re.compile(r"sep=(.?)\s*", re.IGNORECASE)  # the first line of files for Excel, such as sep=;
_SAMPLE = 20  # lines that decide which separator it is


def read_table(file: DataFile) -> Iterator[Row | DataError]:
    """Yield the rows of a CSV or TSV file, and an error in the place of a row that does not fit the header."""
    with _open(file) as reader:
        yield from _rows(file, reader)


def read_header(file: DataFile) -> list[str]:
    """Return the column names of a CSV or TSV file."""
    with _open(file) as reader:
        return Header(file.where, _first_line(reader)).names


def read_plain_tsv(source: DataFile | Path, names: Sequence[str] = (), gaps: bool = False) -> Iterator[Row | DataError]:
    """Yield the rows of a tab-separated file in which quotation marks are ordinary characters.

    Args:
        source: the data file.
        names: column names for a file without a header. A first line that contains any of them is a header.
        gaps: whether rows may have too few fields. The missing values are None.
    """
    file = as_file(source)
    with _plain_reader(file) as reader:
        has_no_header = bool(names) and not {*names} & {*next(reader, names)}
    with _plain_reader(file) as reader:
        yield from _rows(file, reader, names if has_no_header else None, gaps)


class Header:
    """The columns of a table. Columns without a name are left out, except the first, where pandas writes its index.

    Args:
        where: what an error message about the file begins with.
        fields: the first line.

    Attributes:
        names: names of the columns.
        places: the index of each column's field.
        width: number of fields in a row, those of columns without a name included.

    Raises:
        DataError: there are no names, or a name occurs twice.
    """

    def __init__(self, where: str, fields: Sequence[str]) -> None:
        stripped = [name.strip() for name in fields]
        if not any(stripped):
            raise DataError(f"{where} is empty; its first line must name the columns")
        self.width = len(stripped)
        self.places = [place for place, name in enumerate(stripped) if name or place == 0]
        self.names = [stripped[place] for place in self.places]
        if len(set(self.names)) < len(self.names):
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise DataError(
                f"{where}: column name '{twice}' occurs twice in the header: {', '.join(self.names)}; give one of the "
                "columns another name"
            )

    def row(self, fields: Sequence[Any]) -> Row:
        """Return the fields of a row by column; those that the row lacks are None."""
        return {
            name: fields[place] if place < len(fields) else None
            for name, place in zip(self.names, self.places, strict=True)
        }


def _rows(
    file: DataFile, reader: Any, names: Sequence[str] | None = None, gaps: bool = False
) -> Iterator[Row | DataError]:
    """Yield the rows of an open table. `names` are its columns; None: the first line is the header."""
    number = 0
    try:
        header = Header(file.where, names or _first_line(reader))
        for fields in reader:
            if not fields:
                continue
            number += 1
            more = len(fields) - header.width
            if more > 0 and not any(field.strip() for field in fields[header.width :]):
                more = 0  # spreadsheets write empty fields behind the last column
            if more > 0 or (more < 0 and not gaps):
                yield DataError(
                    f"{file.where}, row {number} (line {reader.line_num}): {len(fields)} "
                    f"{'field' if len(fields) == 1 else 'fields'}, but the header has {header.width} "
                    f"({', '.join(header.names)}); {_way_out(reader, more)}"
                )
            else:
                yield header.row(fields)
    except csv.Error as err:
        reason = str(err)
        if reason == "unexpected end of data":
            reason = "a quotation mark is opened in this row, or before it, and never closed; close or remove it"
        elif "expected after" in reason:
            reason += '. A quotation mark within a field is written twice: "" and not \\"'
        yield DataError(f"{file.where}, row {number + 1} (line {reader.line_num}): {reason}")


def _first_line(reader: Any) -> list[str]:
    """Return the fields of the header. A line in front of it that names the separator for Excel is left out."""
    fields: list[str] = next(reader, [])
    if fields and _EXCEL.fullmatch(fields[0]) and not any(fields[1:]):
        return next(reader, [])
    return fields


def _way_out(reader: Any, more: int) -> str:
    """Return what to do about a row that has `more` fields than the header, or fewer."""
    if more < 0:
        return "add what is missing, or leave the field empty"
    if reader.dialect.quoting == csv.QUOTE_NONE:
        return "remove tabs from fields"
    return "put fields with separators in quotation marks"


@contextmanager
def _open(file: DataFile) -> Iterator[Any]:
    csv.field_size_limit(sys.maxsize)
    separator = _separator(file)
    if separator != "\t":
        with file.open_text(newline="") as content:
            yield csv.reader(content, delimiter=separator, strict=True)
    elif _has_quoted_fields(file):
        with file.open_text(newline="") as content:
            yield csv.reader(content, delimiter="\t")
    else:
        with _plain_reader(file) as reader:
            yield reader


@contextmanager
def _plain_reader(file: DataFile) -> Iterator[Any]:
    csv.field_size_limit(sys.maxsize)
    with file.open_text(newline="") as content:
        yield csv.reader(content, delimiter="\t", quoting=csv.QUOTE_NONE)


def _separator(file: DataFile) -> str:
    """Return the separator of a file, and log it if it is not the usual one of its format.

    That is the comma, and in a .tsv file the tab. A .tsv file has it if there is a tab in its header. A .csv file has
    it if there is a comma in its header and the next lines have as many fields; otherwise it is the first other
    separator that fits in this way.
    """
    usual = "\t" if file.ending == ".tsv" else ","
    with file.open_text(newline="") as content:
        lines = list(islice(content, _SAMPLE))
    header = lines[0] if lines else ""
    named = _EXCEL.match(header)
    if named and named[1] in _SEPARATORS:
        separator = named[1]
    elif usual == "\t" and usual in header:
        return usual
    else:
        candidates = [separator for separator in _SEPARATORS if separator in header]
        otherwise = usual if usual == "\t" else (candidates or [usual])[0]
        separator = next((one for one in candidates if _fits(lines, one)), otherwise)
    if separator != usual:
        file.say(logging.INFO, f"{file.where}: the fields are separated by {_SEPARATORS[separator]}")
    return separator


def _fits(lines: Sequence[str], separator: str) -> bool:
    """Return whether a separator gives the first lines of a file as many fields as the header, and more than one."""
    widths = set()
    try:
        for fields in csv.reader(lines, delimiter=separator):
            widths.add(len(fields))
    except csv.Error:
        return False
    return len(widths - {0}) == 1 and max(widths) > 1


def _has_quoted_fields(file: DataFile) -> bool:
    """Return whether quotation marks enclose fields in a tab-separated file, judging by its content.

    Spreadsheets put fields in quotation marks. In GLUE's files, quotation marks are ordinary characters. The marks
    enclose fields if the whole file parses strictly that way, with the same number of fields in every row. It takes the
    whole file to decide: an open mark further down would swallow the rows up to the next mark. If a field would hold
    both a tab and a line end, it may be such a swallowed row. The marks are then characters, provided that every line
    has as many fields as the header without them.
    """
    widths, swallows = set(), False
    try:
        with file.open_text(newline="") as content:
            for fields in csv.reader(content, delimiter="\t", strict=True):
                widths.add(len(fields))
                swallows = swallows or any("\t" in field and "\n" in field for field in fields)
    except csv.Error:
        return False
    if len(widths - {0}) > 1:
        return False
    if not swallows:
        return True
    with _plain_reader(file) as reader:
        return len({len(fields) for fields in reader} - {0}) > 1
