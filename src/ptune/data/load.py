"""Labelled text from a folder, a file or the Hub, checked row by row.

`load_data` gives a `TextData`: splits with texts, pairs and targets, and the
label names in index order. Labels may be names or numbers; numbers keep their
order, names are sorted, and names that a Parquet file or a Hub data set brings
are kept as they are. Which kind of target a label column holds, `targets` says.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ptune.data.columns import Columns, as_trained, choose_columns, text_of
from ptune.data.glue import TITLES
from ptune.data.sources import Table, find_tables
from ptune.data.splits import Split, TextData, hold_back, sample
from ptune.data.targets import (
    MULTI,
    REGRESSION,
    SINGLE,
    ProblemType,
    Target,
    default_labels,
    is_number,
    label_of,
    labels_of,
    number_of,
    plain_number,
    settle_problem_type,
)
from ptune.errors import DataError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Raw:
    """One split read. labels: its cells, at first as they come, then as names, lists of names, or numbers."""

    where: str
    starts: list[tuple[int, str]]  # first row's index of each file
    texts: list[str]
    pairs: list[str] | None
    labels: list[Any] | None
    class_names: list[str] | None

    def at(self, index: int) -> str:
        """File and row, counted within it from 1."""
        start, where = next(entry for entry in reversed(self.starts) if entry[0] <= index)
        return f"{where}, row {index - start + 1}"


def load_data(
    source: str | Path,
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
    """Read and check labelled text.

    Args:
        source: a folder with train, validation and test files; one file; or a Hub id with an optional
            configuration (`glue/mrpc`). Tasks of GLUE and SuperGLUE are known by name, and by their own files.
            Where there is no validation split, a stratified tenth of train becomes it.
        text, text_pair, label: column names; guessed where None.
        labels: label names in index order, where they are known (an adapter's); else taken from train.
        problem_type: what the labels are; None: lists are several labels at once, fractions a regression's
            targets, all else one label a row.
        label_separator: what stands between the labels of a row in text, such as '|' in a CSV file.
        only: read just this split, for evaluation; with one file, all of it.
        trained: columns `text`, `text_pair` and `label` of an adapter's training data: taken, where they are there,
            before anything is guessed.
        seed: of the split and of the sample for `max_train_rows`.
        max_train_rows: train on a stratified sample of this many rows.
        revision: of a Hub id.

    Raises:
        DataError: names the file, the row and what was expected.
        ConfigError: a separator for labels of another type.
    """
    found = find_tables(str(source), only, revision)
    task = found.task
    if task is not None:
        text, text_pair = (text, text_pair) if text else (task.columns.text, text_pair or task.columns.text_pair)
        label = label or task.label
    raw: dict[str, _Raw] = {}
    columns: Columns | None = None
    for name, table in found.tables.items():
        may_lack = name.startswith("test") and (only is None or task is not None)
        raw[name], own_columns = _read_table(table, (text, text_pair, label), columns, trained or {}, may_lack)
        columns = columns or own_columns
    assert columns is not None
    guide = raw[only or "train"]
    own = task.problem_type if task is not None and label == task.label else None
    settled, why = settle_problem_type(problem_type or own, label_separator, guide.labels or [])
    if problem_type is None and own:
        why = "the task's"
    raw = {name: _read_labels(part, columns.label or "", settled, label_separator) for name, part in raw.items()}
    names = _names(raw[only or "train"], settled, labels, columns)
    splits = {
        name: _index(part, names, settled) for name, part in raw.items() if name == "train" or only or part.labels
    }
    notes = [f"columns: {columns}", f"problem type: {settled} ({why})"]
    metrics: tuple[str, ...] = ()
    if task is not None and settled == own:
        metrics = task.metrics
        notes.append(f"task: {TITLES[task.benchmark]}'s {task.title}, judged by {' and '.join(metrics)}")
    notes += [f"split: the rows of {name} have no labels and are left out" for name in raw if name not in splits]
    data = TextData(splits, names, columns, str(source), tuple(notes), settled, label_separator, found.origin, metrics)
    if only is not None:
        return data
    _check_train(raw["train"], data)
    data = sample(hold_back(data, seed), seed, max_train_rows)
    if data.problem_type == REGRESSION and len(set(data.train.labels or [])) < 2:
        raise DataError(f"{raw['train'].where}: of the rows to train on every one has the same number; give more rows")
    return data


def _read_table(
    table: Table,
    wanted: tuple[str | None, str | None, str | None],
    known: Columns | None,
    trained: Mapping[str, str | None],
    may_lack_label: bool,
) -> tuple[_Raw, Columns]:
    texts: list[str] = []
    pairs: list[str] = []
    labels: list[Any] = []
    columns = known
    names: list[str] | None = None
    starts: list[tuple[int, str]] = []
    for index, (part, row) in enumerate(table.rows):
        if not starts or starts[-1][1] != part:
            starts.append((index, part))
        where = f"{part}, row {index - starts[-1][0] + 1}"
        if index == 0:
            text, pair, label = wanted
            text, pair = as_trained(list(row), text, pair, trained)
            if label is None and trained.get("label") in row:
                label = trained["label"]
            if may_lack_label and (columns.label if columns else label) not in row:
                label, columns = None, columns and replace(columns, label=None)
            columns = columns or choose_columns(
                list(row), text, pair, label, where=table.where, need_label=not may_lack_label
            )
            names = table.class_names.get(columns.label or "")
            for name in (columns.text, columns.text_pair, columns.label):
                if name is not None and name not in row:
                    raise DataError(
                        f"{table.where}: column '{name}', which the file before it has, is not among its columns "
                        f"({', '.join(row)}); give all files the same columns"
                    )
        assert columns is not None
        texts.append(text_of(row, columns.text, where))
        if columns.text_pair is not None:
            pairs.append(text_of(row, columns.text_pair, where))
        labels.append(-1 if columns.label is None else row.get(columns.label))
    if columns is None or not texts:
        raise DataError(f"{table.where}: no rows")
    unlabelled = all(str(value).strip() in ("-1", "-1.0") for value in labels)  # how GLUE's test splits say so
    return _Raw(table.where, starts, texts, pairs or None, None if unlabelled else labels, names), columns


def _read_labels(raw: _Raw, column: str, problem_type: ProblemType, separator: str | None) -> _Raw:
    """Its cells read as labels of the type.

    Raises:
        DataError: a cell that is none: names the row.
    """
    if raw.labels is None:
        return raw
    names = raw.class_names

    def read(cell: Any, where: str) -> Any:
        if problem_type == REGRESSION:
            return number_of(cell, column, where)
        if problem_type == MULTI:
            return [_named(label, names, where) for label in labels_of(cell, column, where, separator)]
        return _named(label_of(cell, column, where), names, where)

    return replace(raw, labels=[read(cell, raw.at(number)) for number, cell in enumerate(raw.labels)])


def _named(value: str | int, names: list[str] | None, where: str) -> str | int:
    if names is None or not isinstance(value, int) or value == -1:
        return value
    if not 0 <= value < len(names):
        raise DataError(f"{where}: label {value} has no name; the file's own list has {len(names)}")
    return names[value]


def _adapter_names(labels: list[str], raw: _Raw) -> list[str]:
    """The names that a file gives itself, where the adapter has none but LABEL_0 and on: both are in index order."""
    unnamed = labels == default_labels(len(labels))
    return raw.class_names if unnamed and raw.class_names and len(raw.class_names) == len(labels) else labels


def _names(raw: _Raw, problem_type: ProblemType, known: Sequence[str] | None, columns: Columns) -> list[str]:
    """Label names in index order; of a regression, the name of what is measured."""
    if problem_type == REGRESSION:
        return list(known or [columns.label or "value"])
    return _label_names(raw) if known is None else _adapter_names(list(known), raw)


def _label_names(train: _Raw) -> list[str]:
    if not train.labels or not (values := set(_each(train.labels))):
        raise DataError(f"{train.where}: no row has a label")
    if train.class_names is not None:
        return train.class_names
    if all(isinstance(value, int) for value in values):
        return [str(value) for value in sorted(values, key=int)]
    return sorted(str(value) for value in values)


def _each(labels: list[Any]) -> Iterator[str | int]:
    """The labels of all rows, one after the other."""
    for label in labels:
        yield from label if isinstance(label, list) else [label]


def _index(raw: _Raw, names: list[str], problem_type: ProblemType) -> Split:
    """Labels as class indices. Numbers stand for themselves as names or, where no name is a number, for the index."""
    if raw.labels is None or problem_type == REGRESSION:
        return Split(raw.texts, raw.pairs, raw.labels)
    index = {name: position for position, name in enumerate(names)}
    plain = {plain_number(name): position for name, position in index.items()}  # so that 1.0 finds 1
    by_number = all(isinstance(value, int) for value in _each(raw.labels)) and not any(map(is_number, names))
    places = {str(position): position for position in range(len(names))} if by_number else plain | index

    def place(value: str | int, number: int) -> int:
        position = places.get(str(value), places.get(plain_number(str(value))))
        if position is None:
            known = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
            raise DataError(f"{raw.at(number)}: label '{value}' is not among the known labels ({known})")
        return position

    targets: list[Target] = [
        tuple(sorted(place(part, number) for part in value)) if problem_type == MULTI else place(value, number)
        for number, value in enumerate(raw.labels)
    ]
    return Split(raw.texts, raw.pairs, targets)


def _check_train(raw: _Raw, data: TextData) -> None:
    """Whether there is anything to tell apart. A label of a multi-label task may occur once: its rows have others."""
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
                f"{raw.at(row)}: label '{raw.labels[row] if raw.labels else label}' occurs once; every label needs at "
                "least two rows, to learn from and to check with"
            )
