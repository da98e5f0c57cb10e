"""Bring the cells of label columns into one form before they are read as labels.

Lists may be written as text, as pandas does in a CSV file. Several columns of
zeros and ones are the labels of a row. Some texts stand for no label at all.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ptune.data.targets import is_missing, truth
from ptune.errors import DataError

# In the folded form. "-" is also a label, where "+" is one.
_PLACEHOLDERS = frozenset({"-", "--", "?", "n/a", "#n/a", "nan", "null", "<na>"})
# Two strings with nothing but blanks between them: an array of NumPy as text. Python would join them.
_ARRAY = re.compile(r"""(?P<quote>['"])(?P<item>.*?)(?P=quote)(?=\s+['"]|\s*\])""")
_ADJACENT = re.compile(r"""['"]\s+['"]""")


def read_written_lists(cells: Sequence[Any]) -> list[Any]:
    """Return label cells with lists in the place of lists that are written as text, such as "['a', 'b']".

    The cells come back as they are unless all that hold text are such lists.
    """
    texts = [cell for cell in cells if isinstance(cell, str) and not is_missing(cell)]
    if not texts or not all(looks_like_list(text) for text in texts):
        return list(cells)
    lists = {text: _parse(text) for text in set(texts)}
    if any(items is None for items in lists.values()):
        return list(cells)
    return [lists.get(cell, cell) if isinstance(cell, str) else cell for cell in cells]


def looks_like_list(text: str) -> bool:
    """Return whether a text has the brackets of a list."""
    stripped = text.strip()
    return stripped.startswith("[") and stripped.endswith("]")


def hot_labels(row: Mapping[str, Any], columns: Sequence[str], where: str) -> list[str] | int | None:
    """Return the names of the columns in which a row has a 1, -1 if all cells hold -1, and None if all are empty.

    Args:
        row: cells by column.
        columns: the columns of zeros and ones.
        where: what an error message begins with.

    Raises:
        DataError: a cell holds something else.
    """
    cells = [row.get(column) for column in columns]
    if all(is_missing(cell) for cell in cells):
        return None
    if all(str(cell).strip() in ("-1", "-1.0") for cell in cells):
        return -1
    labels = []
    for column, cell in zip(columns, cells, strict=True):
        value = _TRUTH.get(truth(str(cell).strip()))
        if value is None:
            raise DataError(f"{where}: column '{column}' holds '{str(cell)[:40]}'; with several label columns, 0 or 1")
        if value:
            labels.append(column)
    return labels


_TRUTH = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}


def is_placeholder(name: str, names: Collection[str]) -> bool:
    """Return whether the name of a label usually stands for a missing one.

    Args:
        name: the label.
        names: all labels of the data.
    """
    return name.casefold() in _PLACEHOLDERS and not (name == "-" and "+" in names)


def _parse(text: str) -> list[Any] | None:
    """Return the list that a text stands for; None if it stands for none."""
    if _ADJACENT.search(text):
        return [match["item"] for match in _ARRAY.finditer(text)]
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(text.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        return list(value) if isinstance(value, (list, tuple)) else None
    inside = text.strip()[1:-1]
    names = [name.strip() for name in inside.split(",")]  # [a, b], without quotation marks
    return names if all(names) and not re.search(r"[\[\]{}]", inside) else None
