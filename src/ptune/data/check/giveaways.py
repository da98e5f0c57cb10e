"""What gives the label away: a column, an id, the order of the file, or one word.

A column that holds the label in another form does no harm, as only the texts are read. It does if it is part of how
the rows were made: ids in the order of the labels, or a source for each label, whose texts then differ in other ways.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from ptune.data.check.findings import Finding
from ptune.data.check.rows import Row, Rows
from ptune.data.targets import SINGLE, is_missing

SURE = 0.95  # share of rows whose label has to follow from the column,
ABOVE = 0.15  # and how much more than by always guessing the most frequent label
BLOCKS = 0.8  # share of the way from a random order to one in which each label is a block
WORD_ROWS = 20  # rows of a label that a word has to be in
WORD_SHARE = 0.9  # share of a label's rows that have the word,
WORD_SURE = 0.99  # and of the word's rows that have the label
FEWEST = 20
_WORD = re.compile(r"\w+|[^\w\s]")
_DIGITS = re.compile(r"\d+")


def columns(rows: Rows) -> Iterator[Finding]:
    """Find columns from which the label of nearly every row follows."""
    training = [row for row in rows.labelled if row.split == "train" and row.cells]
    if rows.problem_type != SINGLE or len(training) < FEWEST:
        return
    labels = [str(row.label) for row in training]
    majority = Counter(labels).most_common(1)[0][1] / len(labels)
    if majority == 1:  # with a single label, everything tells it
        return
    for column in rows.other_columns:
        cells = [row.cells.get(column) for row in training]
        for how, predict in _WAYS.items():
            share = predict(cells, labels)
            if share >= SURE and share >= majority + min(ABOVE, (1 - majority) / 2):
                yield Finding(
                    "giveaways",
                    f"column '{column}' gives the label away: {how} tells the label of {share:.1%} of training rows",
                    "only texts are read, so it does no harm by itself; look whether the texts of the labels come from "
                    "different sources",
                    details={"column": column, "how": how, "share": share, "majority": majority},
                )
                break


def words(rows: Rows) -> Iterator[Finding]:
    """Find words that nearly all rows of one label have, and hardly any others."""
    training = [row for row in rows.labelled if row.split == "train"]
    if rows.problem_type != SINGLE or len(training) < FEWEST:
        return
    totals = Counter(str(row.label) for row in training)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in training:
        for word in {word for text in row.texts for word in _WORD.findall(text.lower())}:
            counts[word][str(row.label)] += 1
    found: dict[str, list[str]] = defaultdict(list)
    for word, by_label in counts.items():
        label, count = by_label.most_common(1)[0]
        enough = count >= max(WORD_ROWS, WORD_SHARE * totals[label]) and totals[label] < len(training)
        if enough and word not in label.lower() and count >= WORD_SURE * sum(by_label.values()):
            found[label].append(word)
    for label, its_words in found.items():
        shown = ", ".join(f"'{word}'" for word in its_words[:5])
        yield Finding(
            "giveaways",
            f"nearly all texts with label '{label}', and no others, contain {shown}",
            "the model will learn these words and nothing else; remove them if other texts lack them",
            details={"label": label, "words": its_words},
        )


def order(rows: Rows) -> Iterator[Finding]:
    """Find columns of numbers, such as ids, in whose order the labels lie in blocks."""
    training = [row for row in rows.labelled if row.split == "train" and row.cells]
    if rows.problem_type != SINGLE or len(training) < FEWEST:
        return
    for column in rows.other_columns:
        numbers = [_number(row.cells.get(column)) for row in training]
        if None in numbers or len(set(numbers)) < len(numbers) / 2:
            continue  # values that repeat are judged by `columns`
        share, expected = _neighbours(training, numbers)  # type: ignore[arg-type]
        if share >= expected + BLOCKS * (1 - expected):
            yield Finding(
                "giveaways",
                f"column '{column}' gives the label away: sorted by it, {share:.1%} of training rows have the label of "
                "the row before",
                "rows of different labels may come from different sources; look whether anything else tells them apart",
                details={"column": column, "how": "its order", "share": share, "majority": expected},
            )


def _neighbours(rows: Sequence[Row], numbers: Sequence[float]) -> tuple[float, float]:
    """Return the share of rows that have the label of the row before, and the share to expect by chance."""
    ordered = [str(rows[index].label) for index in sorted(range(len(rows)), key=numbers.__getitem__)]
    same = sum(one == other for one, other in pairwise(ordered))
    expected = sum((count / len(rows)) ** 2 for count in Counter(ordered).values())
    return same / max(1, len(rows) - 1), expected


def _by_value(cells: Sequence[Any], labels: Sequence[str]) -> float:
    """Return the share of rows whose cell other rows have too, all of them with the same label."""
    groups: dict[str, Counter[str]] = defaultdict(Counter)
    for cell, label in zip(cells, labels, strict=True):
        groups["" if is_missing(cell) else str(cell)][label] += 1
    return sum(group.total() for group in groups.values() if len(group) == 1 and group.total() > 1) / len(labels)


def _by_letters(cells: Sequence[Any], labels: Sequence[str]) -> float:
    """Return the same for the cells without their digits: 'spam_17' is 'spam_'."""
    if not all(isinstance(cell, str) for cell in cells):
        return 0.0
    return _by_value([_DIGITS.sub("#", cell) for cell in cells], labels)


_WAYS: dict[str, Callable[[Sequence[Any], Sequence[str]], float]] = {
    "its value": _by_value,
    "its value without digits": _by_letters,
}


def _number(cell: Any) -> float | None:
    if isinstance(cell, bool) or cell is None:
        return None
    try:
        return float(cell)
    except (TypeError, ValueError):
        return None
