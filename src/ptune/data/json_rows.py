"""Read JSON Lines, and JSON files in the forms that pandas and other programs write."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ptune.data.files import DataFile
from ptune.errors import DataError

Row = dict[str, Any]
_ROW = 'an object like {"text": ...}'


def read_json_lines(file: DataFile) -> Iterator[Row | DataError]:
    """Yield the rows of a JSON Lines file, and an error in the place of a line that is not an object."""
    number = 0
    with file.open_text() as content:
        for line_number, line in enumerate(content, 1):
            if line.strip():
                number += 1
                yield _object(file, number, line_number, line)


def read_json(file: DataFile) -> Iterator[Row | DataError]:
    """Yield the rows of a JSON file.

    It may hold a list of objects, an object with such a list in it, a table in any of pandas' forms, a single row, or
    in fact JSON Lines.

    Raises:
        DataError: the file holds something else.
    """
    with file.open_text() as content:
        text = content.read()
    try:
        loaded = json.loads(text)
    except (ValueError, RecursionError) as err:
        if not text.lstrip().startswith("["):
            yield from read_json_lines(file)
            return
        raise DataError(f"{file.where}: not JSON: {_why(err)}; correct it there") from err
    rows = loaded if isinstance(loaded, list) else _table_rows(loaded)
    if rows is None:
        raise DataError(
            f"{file.where} holds {_describe(loaded)}; expected a list of objects such as "
            '[{"text": ..., "label": ...}], or one object per line'
        )
    for number, row in enumerate(rows, 1):
        yield row if isinstance(row, dict) else DataError(f"{file.where}, row {number}: expected {_ROW}")


def _object(file: DataFile, number: int, line_number: int, line: str) -> Row | DataError:
    where = f"{file.where}, row {number}" + ("" if number == line_number else f" (line {line_number})")
    try:
        row = json.loads(line)
    except json.JSONDecodeError as err:
        return DataError(f"{where}: not JSON: {err.msg} at character {err.pos + 1}; correct or remove the line")
    except (ValueError, RecursionError) as err:
        return DataError(f"{where}: not JSON: {err}; correct or remove the line")
    if isinstance(row, dict):
        return row
    hint = "; a file that is one list has the ending .json" if line.lstrip().startswith("[{") else ""
    return DataError(f"{where}: expected {_ROW}, got {line.strip()[:40]}{hint}")


def _why(err: Exception) -> str:
    """Return why a text is not JSON, with the place."""
    if isinstance(err, json.JSONDecodeError):
        return f"{err.msg} in line {err.lineno}, column {err.colno}"
    return str(err)


def _table_rows(content: Any) -> list[Any] | None:
    """Return the rows of a JSON object; None if it has none.

    pandas writes {"text": {"0": ...}} by default, and other forms with `orient`: {"0": {"text": ...}} (index),
    {"columns": [...], "data": [[...]]} (split) and {"schema": ..., "data": [{...}]} (table).
    """
    if not isinstance(content, dict) or not content:
        return None
    values = list(content.values())
    columns, data = content.get("columns"), content.get("data")
    if isinstance(columns, list) and isinstance(data, list):
        return [dict(zip(map(str, columns), row, strict=False)) for row in data if isinstance(row, list)]
    lists = [value for value in values if isinstance(value, list) and value and isinstance(value[0], dict)]
    if len(lists) == 1:  # {"version": ..., "data": [{...}]}
        return lists[0]
    if all(isinstance(value, list) for value in values) and len({len(value) for value in values}) == 1:
        return [dict(zip(content, row, strict=True)) for row in zip(*values, strict=True)]
    if all(isinstance(value, dict) and value for value in values):
        return values if _is_index(content) else _columns(content)
    if not any(isinstance(value, (list, dict)) for value in values):
        return [content]
    return None


def _is_index(keys: Mapping[str, Any]) -> bool:
    return all(key.isdigit() for key in keys)


def _columns(content: dict[str, dict[str, Any]]) -> list[Row] | None:
    """Return the rows of columns that are objects with a cell for each row; None if their rows differ."""
    first = next(iter(content.values()))
    if any(column.keys() != first.keys() for column in content.values()):
        return None
    return [{name: column[row] for name, column in content.items()} for row in first]


def _describe(content: Any) -> str:
    if isinstance(content, dict):
        names = ", ".join(f"'{name}'" for name in list(content)[:5])
        return f"an object with {names or 'nothing in it'}"
    return f"a single value, {json.dumps(content)[:40]}"
