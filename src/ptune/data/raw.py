"""Rows of a split with their text, their pair and the cell of their label, read column by column and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ptune.data.columns import Columns, as_trained, choose_columns, text_of
from ptune.data.sources import Table
from ptune.data.targets import MULTI, REGRESSION, ProblemType, label_of, labels_of, number_of
from ptune.errors import DataError


@dataclass(frozen=True)
class RawSplit:
    """One split of raw data.

    where: where the split comes from, for error messages.
    starts: for each file of the split, the index of its first row and its name.
    texts: the text of each row.
    pairs: the second text of each row; None for single texts.
    labels: raw cells at first; names, lists of names or numbers once they have been read. None if no row has a label.
    class_names: label names in index order, if the data bring them.
    """

    where: str
    starts: list[tuple[int, str]]
    texts: list[str]
    pairs: list[str] | None
    labels: list[Any] | None
    class_names: list[str] | None

    def place(self, index: int) -> str:
        """Return the file of a row and the row's number in it, counted from 1."""
        start, file = next(entry for entry in reversed(self.starts) if entry[0] <= index)
        return f"{file}, row {index - start + 1}"


def read_table(
    table: Table,
    wanted: tuple[str | None, str | None, str | None],
    known: Columns | None,
    trained: Mapping[str, str | None],
    may_lack_label: bool,
) -> tuple[RawSplit, Columns]:
    """Return the rows of a split and its columns.

    Args:
        table: the split.
        wanted: the columns of text, pair and label that the caller names.
        known: the columns of the split before it, if there is one.
        trained: columns of an adapter's training data.
        may_lack_label: whether the split may have no label column, like a test split.

    Raises:
        DataError: the split has no rows, lacks a column, or has a row without text.
    """
    texts: list[str] = []
    pairs: list[str] = []
    labels: list[Any] = []
    columns = known
    names: list[str] | None = None
    starts: list[tuple[int, str]] = []
    for index, (file, row) in enumerate(table.rows):
        if not starts or starts[-1][1] != file:
            starts.append((index, file))
        where = f"{file}, row {index - starts[-1][0] + 1}"
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
                        f"{table.where}: column '{name}' of the other splits is not among the columns "
                        f"({', '.join(row)}); give all splits the same columns"
                    )
        assert columns is not None
        texts.append(text_of(row, columns.text, where))
        if columns.text_pair is not None:
            pairs.append(text_of(row, columns.text_pair, where))
        labels.append(-1 if columns.label is None else row.get(columns.label))
    if columns is None or not texts:
        raise DataError(f"{table.where}: there are no rows")
    unlabelled = all(str(value).strip() in ("-1", "-1.0") for value in labels)  # as in GLUE's test splits
    return RawSplit(table.where, starts, texts, pairs or None, None if unlabelled else labels, names), columns


def read_labels(raw: RawSplit, column: str, problem_type: ProblemType, separator: str | None) -> RawSplit:
    """Return a split whose raw cells have been read as labels of the given problem type.

    Raises:
        DataError: a cell is not a label of this type. The message names the row.
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

    return replace(raw, labels=[read(cell, raw.place(index)) for index, cell in enumerate(raw.labels)])


def _named(value: str | int, names: list[str] | None, where: str) -> str | int:
    """Return the name of a label that is an index into `names`, and other labels as they are."""
    if names is None or not isinstance(value, int) or value == -1:
        return value
    if not 0 <= value < len(names):
        raise DataError(f"{where}: label {value} has no name; the file names labels 0 to {len(names) - 1}")
    return names[value]
