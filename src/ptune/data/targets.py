"""What a label column holds: one label a row, several at once, or a number. Free of torch.

The three kinds have transformers' names. A row's target is the index of its
class, the sorted indices of its labels (none is a target too), or a number.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final, Literal

from ptune.errors import ConfigError, DataError

ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
SINGLE: Final = "single_label_classification"
MULTI: Final = "multi_label_classification"
REGRESSION: Final = "regression"

Target = int | float | tuple[int, ...]

# A whole number written the usual way: '007', '+5' and '-0' are names. Longer ones Python itself refuses.
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,999}")
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)
LARGEST = 1e15  # of a regression's targets: their squares must fit float32


def settle_problem_type(
    asked: ProblemType | None, separator: str | None, cells: Sequence[Any]
) -> tuple[ProblemType, str]:
    """The problem type of a label column's cells, and why, in words.

    Lists are several labels at once, numbers of which some are fractions are a regression's targets, and
    everything else is one label a row.

    Raises:
        ConfigError: a separator is given for another type than multi-label.
    """
    if separator is not None:
        if not separator.strip():
            raise ConfigError("the label separator is empty; give the character between two labels, such as '|'")
        if asked not in (MULTI, None):
            raise ConfigError(f"a label separator parts several labels of a row, which {asked} has not; leave one out")
    if asked is not None:
        return asked, "as asked"
    if separator is not None:
        return MULTI, f"labels are parted by '{separator}'"
    present = [cell for cell in cells if not _missing(cell)]
    if present and isinstance(present[0], (list, tuple)):
        return MULTI, "the labels are lists"
    numbers = [_number(cell) for cell in present]
    if None not in numbers and any(math.isfinite(n) and not n.is_integer() for n in numbers if n is not None):
        return REGRESSION, "the labels are fractions"
    return SINGLE, "the labels are names or whole numbers"


def label_of(value: Any, column: str, where: str) -> str | int:
    """The label in a cell: a whole number where it is or reads like one, else its name.

    Raises:
        DataError: missing, empty, a list (several labels) or a fraction.
    """
    if isinstance(value, (list, tuple)):
        raise DataError(
            f"{where}: column '{column}' holds several labels at once; one label a row is expected. To learn "
            f"several, give a list in every row and set `problem_type='{MULTI}'`"
        )
    if isinstance(value, (dict, bytes)):
        raise DataError(f"{where}: column '{column}' holds {_kind(value)}; names or whole numbers are expected")
    if _missing(value):
        raise DataError(f"{where}: column '{column}' has no label; give it one, or leave the row out")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        if not value.is_integer():
            raise DataError(
                f"{where}: label {value} is a fraction; names or whole numbers are expected. To learn numbers, give "
                f"one in every row, and set `problem_type='{REGRESSION}'`"
            )
        return int(value)
    if isinstance(value, int):
        return value
    name = str(value).strip()
    return int(name) if _WHOLE.fullmatch(name) else name


def labels_of(value: Any, column: str, where: str, separator: str | None = None) -> list[str | int]:
    """All labels in a cell: of a list, or of text that a separator parts. None of them is an answer too.

    Raises:
        DataError: no list and nothing that parts the text, a label twice, or no label among them.
    """
    if separator is not None and (value is None or isinstance(value, str)):
        value = [part for part in (value or "").split(separator) if part.strip()]
    if not isinstance(value, (list, tuple)):
        raise DataError(
            f"{where}: column '{column}' holds {_kind(value)}; a list of labels is expected, [] where there is none. "
            "In CSV and TSV say with `label_separator` what stands between two labels"
        )
    labels = [label_of(part, column, where) for part in value]
    for label in labels:
        if labels.count(label) > 1:
            raise DataError(
                f"{where}: column '{column}' holds label '{label}' twice; the names or numbers of the row's labels are "
                "expected, each once (a row of zeros and ones is not)"
            )
    return labels


def number_of(value: Any, column: str, where: str) -> float:
    """The number in a cell.

    Raises:
        DataError: missing, no number, or one too large to learn.
    """
    if _missing(value):
        raise DataError(f"{where}: column '{column}' has no number; give it one, or leave the row out")
    number = _number(value)
    if number is None:
        raise DataError(
            f"{where}: column '{column}' holds {_kind(value)}; a number such as 3.5 is expected in every row of a "
            f"regression. To learn names, set `problem_type='{SINGLE}'`"
        )
    if not abs(number) <= LARGEST:
        raise DataError(
            f"{where}: column '{column}' holds {_kind(value)}; numbers up to {LARGEST:g} in size are expected"
        )
    return number


def is_number(name: str) -> bool:
    """Whether a label's name is a number."""
    return _DECIMAL.fullmatch(name.strip()) is not None


def plain_number(name: str) -> str:
    """A label's name without the zeros behind its point: tables with gaps, and JSON, write 1 as 1.0."""
    whole, point, rest = name.partition(".")
    return whole if point and not rest.strip("0") and _WHOLE.fullmatch(whole) else name


def _missing(value: Any) -> bool:
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def _number(value: Any) -> float | None:
    """A number, or text that reads like one; None for anything else."""
    if isinstance(value, str) and (is_number(value) or _NOT_FINITE.fullmatch(value.strip())):
        return float(value)
    if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return math.inf
    return None


def _kind(value: Any) -> str:
    """A value as a message shows it."""
    if isinstance(value, (list, tuple, dict, bytes)):
        names = {list: "a list", tuple: "a list", dict: "an object", bytes: "bytes"}
        return names[type(value)]
    if value is None:
        return "nothing"
    shown = str(value)
    return f"'{shown[:40]}…'" if len(shown) > 40 else f"'{shown}'"


def default_labels(classes: int) -> list[str]:
    """Return the names that transformers gives to labels that have none: LABEL_0, LABEL_1 ..."""
    return [f"LABEL_{index}" for index in range(classes)]
