"""Splits of labelled text, and how one is parted in two with every class in both."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ptune.data.columns import Columns
from ptune.errors import DataError

VALIDATION_SHARE = 0.1


@dataclass(frozen=True)
class Split:
    """Rows of one split. pairs is None for single texts, labels for rows without labels."""

    texts: list[str]
    pairs: list[str] | None
    labels: list[int] | None

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, rows: Sequence[int]) -> Split:
        """The given rows, in the given order."""
        return Split(
            [self.texts[row] for row in rows],
            None if self.pairs is None else [self.pairs[row] for row in rows],
            None if self.labels is None else [self.labels[row] for row in rows],
        )


@dataclass(frozen=True)
class TextData:
    """Splits by name (train, validation, test), label names in index order, and how the rows were read."""

    splits: dict[str, Split]
    labels: list[str]
    columns: Columns
    source: str
    notes: tuple[str, ...] = ()

    def split(self, name: str) -> Split:
        """A split by its name.

        Raises:
            DataError: there is no such split.
        """
        if name not in self.splits:
            raise DataError(f"data '{self.source}' has no split '{name}'; it has {', '.join(self.splits)}")
        return self.splits[name]

    @property
    def train(self) -> Split:
        return self.split("train")

    @property
    def validation(self) -> Split:
        return self.split("validation")

    @property
    def test(self) -> Split:
        return self.split("test")

    def majority_share(self, name: str = "validation") -> float:
        """Accuracy, from 0 to 1, of always answering the split's commonest label."""
        labels = self.split(name).labels or [0]
        return max(Counter(labels).values()) / len(labels)


def hold_back(data: TextData, seed: int, share: float = VALIDATION_SHARE) -> TextData:
    """Make a validation split of a stratified share of train, where there is none."""
    if "validation" in data.splits:
        return data
    train = data.train
    size = max(len(data.labels), round(share * len(train)))
    kept, held = _stratified(train.labels or [], len(train) - size, seed, data.source, both=True)
    note = f"split: {len(held)} of {len(train)} rows held back for validation, stratified, seed {seed}"
    splits = {**data.splits, "train": train.select(kept), "validation": train.select(held)}
    return replace(data, splits=splits, notes=(*data.notes, note))


def sample(data: TextData, seed: int, rows: int | None) -> TextData:
    train = data.train
    if rows is None or rows >= len(train):
        return data
    kept, _ = _stratified(train.labels or [], rows, seed, data.source, both=False)
    note = f"sample: {rows} of {len(train)} training rows, stratified, seed {seed}"
    return replace(data, splits={**data.splits, "train": train.select(kept)}, notes=(*data.notes, note))


def _stratified(labels: list[int], kept: int, seed: int, source: str, both: bool) -> tuple[list[int], list[int]]:
    """Row numbers of a part of `kept` rows and of the rest, in file order, labels shared out by their counts.

    The part has every class; with `both`, the rest has too. (scikit-learn's split lets rare classes fall out.)
    """
    rows: dict[int, list[int]] = {}
    for row, label in enumerate(labels):
        rows.setdefault(label, []).append(row)
    most = {label: len(own) - both for label, own in rows.items()}
    if not len(rows) <= kept <= sum(most.values()):
        raise DataError(
            f"data '{source}': {len(labels)} rows of {len(rows)} classes cannot be parted into {kept} and "
            f"{len(labels) - kept} with every class in {'both' if both else 'the first part'}; give more rows"
        )
    due = {label: kept * len(own) / len(labels) for label, own in rows.items()}
    share = {label: min(max(1, int(due[label])), most[label]) for label in rows}
    while (missing := kept - sum(share.values())) != 0:
        step = 1 if missing > 0 else -1
        free = [label for label in rows if 1 <= share[label] + step <= most[label]]
        label = max(free, key=lambda label: step * (due[label] - share[label]))
        share[label] += step
    generator = random.Random(seed)
    first = {row for label in sorted(rows) for row in generator.sample(rows[label], share[label])}
    return sorted(first), [row for row in range(len(labels)) if row not in first]
