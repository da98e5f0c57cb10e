"""The names of labels: their order, names that look wrong, rare ones, and the index of each row's label."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from ptune.data.cells import looks_like_list
from ptune.data.flaws import Flaw
from ptune.data.raw import RawSplit
from ptune.data.targets import (
    MULTI,
    REGRESSION,
    SINGLE,
    ProblemType,
    Target,
    default_labels,
    is_decimal_comma,
    is_number,
    plain_number,
    same_label,
)
from ptune.errors import DataError

logger = logging.getLogger(__name__)

RARE = "the label is rare"  # the reason why rows of rare labels are left out


def label_names(raw: RawSplit, problem_type: ProblemType, known: Sequence[str] | None, column: str | None) -> list[str]:
    """Return label names in index order. A regression has one, the name of the predicted value.

    Args:
        raw: the split that has all labels, which is the training split.
        problem_type: the kind of the labels.
        known: label names of an adapter, which are taken as they are.
        column: the label column.

    Raises:
        DataError: no row has a label.
    """
    if problem_type == REGRESSION:
        return list(known or [column or "value"])
    return _collect_names(raw) if known is None else _adapter_names(list(known), raw)


def _adapter_names(labels: list[str], raw: RawSplit) -> list[str]:
    """Return the label names of an adapter, or the file's if the adapter has only LABEL_0, LABEL_1 and so on.

    Both are in index order.
    """
    unnamed = labels == default_labels(len(labels))
    return raw.class_names if unnamed and raw.class_names and len(raw.class_names) == len(labels) else labels


def _collect_names(train: RawSplit) -> list[str]:
    """Return the label names of the training rows, in index order."""
    values = set(_each(train.good_labels()))
    if not values and not train.flaws:
        raise DataError(f"{train.where}: no row has a label")
    if train.class_names is not None:
        return train.class_names
    if all(isinstance(value, int) for value in values):
        return [str(value) for value in sorted(values, key=int)]
    names: dict[str, str] = {}  # by the form that all ways to write true and false share
    for name in sorted(str(value) for value in values):
        names.setdefault(same_label(name), name)
    return list(names.values())


def check_names(train: RawSplit, may_be_joined: bool) -> None:
    """Warn of names that are nearly the same, and check that no single label's name is several labels in one.

    Args:
        train: the split that has all labels.
        may_be_joined: whether names may in fact be several labels, which is not so if the caller said what they are.

    Raises:
        DataError: names look like lists, or like several labels with a separator between them.
    """
    if train.class_names is not None:
        return
    counts = Counter(str(label) for label in _each(train.good_labels()))
    _warn_of_spellings(train.where, counts)
    if not may_be_joined:
        return
    lists = [name for name in counts if looks_like_list(name)]
    if lists:
        raise DataError(
            f"{train.where}: label '{lists[0]}' looks like a list, but not every row has one; write a list in every "
            f"row, or, if these are names, set `problem_type='{SINGLE}'`"
        )
    for separator in ",;|":
        joined = [name for name in counts if separator in name]
        parts = [part.strip() for name in joined for part in name.split(separator)]
        alone = {*counts} | {part for part, count in Counter(parts).items() if count > 1}
        if joined and (all(part in alone for part in parts) or all(part.isdigit() for part in parts)):
            otherwise = "or, "
            if all(is_decimal_comma(name) or is_number(name) for name in counts):
                otherwise = f"if they are numbers with a decimal comma, `problem_type='{REGRESSION}'`, or, "
            raise DataError(
                f"{train.where}: labels such as '{joined[0]}' look like several labels in a row; set "
                f"`label_separator='{separator}'` to learn several, {otherwise}if these are names, "
                f"`problem_type='{SINGLE}'`"
            )


def fold_label(name: str) -> str:
    """Return a label's name without what people write in several ways: capitals, blanks, dashes, accents' encoding.

    A dash counts only between two words: -1 and 1 are different labels, and so are the grades A- and A.
    """
    folded = re.sub(r"\s+", " ", unicodedata.normalize("NFKC", name).casefold()).strip()
    return re.sub(r"(?<=[^\W_])[ _-]+(?=[^\W_])", " ", folded)


def _warn_of_spellings(where: str, counts: Counter[str]) -> None:
    """Warn of names that differ only in capital letters, blanks, dashes or accents' encoding."""
    alike: dict[str, list[str]] = {}
    for name in counts:
        alike.setdefault(fold_label(name), []).append(name)
    for names in alike.values():
        if len({same_label(name) for name in names}) > 1:
            shown = " and ".join(f"'{name}' ({counts[name]} rows)" for name in sorted(names))
            logger.warning("%s: labels %s are nearly the same; they are learned as different classes", where, shown)


def rare_labels(train: RawSplit, least: int) -> dict[str | int, int]:
    """Return the labels that fewer than `least` rows have, with their numbers of rows."""
    counts = Counter(_each(train.good_labels()))
    return {label: count for label, count in counts.items() if count < least}


def without_labels(raw: RawSplit, rare: dict[str | int, int]) -> RawSplit:
    """Return a split without some labels.

    A row whose single label is one of them gets a flaw, with which it is left out. Lists of labels become shorter.
    """
    if raw.labels is None or not rare:
        return raw
    flaws: list[Flaw] = []
    labels: list[Any] = []
    for index, label in enumerate(raw.labels):
        if isinstance(label, list):
            labels.append([name for name in label if name not in rare])
            continue
        labels.append(label)
        if label in rare:
            flaws.append(raw.flaw(index, RARE, lacking=True))
    names = raw.class_names and [name for name in raw.class_names if name not in rare]
    return replace(raw, labels=labels, class_names=names, flaws=(*raw.flaws, *flaws))


def index_labels(
    raw: RawSplit, names: Sequence[str], problem_type: ProblemType
) -> tuple[list[Target | None], list[Flaw]]:
    """Return the target of each row, and the flaws of rows whose label is not among the names.

    Labels are matched by name. Only if all of them are whole numbers, and no name is a number, are they indices. Rows
    with a flaw have None.
    """
    bad = {flaw.row for flaw in raw.flaws}
    labels = [None if index in bad else label for index, label in enumerate(raw.labels or [])]
    if problem_type == REGRESSION:
        return labels, []
    index = {name: position for position, name in enumerate(names)}
    # So that 1.0 and 1 are the same label, and True and true.
    folded = {form(name): position for name, position in index.items() for form in (plain_number, same_label)}
    good = [label for label in labels if label is not None]
    by_index = are_indices(good, names)
    positions = {str(position): position for position in range(len(names))} if by_index else folded | index
    flaws: list[Flaw] = []

    def position_of(label: str | int, row: int) -> int:
        position = positions.get(str(label), positions.get(same_label(str(label))))
        if position is None:
            known = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
            flaws.append(raw.flaw(row, f"label '{label}' is not among the known labels ({known})"))
            return -1
        return position

    targets: list[Target | None] = []
    for row, value in enumerate(labels):
        if value is None:
            targets.append(None)
        elif problem_type == MULTI:
            targets.append(tuple(sorted(position_of(label, row) for label in value)))
        else:
            targets.append(position_of(value, row))
    return targets, flaws


def are_indices(labels: Sequence[Any], names: Sequence[str]) -> bool:
    """Return whether labels are indices into names: all of them are whole numbers, and no name is a number."""
    return all(isinstance(value, int) for value in _each(labels)) and not any(map(is_number, names))


def _each(labels: Sequence[Any]) -> Iterator[str | int]:
    """Yield the labels of all rows, one after the other."""
    for label in labels:
        yield from label if isinstance(label, list) else [label]
