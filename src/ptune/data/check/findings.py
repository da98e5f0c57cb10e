"""What a check finds: kinds of findings, and the rows that they concern."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final

from ptune.data.check.rows import Row

# Every kind of finding with its title, in the order in which findings are shown.
KINDS: Final[dict[str, str]] = {
    "missing": "rows without text or label",
    "unreadable": "rows that cannot be read",
    "repeats": "repeats",
    "near_repeats": "near-repeats",
    "leaks": "texts in two splits",
    "near_leaks": "nearly the same text in two splits",
    "conflicts": "same text, different labels",
    "label_spellings": "labels spelled in two ways",
    "one_label": "only one label",
    "unknown_labels": "labels without training rows",
    "rare_labels": "labels with few rows",
    "imbalance": "imbalance",
    "giveaways": "something gives the label away",
    "no_words": "texts without letters or digits",
    "long_texts": "very long texts",
    "lengths": "texts that are cut",
    "encoding": "damaged characters",
    "markup": "markup in texts",
    "language": "several languages",
    "label_errors": "likely label errors",
    "outliers": "outliers, unlike all others",
}
FIXABLE: Final = frozenset({"missing", "repeats", "leaks", "label_spellings", "encoding"})


@dataclass(frozen=True)
class Finding:
    """One kind of problem, with all rows that have it.

    Attributes:
        kind: a key of `KINDS`.
        message: what was found, one sentence.
        advice: what to do about it.
        rows: the rows to look at, such as the second of two repeats; none if the finding is about a whole column.
        groups: rows that belong together, such as all copies of one text. Empty for findings about single rows.
        details: more facts by name, in types of JSON.
    """

    kind: str
    message: str
    advice: str = ""
    rows: Sequence[Row] = ()
    groups: Sequence[Sequence[Row]] = ()
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The kind in words."""
        return KINDS[self.kind]

    @property
    def fixable(self) -> bool:
        """Whether `DataCheck.fix` repairs it."""
        return self.kind in FIXABLE and self.details.get("repairable") != 0  # lost characters do not come back

    def to_dict(self) -> dict[str, Any]:
        """Return the finding in types of JSON. Rows are numbered from 1 within their file."""
        return {
            "kind": self.kind,
            "title": self.title,
            "message": self.message,
            "advice": self.advice,
            "fixable": self.fixable,
            "count": len(self.rows),
            "rows": [row.place() for row in self.rows],
            "groups": [[row.place() for row in group] for group in self.groups],
            **({"details": self.details} if self.details else {}),
        }


def describe_rows(rows: Sequence[Row], most: int = 20) -> str:
    """Return where rows are, in words, at most so many of them: 'a.csv, rows 3 and 7'."""
    listed, parts = rows[:most], []
    for file, group in groupby(listed, key=lambda row: row.file):
        numbers = [str(row.number) for row in group]
        words = " and ".join(filter(None, [", ".join(numbers[:-1]), numbers[-1]]))
        parts.append(f"{file}, row{'s' if len(numbers) > 1 else ''} {words}")
    more = len(rows) - len(listed)
    return "; ".join(parts) + (f", and {more:,} more" if more else "")


def count_rows(rows: Sequence[Row]) -> str:
    """Return a number of rows in words, by split if there are several: '5 rows (train 3, test 2)'."""
    by_split = Counter(row.split for row in rows)
    number = f"{len(rows):,} {many(len(rows), 'row', 'rows')}"
    if set(by_split) == {"train"}:
        return number
    return f"{number} ({', '.join(f'{split} {count:,}' for split, count in by_split.items())})"


def many(count: int, one: str, several: str) -> str:
    """Return the word that goes with a number."""
    return one if count == 1 else several
