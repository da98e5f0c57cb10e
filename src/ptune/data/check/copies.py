"""Texts that occur more than once: repeats, leaks between splits, and conflicting labels."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from ptune.data.check.findings import Finding, count_rows, many
from ptune.data.check.rows import Row, Rows
from ptune.data.targets import REGRESSION

# A row that is in several of these splits is left out of the first ones.
ORDER = ("train", "validation", "test")


def same_text(text: str) -> str:
    """Return the form of a text that all its copies share: letter case, blanks and Unicode's compatibility forms do not
    matter."""
    folded = text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()
    return " ".join(folded.split())


def text_groups(rows: Rows) -> list[list[Row]]:
    """Return the rows of each text that occurs more than once."""
    groups: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows.usable:
        groups[tuple(map(same_text, row.texts))].append(row)
    return [group for group in groups.values() if len(group) > 1]


def repeats(rows: Rows, groups: list[list[Row]]) -> Iterator[Finding]:
    """Find rows that repeat an earlier row of their split, with the same label."""
    found = [copies for group in groups for copies in same_label_copies(group)]
    if found:
        later = sorted((row for copies in found for row in copies[1:]), key=_position(rows))
        number = len(later)
        yield Finding(
            "repeats",
            f"{count_rows(later)} {many(number, 'repeats', 'repeat')} an earlier row of the same split, label included",
            "keep one row of each text",
            later,
            found,
        )


def same_label_copies(group: list[Row]) -> list[list[Row]]:
    """Return the rows of a text that are in the same split and have the same label, where there are several."""
    copies: dict[Any, list[Row]] = defaultdict(list)
    for row in group:
        copies[row.split, row.label].append(row)
    return [alike for alike in copies.values() if len(alike) > 1]


def leaks(rows: Rows, groups: list[list[Row]]) -> Iterator[Finding]:
    """Find texts that occur in several splits, so that a model is measured on rows that it was trained on."""
    found = [group for group in groups if len({row.split for row in group}) > 1]
    if found:
        leaked = sorted((row for group in found for row in leaked_rows(group)), key=_position(rows))
        verb = many(len(leaked), "also occurs", "also occur")
        yield Finding(
            "leaks",
            f"{count_rows(leaked)} {verb} in a split that the model is measured on",
            "leave them out of the training rows; the metrics are too good otherwise",
            leaked,
            found,
        )


def leaked_rows(group: list[Row]) -> list[Row]:
    """Return the rows of a text that have to go if it may stay in one split only, the last of train, validation, test.

    Validation rows do not have to go because of the training rows: the training rows do.
    """
    place = {split: index for index, split in enumerate(ORDER)}
    last = max(place.get(row.split, len(place)) for row in group)
    return [row for row in group if place.get(row.split, len(place)) < last]


def conflicts(rows: Rows, groups: list[list[Row]]) -> Iterator[Finding]:
    """Find texts whose rows have different labels, in one split or in several."""
    found = []
    for group in groups:
        labelled = [row for row in group if row.label is not None]
        if len({row.label for row in labelled}) > 1:
            found.append(labelled)
    if found:
        what = "number" if rows.problem_type == REGRESSION else "label"
        number = len(found)
        yield Finding(
            "conflicts",
            f"{number:,} {many(number, 'text has', 'texts have')} rows with different {what}s",
            f"decide which {what} is right",
            sorted((row for group in found for row in group), key=_position(rows)),
            found,
        )


def _position(rows: Rows) -> Any:
    places = {id(row): index for index, row in enumerate(rows.all)}
    return lambda row: places[id(row)]
