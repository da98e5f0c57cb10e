"""Report the rows of a split that cannot be used, all of them in one message."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

OnEmpty = Literal["error", "skip"]
ON_EMPTY: tuple[OnEmpty, ...] = ("error", "skip")
MOST_ROWS = 20  # row numbers that a message lists for each kind of flaw


@dataclass(frozen=True)
class Flaw:
    """Why a row cannot be used.

    row: index of the row in its split, from 0.
    file: the file that the row is in.
    number: the row's number in the file, from 1, and its line where it has another number.
    reason: what is wrong with it, and what to do.
    lacking: whether its text or label is missing, so that it may be left out on request.
    """

    row: int
    file: str
    number: str
    reason: str
    lacking: bool = False


def describe_flaws(flaws: Sequence[Flaw], rows: int) -> str:
    """Return a message that names all unusable rows, up to `MOST_ROWS` for each kind of flaw.

    Args:
        flaws: at least one.
        rows: number of rows of the split.
    """
    kinds: dict[str, list[Flaw]] = {}
    for flaw in flaws:
        kinds.setdefault(_kind(flaw.reason), []).append(flaw)
    message = ". Also ".join(f"{_places(kind)}: {kind[0].reason}{_of_the_first(kind)}" for kind in kinds.values())
    bad = len({flaw.row for flaw in flaws})
    if bad > 1:
        message += f". In all, {bad} of {rows} rows cannot be used"
    if any(flaw.lacking for flaw in flaws):
        message += "; `on_empty='skip'` leaves out rows without text or label"
    return message


def _of_the_first(kind: Sequence[Flaw]) -> str:
    """Return a remark if flaws of one kind differ in the values that the reason shows."""
    return "" if len({flaw.reason for flaw in kind}) == 1 else " (these are the values of the first of these rows)"


def count_reasons(flaws: Sequence[Flaw]) -> str:
    """Return how many rows have each kind of flaw, in words."""
    kinds: dict[str, list[Flaw]] = {}
    for flaw in flaws:
        kinds.setdefault(_kind(flaw.reason), []).append(flaw)
    return ", ".join(f"{kind[0].reason.split(';')[0]} ({len(kind)})" for kind in kinds.values())


def _kind(reason: str) -> str:
    """Return a reason without the values in it, so that the same flaw in many rows is one kind."""
    return re.sub(r"'[^']*'|\d[\d.]*", "*", reason)


def _places(flaws: Sequence[Flaw]) -> str:
    """Return the places of flaws of one kind: 'a.csv, rows 3 and 7'."""
    listed = flaws[:MOST_ROWS]
    parts = []
    for file, group in groupby(listed, key=lambda flaw: flaw.file):
        numbers = [flaw.number for flaw in group]
        more = [f"{len(flaws) - len(listed)} more"] if len(flaws) > len(listed) and listed[-1].file == file else []
        parts.append(f"{file}, row{'s' if len(numbers) > 1 else ''} {_listed([*numbers, *more])}")
    return "; ".join(parts)


def _listed(numbers: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(numbers[:-1]), numbers[-1]]))
