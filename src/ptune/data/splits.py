"""Splits of labelled text, and stratified validation splits and samples of the training rows."""

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
_NO_LABEL = -1  # the label of rows without labels while rows are distributed


@dataclass(frozen=True)
class Split:
    """The rows of a split.

    texts: the text of each row.
    pairs: the second text of each row; None for single texts.
    labels: class indices, sorted tuples of label indices for a multi-label task, or numbers for a regression; None for
        rows without labels.
    weights: how much each row counts in training, 1 on average; None: all rows count the same.
    """

    texts: list[str]
    pairs: list[str] | None
    labels: Sequence[Target] | None
    weights: list[float] | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, rows: Sequence[int]) -> Split:
        """Return the given rows in the given order."""
        return Split(
            [self.texts[row] for row in rows],
            None if self.pairs is None else [self.pairs[row] for row in rows],
            None if self.labels is None else [self.labels[row] for row in rows],
            None if self.weights is None else [self.weights[row] for row in rows],
        )


@dataclass(frozen=True)
class Origin:
    """Where rows come from, as an adapter records it.

    name: a Hub id, or the name of a file or folder without its path.
    hub: whether the rows come from the Hub.
    configuration: the configuration of a Hub data set.
    revision: the branch, tag or commit of a Hub data set.
    """

    name: str
    hub: bool = False
    configuration: str | None = None
    revision: str | None = None


@dataclass(frozen=True)
class TextData:
    """Labelled text, and how it was read.

    splits: splits by name: train, validation, test.
    labels: label names in index order. A regression has one, the name of the predicted value.
    columns: the columns of text, pair and label.
    source: where the data were read from, as the caller gave it.
    notes: what was decided while reading, in words, one decision each.
    problem_type: the kind of the targets.
    label_separator: the text between the labels of a row; None if labels were not read from such text.
    origin: where the data come from, as an adapter records it.
    metrics: the metrics of the benchmark that the data belong to. The first one picks the best epoch.
    held_back: True if the validation rows were taken from the training rows.
    sampled: True if a split has only a sample of its rows.
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
    held_back: bool = False
    sampled: bool = False

    def split(self, name: str) -> Split:
        """Return a split by its name.

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
        """Return the targets of a split's N rows as a tensor.

        Its shape is [N] for class indices and for the numbers of a regression, and [N, C] with values 0 and 1 for a
        multi-label task of C labels.

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
        positions = [(row, label) for row, target in enumerate(labels) for label in _label_indices(target)]
        if positions:
            targets[tuple(torch.tensor(positions).T)] = 1.0
        return targets

    def majority_share(self, name: str = "validation") -> float | None:
        """Return the share of rows, from 0 to 1, that have a split's most frequent label or set of labels.

        It is the accuracy of a model that always predicts this label. A regression has none: None.
        """
        if self.problem_type == REGRESSION:
            return None
        labels = self.split(name).labels or [0]
        return max(Counter(labels).values()) / len(labels)


def hold_back(data: TextData, seed: int, share: float = VALIDATION_SHARE) -> TextData:
    """Return data with a validation split. If there is none, a stratified share of the training rows becomes it.

    Args:
        seed: seed of the choice of rows.
        share: share of the training rows, from 0 to 1. The split has at least as many rows as there are labels.

    Raises:
        DataError: there are too few rows.
    """
    if "validation" in data.splits:
        return data
    train = data.train
    size = max(2 if data.problem_type == REGRESSION else len(data.labels), round(share * len(train)))
    kept, held = _split_rows(data, len(train) - size, seed, both=True)
    note = f"split: {len(held)} of {len(train)} rows held back for validation, stratified, seed {seed}"
    splits = {**data.splits, "train": train.select(kept), "validation": train.select(held)}
    return replace(data, splits=splits, notes=(*data.notes, note), held_back=True)


def give_back(data: TextData) -> TextData:
    """Return data whose training split has the rows again that `hold_back` took for validation.

    The validation split stays as it is, so its rows are no longer a test of what is learned from the training rows.
    """
    train, held = data.train, data.validation
    joined = Split(
        [*train.texts, *held.texts],
        None if train.pairs is None or held.pairs is None else [*train.pairs, *held.pairs],
        None if train.labels is None or held.labels is None else [*train.labels, *held.labels],
        None if train.weights is None or held.weights is None else [*train.weights, *held.weights],
    )
    notes = tuple(note for note in data.notes if not note.startswith("split: "))
    return replace(data, splits={**data.splits, "train": joined}, notes=notes, held_back=False)


def fold(data: TextData, number: int, folds: int, seed: int) -> TextData:
    """Return data in which every `folds`-th training row, from `number` on, is validation. Rows are sorted by class.

    The folds of a seed together contain every training row once as validation. They are equally large, and each has as
    many rows of a class as the others; both to one row. With at least as many rows as folds, none is empty.
    """
    train = data.train
    rows: dict[Target, list[int]] = {}
    for row in random.Random(seed).sample(range(len(train)), len(train)):
        rows.setdefault((train.labels or [])[row], []).append(row)
    held = sorted([row for own in rows.values() for row in own][number::folds])
    kept = sorted(set(range(len(train))) - set(held))
    splits = {**data.splits, "train": train.select(kept), "validation": train.select(held)}
    return replace(data, splits=splits)


def sample(data: TextData, seed: int, rows: int | None, name: str = "train") -> TextData:
    """Return data with a stratified sample of the rows of a split.

    Args:
        seed: seed of the sample.
        rows: size of the sample; None, or as many as there are: keep all rows.
        name: the split: train or validation.

    Raises:
        DataError: the sample is too small for every class to be in it.
    """
    split = data.split(name)
    if rows is None or rows >= len(split):
        return data
    kind, classes = "training" if name == "train" else name, len(set(split.labels or []))
    if data.problem_type == SINGLE and rows < classes:
        raise DataError(
            f"data '{data.source}': a sample of {rows} rows cannot have every class, because the {kind} rows have "
            f"{classes} classes; use `max_{name}_rows={classes}` or more"
        )
    kept, _ = _split_rows(replace(data, splits={"train": split}), rows, seed, both=False)
    note = f"sample: {rows} of {len(split)} {kind} rows, stratified, seed {seed}"
    splits = {**data.splits, name: split.select(kept)}
    return replace(data, splits=splits, notes=(*data.notes, note), sampled=True)


def _split_rows(data: TextData, kept: int, seed: int, both: bool) -> tuple[list[int], list[int]]:
    """Split the training rows in two and return the row indices of both parts, in file order.

    Args:
        kept: rows in the first part.
        seed: seed of the choice of rows.
        both: whether the second part has to be stratified too. A sample needs only the first part.

    Raises:
        DataError: there are too few rows.
    """
    labels: Sequence[Any] = data.train.labels or []
    if data.problem_type == SINGLE:
        return _stratified(labels, kept, seed, data.source, both)
    if not 1 <= kept <= len(labels) - both:
        raise DataError(
            f"data '{data.source}': {len(labels)} rows cannot be split into {max(0, kept)} and "
            f"{len(labels) - max(0, kept)}; give more rows"
        )
    if data.problem_type == MULTI:
        first = set(_stratified_by_labels(labels, kept, seed, both))
    else:
        first = set(_stratified_by_size(labels, kept, seed))
    return sorted(first), [row for row in range(len(labels)) if row not in first]


def _stratified(labels: Sequence[int], kept: int, seed: int, source: str, both: bool) -> tuple[list[int], list[int]]:
    """Split rows in two so that both parts have the classes in the same proportions. See `_split_rows`.

    The first part has every class. With `both`, so has the second; scikit-learn's split may lose rare classes.
    """
    rows: dict[int, list[int]] = {}
    for row, label in enumerate(labels):
        rows.setdefault(label, []).append(row)
    most = {label: len(indices) - both for label, indices in rows.items()}
    if not len(rows) <= kept <= sum(most.values()):
        raise DataError(
            f"data '{source}': {len(labels)} rows of {len(rows)} classes cannot be split into {kept} and "
            f"{len(labels) - kept} with every class in {'both parts' if both else 'the first part'}; give more rows"
        )
    due = {label: kept * len(indices) / len(labels) for label, indices in rows.items()}
    share = {label: min(max(1, int(due[label])), most[label]) for label in rows}
    # The rounded shares may not add up. Adjust the class that is furthest from its due, as long as it has rows.
    while (missing := kept - sum(share.values())) != 0:
        step = 1 if missing > 0 else -1
        free = [label for label in rows if 1 <= share[label] + step <= most[label]]
        label = max(free, key=lambda label: step * (due[label] - share[label]))
        share[label] += step
    generator = random.Random(seed)
    first = {row for label in sorted(rows) for row in generator.sample(rows[label], share[label])}
    return sorted(first), [row for row in range(len(labels)) if row not in first]


def _stratified_by_size(targets: Sequence[float], kept: int, seed: int) -> list[int]:
    """Return the indices of `kept` rows of a regression, with targets of all sizes.

    Rows are sorted by their targets and cut into `kept` groups. One row of each group is sampled.
    """
    order = sorted(range(len(targets)), key=lambda row: targets[row])
    generator = random.Random(seed)
    borders = [number * len(order) // kept for number in range(kept + 1)]
    return [generator.choice(order[start:end]) for start, end in pairwise(borders)]


def _stratified_by_labels(labels: Sequence[tuple[int, ...]], kept: int, seed: int, both: bool) -> list[int]:
    """Return the indices of `kept` rows of a multi-label task, by iterative stratification (Sechidis et al., 2011).

    Rows are distributed label by label. The rarest label comes first, because its few rows leave the least choice, and
    rows without labels come last. A label with two rows or more goes into the first part and, with `both`, also into
    the second part, as long as there is room.
    """
    sets = [row_labels or (_NO_LABEL,) for row_labels in labels]
    rows: dict[int, list[int]] = {}
    for row in random.Random(seed).sample(range(len(sets)), len(sets)):
        for label in sets[row]:
            rows.setdefault(label, []).append(row)
    room = {True: kept, False: len(sets) - kept}  # in the first part, and in the second
    due = {label: _due(len(indices), kept / len(sets), both) for label, indices in rows.items()}
    in_first: dict[int, bool] = {}  # by row
    left = {label: len(indices) for label, indices in rows.items()}
    while left:
        rarest = min(left, key=lambda label: (label == _NO_LABEL, left[label], label))
        for row in rows[rarest]:
            if row in in_first:
                continue
            need = due[rarest]
            first = room[False] == 0 or (
                room[True] > 0 and (need[True], room[True] / kept) >= (need[False], room[False] / (len(sets) - kept))
            )
            in_first[row] = first
            room[first] -= 1
            for label in sets[row]:
                due[label][first] -= 1
                if label in left:
                    left[label] -= 1
        del left[rarest]
    return [row for row, first in in_first.items() if first]


def _due(count: int, share: float, both: bool) -> dict[bool, float]:
    """Return how many of a label's rows the first part (True) and the second part (False) should get.

    The first part gets its share, but at least one. With `both`, so does the second part if there are two rows or more.
    """
    first = max(1.0, share * count)
    if both and count > 1:
        first = min(first, count - 1.0)
    return {True: first, False: count - first}


def _label_indices(target: Target) -> tuple[int, ...]:
    """Return a multi-label target with its precise type, a tuple of label indices."""
    assert isinstance(target, tuple)
    return target
