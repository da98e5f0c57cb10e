"""Read the first sheet of an Excel or OpenDocument file. Needs the extra `excel`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from ptune.data.files import DataFile
from ptune.data.tables import Header, Row
from ptune.errors import DataError


def read_sheet(file: DataFile) -> Iterator[Row]:
    """Yield the rows of the first sheet. Whole numbers are int, and empty cells are None.

    Raises:
        DataError: the extra is not installed, the file cannot be read, or its first row does not name the columns.
    """
    rows = _sheet(file)
    header = Header(file.where, [str(cell) for cell in next(rows, [])])
    for cells in rows:
        yield header.row([_plain(cell) for cell in cells])


def read_sheet_header(file: DataFile) -> list[str]:
    """Return the column names of the first sheet."""
    return Header(file.where, [str(cell) for cell in next(_sheet(file), [])]).names


def _sheet(file: DataFile) -> Iterator[list[Any]]:
    try:
        import python_calamine
    except ImportError as err:
        raise DataError(
            f"{file.where} is a spreadsheet; to read it, pip install 'ptune[excel]', or save it as .csv"
        ) from err
    with file.open() as content:
        try:
            workbook = python_calamine.CalamineWorkbook.from_filelike(content)  # type: ignore[arg-type]
            sheet = workbook.get_sheet_by_index(0)
        except (python_calamine.CalamineError, OSError, IndexError) as err:
            raise DataError(f"{file.where} is not a complete spreadsheet: {' '.join(str(err).split())}") from err
        if len(workbook.sheet_names) > 1:
            others = ", ".join(f"'{name}'" for name in workbook.sheet_names[1:])
            file.say(logging.INFO, f"{file.where}: read sheet '{workbook.sheet_names[0]}', not {others}")
        yield from sheet.iter_rows()


def _plain(cell: Any) -> Any:
    """Return a cell as other formats have it: a sheet has only numbers with a fraction, and "" for empty cells."""
    if isinstance(cell, float) and cell.is_integer():
        return int(cell)
    return None if cell == "" else cell
