"""Load labelled text from a folder, a file, the Hub or an object in memory, and check it row by row.

`load_data` returns a `TextData`: splits of texts, pairs and targets, and the
label names in index order. Labels are names or numbers. Names are sorted
alphabetically and numbers by size. Label names that come with a Parquet file or
a Hub data set keep their order. See `targets` for the kinds of targets.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ptune.data.columns import Columns
from ptune.data.glue import TITLES
from ptune.data.objects import find_in_memory, is_place, name_of
from ptune.data.raw import RawSplit, read_labels, read_table
from ptune.data.sources import find_tables
from ptune.data.splits import Split, TextData, hold_back, sample
from ptune.data.targets import (
    MULTI,
    REGRESSION,
    SINGLE,
    ProblemType,
    Target,
    default_labels,
    is_number,
    plain_number,
    settle_problem_type,
)
from ptune.errors import DataError

logger = logging.getLogger(__name__)


def load_data(
    source: Any,
    *,
    text: str | None = None,
    text_pair: str | None = None,
    label: str | None = None,
    labels: Sequence[str] | None = None,
    problem_type: ProblemType | None = None,
    label_separator: str | None = None,
    only: str | None = None,
    trained: Mapping[str, str | None] | None = None,
    seed: int = 0,
    max_train_rows: int | None = None,
    revision: str | None = None,
) -> TextData:
    """Load and check labelled text.

    If the source has no validation split, a stratified tenth of the training rows becomes it.

    Args:
        source: a folder with train, validation and test files; one file; or a Hub id with an optional
            configuration (`glue/mrpc`). Tasks of GLUE and SuperGLUE are recognised by their name and by their files.
            Or an object in memory: a pandas or Polars DataFrame, a `datasets.Dataset`, a list of dicts, a dict of
            lists, a tuple (texts, labels), or a dict of splits to any of these, such as a `DatasetDict`.
        text, text_pair, label: column names; None: guess them.
        labels: label names in index order, such as an adapter's; None: take them from the training rows.
        problem_type: the kind of the labels; None: guess it. Lists are several labels at once, fractions are the
            targets of a regression, and everything else is one label per row.
        label_separator: text between the labels of a row, such as '|', for several labels in a CSV file.
        only: read only this split, for evaluation. A source without splits, such as a file, is this split.
        trained: columns of an adapter's training data by `text`, `text_pair` and `label`. They are used, if the data
            have them, unless other columns are named.
        seed: seed of the validation split and of the sample for `max_train_rows`.
        max_train_rows: the size of a stratified sample of the training rows; None: use all rows.
        revision: branch, tag or commit of a Hub id.

    Raises:
        DataError: the data cannot be used. The message names the file, the row and what was expected.
        ConfigError: `label_separator` is empty, or given for another problem type than multi-label.
    """
    in_memory = not is_place(source)
    located = find_in_memory(source, only) if in_memory else find_tables(str(source), only, revision)
    task = located.task
    if task is not None:
        text, text_pair = (text, text_pair) if text else (task.columns.text, text_pair or task.columns.text_pair)
        label = label or task.label
    raw: dict[str, RawSplit] = {}
    columns: Columns | None = None
    for name, table in located.tables.items():
        may_lack = name.startswith("test") and (only is None or task is not None)
        raw[name], split_columns = read_table(table, (text, text_pair, label), columns, trained or {}, may_lack)
        columns = columns or split_columns
    assert columns is not None
    reference = raw[only or "train"]
    task_type = task.problem_type if task is not None and label == task.label else None
    settled, reason = settle_problem_type(problem_type or task_type, label_separator, reference.labels or [])
    if problem_type is None and task_type:
        reason = "from the task"
    raw = {name: read_labels(split, columns.label or "", settled, label_separator) for name, split in raw.items()}
    names = _label_names(raw[only or "train"], settled, labels, columns)
    splits = {
        name: _index_labels(split, names, settled)
        for name, split in raw.items()
        if name == "train" or only or split.labels
    }
    notes = [f"columns: {columns}", f"problem type: {settled} ({reason})"]
    metrics: tuple[str, ...] = ()
    if task is not None and settled == task_type:
        metrics = task.metrics
        notes.append(f"task: {TITLES[task.benchmark]}'s {task.title}, measured by {' and '.join(metrics)}")
    notes += [f"split: the rows of {name} have no labels and are left out" for name in raw if name not in splits]
    data = TextData(
        splits, names, columns, name_of(source), tuple(notes), settled, label_separator, located.origin, metrics
    )
    if only is not None:
        return data
    _check_train(raw["train"], data)
    data = sample(hold_back(data, seed), seed, max_train_rows)
    if data.problem_type == REGRESSION and len(set(data.train.labels or [])) < 2:
        raise DataError(f"{raw['train'].where}: all rows left to train on have the same number; give more rows")
    return data


def _adapter_names(labels: list[str], raw: RawSplit) -> list[str]:
    """Return the label names of an adapter, or the file's if the adapter has only LABEL_0, LABEL_1 and so on.

    Both are in index order.
    """
    unnamed = labels == default_labels(len(labels))
    return raw.class_names if unnamed and raw.class_names and len(raw.class_names) == len(labels) else labels


def _label_names(raw: RawSplit, problem_type: ProblemType, known: Sequence[str] | None, columns: Columns) -> list[str]:
    """Return label names in index order. A regression has one, the name of the predicted value."""
    if problem_type == REGRESSION:
        return list(known or [columns.label or "value"])
    return _collect_names(raw) if known is None else _adapter_names(list(known), raw)


def _collect_names(train: RawSplit) -> list[str]:
    """Return the label names of the training rows, in index order."""
    if not train.labels or not (values := set(_each(train.labels))):
        raise DataError(f"{train.where}: no row has a label")
    if train.class_names is not None:
        return train.class_names
    if all(isinstance(value, int) for value in values):
        return [str(value) for value in sorted(values, key=int)]
    return sorted(str(value) for value in values)


def _each(labels: list[Any]) -> Iterator[str | int]:
    """Yield the labels of all rows, one after the other."""
    for label in labels:
        yield from label if isinstance(label, list) else [label]


def _index_labels(raw: RawSplit, names: list[str], problem_type: ProblemType) -> Split:
    """Return a split whose labels are class indices, or numbers for a regression.

    Labels are matched by name. Only if all of them are whole numbers, and no name is a number, are they indices.

    Raises:
        DataError: a label is not among the names. The message names the row.
    """
    if raw.labels is None or problem_type == REGRESSION:
        return Split(raw.texts, raw.pairs, raw.labels)
    index = {name: position for position, name in enumerate(names)}
    plain = {plain_number(name): position for name, position in index.items()}  # so that 1.0 and 1 are the same label
    by_index = all(isinstance(value, int) for value in _each(raw.labels)) and not any(map(is_number, names))
    positions = {str(position): position for position in range(len(names))} if by_index else plain | index

    def position_of(label: str | int, row: int) -> int:
        position = positions.get(str(label), positions.get(plain_number(str(label))))
        if position is None:
            known = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
            raise DataError(f"{raw.place(row)}: label '{label}' is not among the known labels ({known})")
        return position

    targets: list[Target] = [
        tuple(sorted(position_of(label, row) for label in value)) if problem_type == MULTI else position_of(value, row)
        for row, value in enumerate(raw.labels)
    ]
    return Split(raw.texts, raw.pairs, targets)


def _check_train(raw: RawSplit, data: TextData) -> None:
    """Check that the training rows have different targets, and every class at least two rows.

    A label of a multi-label task may occur once, because its row can have other labels too.

    Raises:
        DataError: no row has a label, all rows have the same target, or a class has only one row.
    """
    targets = data.train.labels or []
    counts = Counter(targets)
    if data.problem_type == REGRESSION and not counts:
        raise DataError(f"{raw.where}: no row has a label")
    if len(counts) < 2:
        only = next(iter(raw.labels or [""]))
        if data.problem_type == SINGLE:
            raise DataError(f"{raw.where}: every row has label '{only}'; a classifier needs at least two classes")
        raise DataError(f"{raw.where}: every row has the same target, {only}; there is nothing to learn")
    if data.problem_type != SINGLE:
        return
    for label, count in counts.items():
        if count == 1:
            row = targets.index(label)
            raise DataError(
                f"{raw.place(row)}: label '{raw.labels[row] if raw.labels else label}' occurs only once; every label "
                "needs at least two rows, one for training and one for validation"
            )
