"""Read label columns: one label per row, several labels per row, or a number.

These three problem types have the names that transformers gives them. The
target of a row is the index of its class, the sorted indices of its labels
(which may be none), or a number. This module does not import torch.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from decimal import Decimal
from numbers import Integral
from typing import Any, Final, Literal

from ptune.errors import ConfigError, DataError

ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
SINGLE: Final = "single_label_classification"
MULTI: Final = "multi_label_classification"
REGRESSION: Final = "regression"

Target = int | float | tuple[int, ...]

# A whole number as it is usually written: '007', '+5' and '-0' are names. Python cannot convert much longer ones.
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,999}")
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
# A number with a decimal comma. With three digits behind it, a comma may stand between thousands as well.
_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]+,([0-9]{1,2}|[0-9]{4,})")
_NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)
LONGEST_LABEL = 10_000  # characters; a longer one is a text in the wrong column
LARGEST = 1e15  # the largest target of a regression; its square has to fit float32


def settle_problem_type(
    asked: ProblemType | None, separator: str | None, cells: Sequence[Any]
) -> tuple[ProblemType, str]:
    """Return the problem type of a label column, and the reason in words.

    Lists are several labels per row, unless each of them holds exactly one. Numbers are the targets of a regression if
    any of them is a fraction. Everything else is one label per row.

    Args:
        asked: the problem type that the caller asks for; None: judge by the cells.
        separator: text between the labels of a row, if the caller names it.
        cells: the values of the label column.

    Raises:
        ConfigError: the separator is empty, or given for another problem type than multi-label.
    """
    if separator is not None:
        if not separator.strip():
            raise ConfigError(
                "`label_separator` is empty; give the character between two labels, such as '|'",
                field="label_separator",
                value=separator,
                expected="the character between two labels",
            )
        if asked not in (MULTI, None):
            raise ConfigError(
                f"`label_separator` is for rows with several labels, but the problem type is {asked}; leave one out",
                field="label_separator",
                value=separator,
                expected=f"None, or `problem_type='{MULTI}'`",
            )
    if asked is not None:
        return asked, "as requested"
    if separator is not None:
        return MULTI, f"labels are separated by '{separator}'"
    present = [cell for cell in cells if not is_missing(cell)]
    if present and isinstance(present[0], (list, tuple)):
        if all(isinstance(cell, (list, tuple)) and len(cell) == 1 for cell in present):
            return SINGLE, "every list holds one label"
        return MULTI, "the labels are lists"
    numbers = [_number(cell) for cell in present]
    if None not in numbers and any(math.isfinite(n) and not n.is_integer() for n in numbers if n is not None):
        return REGRESSION, "the labels are fractions"
    return SINGLE, "the labels are names or whole numbers"


def label_of(value: Any, column: str, where: str, settled: bool = False) -> str | int:
    """Return the label in a cell: an int for a whole number or text that reads like one, otherwise a name.

    A list with one label in it is that label.

    Args:
        value: the cell.
        column: name of the column, for error messages.
        where: file and row, for error messages.
        settled: whether the problem type cannot be another one, which error messages advise otherwise.

    Raises:
        DataError: the cell is missing or empty, or holds a list, an object, a fraction or a very long text.
    """
    if isinstance(value, (list, tuple)) and len(value) == 1 and not isinstance(value[0], (list, tuple)):
        value = value[0]
    if isinstance(value, (list, tuple)):
        otherwise = f". To learn several, give a list in every row and set `problem_type='{MULTI}'`"
        raise DataError(
            f"{where}: column '{column}' holds several labels at once; one label per row is expected"
            + ("" if settled else otherwise)
        )
    if isinstance(value, (dict, bytes)):
        raise DataError(f"{where}: column '{column}' holds {_describe(value)}; names or whole numbers are expected")
    if is_missing(value):
        raise DataError(f"{where}: column '{column}' has no label; fill it in or remove the row")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        if not value.is_integer():
            otherwise = f". To learn numbers, give one in every row and set `problem_type='{REGRESSION}'`"
            raise DataError(
                f"{where}: label {value} is a fraction; names or whole numbers are expected"
                + ("" if settled else otherwise)
            )
        return int(value)
    if isinstance(value, int):
        return value
    name = str(value).strip()
    if len(name) > LONGEST_LABEL:
        raise DataError(
            f"{where}: column '{column}' holds a label of {len(name)} characters; at most {LONGEST_LABEL} are "
            "expected. Name the column of the labels with `label`"
        )
    return int(name) if _WHOLE.fullmatch(name) else name


def labels_of(value: Any, column: str, where: str, separator: str | None = None) -> list[str | int]:
    """Return all labels in a cell that holds a list, or text that a separator splits. There may be none.

    Args:
        value: the cell.
        column: name of the column, for error messages.
        where: file and row, for error messages.
        separator: text between the labels; None: the cell has to hold a list.

    Raises:
        DataError: the cell does not hold a list, and there is no separator for its text.
        DataError: a label occurs twice.
        DataError: something in the list is not a label.
    """
    if separator is not None and (value is None or isinstance(value, str)):
        value = [name for name in (value or "").split(separator) if name.strip()]
    if not isinstance(value, (list, tuple)):
        raise DataError(
            f"{where}: column '{column}' holds {_describe(value)}; a list of labels is expected, or [] for none. For "
            "CSV and TSV, set `label_separator` to the text between two labels"
        )
    if any(isinstance(label, (list, tuple)) for label in value):
        raise DataError(f"{where}: column '{column}' holds a list within a list; give a list of labels")
    labels = [label_of(label, column, where) for label in value]
    for label in labels:
        if labels.count(label) > 1:
            raise DataError(
                f"{where}: column '{column}' holds label '{label}' twice; give the names or numbers of the row's "
                "labels, each of them once (not a row of zeros and ones)"
            )
    return labels


def number_of(value: Any, column: str, where: str, settled: bool = False) -> float:
    """Return the number in a cell, or in its text, which may have a decimal comma.

    Args:
        value: the cell.
        column: name of the column, for error messages.
        where: file and row, for error messages.
        settled: whether the problem type cannot be another one, which error messages advise otherwise.

    Raises:
        DataError: the cell is missing or empty, not a number, or a number too large to learn.
    """
    if is_missing(value):
        raise DataError(f"{where}: column '{column}' has no number; fill it in or remove the row")
    number = _number(value)
    if isinstance(value, str) and is_decimal_comma(value):
        number = float(value.strip().replace(",", "."))
    if number is None:
        otherwise = f". To learn names, set `problem_type='{SINGLE}'`"
        raise DataError(
            f"{where}: column '{column}' holds {_describe(value)}; a number such as 3.5 is expected in every row of a "
            f"regression{'' if settled else otherwise}"
        )
    if not abs(number) <= LARGEST:
        raise DataError(
            f"{where}: column '{column}' holds {_describe(value)}; use numbers from {-LARGEST:g} to {LARGEST:g}"
        )
    return number


def is_number(name: str) -> bool:
    """Return whether the name of a label is a number."""
    return _DECIMAL.fullmatch(name.strip()) is not None


def is_decimal_comma(name: str) -> bool:
    """Return whether the name of a label is a number with a decimal comma, such as '3,5'."""
    return _DECIMAL_COMMA.fullmatch(name.strip()) is not None


def plain_number(name: str) -> str:
    """Return the name of a label without zeros after its decimal point.

    JSON, and tables with missing values, may write 1 as 1.0.
    """
    integer, point, fraction = name.partition(".")
    return integer if point and not fraction.strip("0") and _WHOLE.fullmatch(integer) else name


def truth(name: str) -> str:
    """Return a name in lower case if it is true or false. Programs write both in several ways; they are one label."""
    lower = name.lower()
    return lower if lower in ("true", "false") else name


def same_label(name: str) -> str:
    """Return the form of a label's name that is the same for all ways to write the number or the truth value in it."""
    return truth(plain_number(name))


def is_missing(value: Any) -> bool:
    """Return whether the cell of a label holds nothing."""
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def _number(value: Any) -> float | None:
    """Return the number that a value is, or that its text reads like; None for anything else."""
    if isinstance(value, str) and (is_number(value) or _NOT_FINITE.fullmatch(value.strip())):
        return float(value)
    if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return math.inf
    return None


def _describe(value: Any) -> str:
    """Return a value as an error message shows it."""
    if isinstance(value, (list, tuple, dict, bytes)):
        names = {list: "a list", tuple: "a list", dict: "an object", bytes: "bytes"}
        return names[type(value)]
    if value is None:
        return "nothing"
    shown = str(value)
    return f"'{shown[:40]}…'" if len(shown) > 40 else f"'{shown}'"


def named_labels(labels: Sequence[Any]) -> list[str]:
    """Return the names of labels that a caller gives. A whole number is the name that it has in files.

    Raises:
        ConfigError: they are not a list of names, or a name occurs twice.
    """
    if isinstance(labels, (str, bytes)) or not isinstance(labels, Iterable):
        raise ConfigError(
            f"`labels` is {labels!r:.60}; a list of names in index order is expected", field="labels", value=labels
        )
    names = []
    for label in labels:
        if not isinstance(label, (str, Integral)) or isinstance(label, bool):
            raise ConfigError(
                f"`labels` holds {label!r:.60}, a {type(label).__name__}; give the labels' names as text",
                field="labels",
                value=labels,
            )
        names.append(str(label))
    label, count = Counter(names).most_common(1)[0] if names else ("", 0)
    if count > 1:
        raise ConfigError(
            f"label '{label}' is named twice; give each class a different name",
            field="labels",
            value=labels,
            expected="a different name for each class",
        )
    return names


def default_labels(classes: int) -> list[str]:
    """Return the names that transformers gives to labels without names: LABEL_0, LABEL_1 and so on."""
    return [f"LABEL_{index}" for index in range(classes)]
