"""Splits of labelled text, and how one is parted in two with every class, or every size of target, in both."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ptune.data.columns import Columns
from ptune.data.targets import MULTI, REGRESSION, SINGLE, ProblemType, Target
from ptune.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

VALIDATION_SHARE = 0.1
_NONE = -1  # stands for the label of a row without any, where rows are shared out


@dataclass(frozen=True)
class Split:
    """Rows of one split. pairs is None for single texts, labels for rows without labels.

    labels: class indices; of a multi-label task, sorted tuples of them; of a regression, numbers.
    weights: how much each row counts in training, 1 on average; None: all alike.
    """

    texts: list[str]
    pairs: list[str] | None
    labels: Sequence[Target] | None
    weights: list[float] | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, rows: Sequence[int]) -> Split:
        """The given rows, in the given order."""
        return Split(
            [self.texts[row] for row in rows],
            None if self.pairs is None else [self.pairs[row] for row in rows],
            None if self.labels is None else [self.labels[row] for row in rows],
            None if self.weights is None else [self.weights[row] for row in rows],
        )


@dataclass(frozen=True)
class Origin:
    """Where rows are from, as an adapter notes it.

    name: a Hub id, or a file's or folder's own name without the way to it. configuration, revision: of a Hub id.
    """

    name: str
    hub: bool = False
    configuration: str | None = None
    revision: str | None = None


@dataclass(frozen=True)
class TextData:
    """Splits by name (train, validation, test), label names in index order, and how the rows were read.

    A regression has one name, that of what is measured. label_separator is what parted the labels of a row in text.
    metrics are those that the data are judged by, where a benchmark says so; the first picks the best epoch.
    """

    splits: dict[str, Split]
    labels: list[str]
    columns: Columns
    source: str
    notes: tuple[str, ...] = ()
    problem_type: ProblemType = SINGLE
    label_separator: str | None = None
    origin: Origin | None = None
    metrics: tuple[str, ...] = ()

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

    def targets(self, name: str) -> Tensor:
        """What a model should answer for a split's rows: [N] class indices, [N, C] of 0 and 1, or [N] numbers.

        Raises:
            DataError: there is no such split, or its rows have no labels.
        """
        import torch

        labels = self.split(name).labels
        if labels is None:
            raise DataError(f"data '{self.source}': the rows of {name} have no labels")
        if self.problem_type != MULTI:
            return torch.tensor(labels, dtype=torch.float32 if self.problem_type == REGRESSION else torch.long)
        targets = torch.zeros(len(labels), len(self.labels))
        pairs = [(row, label) for row, own in enumerate(labels) for label in _indices(own)]
        if pairs:
            targets[tuple(torch.tensor(pairs).T)] = 1.0
        return targets

    def majority_share(self, name: str = "validation") -> float | None:
        """Accuracy, from 0 to 1, of always answering the split's commonest label or set of labels."""
        if self.problem_type == REGRESSION:
            return None
        labels = self.split(name).labels or [0]
        return max(Counter(labels).values()) / len(labels)


def hold_back(data: TextData, seed: int, share: float = VALIDATION_SHARE) -> TextData:
    """Make a validation split of a stratified share of train, where there is none."""
    if "validation" in data.splits:
        return data
    train = data.train
    size = max(2 if data.problem_type == REGRESSION else len(data.labels), round(share * len(train)))
    kept, held = _part(data, len(train) - size, seed, both=True)
    note = f"split: {len(held)} of {len(train)} rows held back for validation, stratified, seed {seed}"
    splits = {**data.splits, "train": train.select(kept), "validation": train.select(held)}
    return replace(data, splits=splits, notes=(*data.notes, note))


def sample(data: TextData, seed: int, rows: int | None) -> TextData:
    train = data.train
    if rows is None or rows >= len(train):
        return data
    kept, _ = _part(data, rows, seed, both=False)
    note = f"sample: {rows} of {len(train)} training rows, stratified, seed {seed}"
    return replace(data, splits={**data.splits, "train": train.select(kept)}, notes=(*data.notes, note))


def _part(data: TextData, kept: int, seed: int, both: bool) -> tuple[list[int], list[int]]:
    """Row numbers of a part of `kept` training rows and of the rest, in file order.

    With `both`, the rest matters as well as the part.

    Raises:
        DataError: there are too few rows.
    """
    labels: Sequence[Any] = data.train.labels or []
    if data.problem_type == SINGLE:
        return _stratified(labels, kept, seed, data.source, both)
    if not 1 <= kept <= len(labels) - both:
        raise DataError(
            f"data '{data.source}': {len(labels)} rows cannot be parted into {max(0, kept)} and "
            f"{len(labels) - max(0, kept)}; give more rows"
        )
    first = set(_by_label(labels, kept, seed, both) if data.problem_type == MULTI else _by_size(labels, kept, seed))
    return sorted(first), [row for row in range(len(labels)) if row not in first]


def _stratified(labels: Sequence[int], kept: int, seed: int, source: str, both: bool) -> tuple[list[int], list[int]]:
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


def _by_size(targets: Sequence[float], kept: int, seed: int) -> list[int]:
    """Rows of a regression: one drawn from each of `kept` runs of like targets, so that all sizes are there."""
    order = sorted(range(len(targets)), key=lambda row: targets[row])
    generator = random.Random(seed)
    borders = [number * len(order) // kept for number in range(kept + 1)]
    return [generator.choice(order[start:end]) for start, end in pairwise(borders)]


def _by_label(labels: Sequence[tuple[int, ...]], kept: int, seed: int, both: bool) -> list[int]:
    """`kept` rows of a multi-label task by iterative stratification (Sechidis and others, 2011).

    Labels are shared out from the rarest on, as the few rows of a rare one leave no choice, and rows without any
    last. A label of two rows or more goes into the part and, with `both`, into the rest too, as long as they have room.
    """
    sets = [own or (_NONE,) for own in labels]
    rows: dict[int, list[int]] = {}
    for row in random.Random(seed).sample(range(len(sets)), len(sets)):
        for label in sets[row]:
            rows.setdefault(label, []).append(row)
    room = {True: kept, False: len(sets) - kept}
    due = {label: _due(len(own), kept / len(sets), both) for label, own in rows.items()}
    side: dict[int, bool] = {}
    left = {label: len(own) for label, own in rows.items()}
    while left:
        rarest = min(left, key=lambda label: (label == _NONE, left[label], label))
        for row in rows[rarest]:
            if row in side:
                continue
            own = due[rarest]
            inside = room[False] == 0 or (
                room[True] > 0 and (own[True], room[True] / kept) >= (own[False], room[False] / (len(sets) - kept))
            )
            side[row] = inside
            room[inside] -= 1
            for label in sets[row]:
                due[label][inside] -= 1
                if label in left:
                    left[label] -= 1
        del left[rarest]
    return [row for row, inside in side.items() if inside]


def _due(count: int, share: float, both: bool) -> dict[bool, float]:
    """How many of a label's rows either part should get: its share, but one at least where there are two."""
    inside = max(1.0, share * count)
    if both and count > 1:
        inside = min(inside, count - 1.0)
    return {True: inside, False: count - inside}


def _indices(target: Target) -> tuple[int, ...]:
    """A multi-label target."""
    assert isinstance(target, tuple)
    return target
