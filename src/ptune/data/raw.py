"""Rows of a split with their text, their pair and the cell of their label, read column by column and checked."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ptune.data.cells import hot_labels, is_placeholder, read_written_lists
from ptune.data.columns import Columns, as_trained, choose_columns, label_columns, split_columns, text_problem
from ptune.data.files import split_name
from ptune.data.flaws import Flaw
from ptune.data.readers import Row
from ptune.data.sources import Table
from ptune.data.targets import MULTI, REGRESSION, SINGLE, ProblemType, is_missing, label_of, labels_of, number_of
from ptune.errors import DataError

_HERE = "row"  # stands for the place in messages about a cell, which are completed with the file and the number
_PLACE = re.compile(r"^.*?, row (?P<number>\d+(?: \(line \d+\))?): ")


@dataclass(frozen=True)
class RawSplit:
    """One split of raw data.

    where: where the split comes from, for error messages.
    starts: for each file of the split, the index of its first row and its name.
    texts: the text of each row.
    pairs: the second text of each row; None for single texts.
    labels: raw cells at first; names, lists of names or numbers once they have been read, and None for rows with a
        flaw. None if no row has a label.
    class_names: label names in index order, if the data bring them.
    flaws: what is wrong with rows. Their texts and labels are not to be used.
    hot: whether the labels are several columns of zeros and ones.
    """

    where: str
    starts: list[tuple[int, str]]
    texts: list[str]
    pairs: list[str] | None
    labels: list[Any] | None
    class_names: list[str] | None
    flaws: tuple[Flaw, ...] = ()
    hot: bool = False

    def place(self, index: int) -> str:
        """Return the file of a row and the row's number in it, counted from 1."""
        file, number = _place(self.starts, index)
        return f"{file}, row {number}"

    def flaw(self, index: int, reason: str, lacking: bool = False) -> Flaw:
        """Return a flaw of a row, with the place of the row."""
        file, number = _place(self.starts, index)
        return Flaw(index, file, str(number), reason, lacking)

    def good_labels(self) -> list[Any]:
        """Return the labels of the rows that have one and no flaw."""
        bad = {flaw.row for flaw in self.flaws}
        return [label for index, label in enumerate(self.labels or []) if index not in bad]


@dataclass(frozen=True)
class Wanted:
    """The columns to read.

    text, text_pair, label: columns that the caller names.
    trained: columns of an adapter's training data.
    may_lack_label: whether the split may have no label column, like a test split.
    """

    text: str | None = None
    text_pair: str | None = None
    label: str | None = None
    trained: Mapping[str, str | None] | None = None
    may_lack_label: bool = False


def read_table(table: Table, wanted: Wanted, known: Columns | None) -> tuple[RawSplit, Columns]:
    """Return the rows of a split and its columns. Rows without text, or that cannot be parsed, are noted as flaws.

    Args:
        table: the split.
        wanted: the columns to read.
        known: the columns of the split before it, if there is one.

    Raises:
        DataError: the split has no rows, or lacks a column.
    """
    rows = _Rows()
    columns: Columns | None = None
    for file, row in table.rows:
        rows.begin(file, table.where)
        if isinstance(row, DataError):
            rows.add_broken(row)
            continue
        if columns is None:
            columns = _settle(table.where, row, wanted, known)
            rows.columns = columns
            rows.label_columns = label_columns(columns.label, row) if columns.label else []
            rows.expect_columns()
        rows.add(row)
    rows.check_columns(table.where)
    if columns is None:
        if rows.flaws:
            first = rows.flaws[0]
            raise DataError(f"{first.file}, row {first.number}: {first.reason}")
        raise DataError(f"{table.where}: there are no rows")
    pairs = rows.pairs if columns.text_pair else None
    raw = RawSplit(table.where, rows.starts, rows.texts, pairs, None, None, tuple(rows.flaws))
    if all(is_missing(cell) or str(cell).strip() in ("-1", "-1.0") for cell in rows.cells):
        return raw, columns  # as in test splits, whose labels are held back
    hot = len(rows.label_columns) > 1
    names = rows.label_columns if hot else table.class_names.get(columns.label or "")
    return replace(raw, labels=read_written_lists(rows.cells), class_names=names, hot=hot), columns


class _Rows:
    """The rows of a split while they are read. Its lists have an entry for each row, the broken ones included."""

    def __init__(self) -> None:
        self.columns = Columns("")
        self.label_columns: list[str] = []
        self.starts: list[tuple[int, str]] = []
        self.texts: list[Any] = []
        self.pairs: list[Any] = []
        self.cells: list[Any] = []  # of the label
        self.flaws: list[Flaw] = []
        self.unseen: set[str] = set()  # columns that no row of the present file has had
        self.parsed = False  # True if a row of the present file could be parsed

    def begin(self, file: str, where: str) -> None:
        """Note where a file begins, before its first row is added.

        Raises:
            DataError: the file before it lacks a column; see `check_columns`.
        """
        if not self.starts or self.starts[-1][1] != file:
            self.check_columns(where)
            self.starts.append((len(self.texts), file))
            self.expect_columns()

    def expect_columns(self) -> None:
        """Note that the rows to come must have the columns."""
        needed = (self.columns.text, self.columns.text_pair, *self.label_columns)
        self.unseen, self.parsed = {name for name in needed if name}, False

    def check_columns(self, where: str) -> None:
        """Check that the present file has the columns, in case it is one of several with the rows of a split.

        Its rows would otherwise only seem to be empty.

        Raises:
            DataError: no row of it has a column.
        """
        if len(self.starts) > 1 and self.parsed and self.unseen:
            missing = ", ".join(f"'{name}'" for name in sorted(self.unseen))
            raise DataError(
                f"data file '{self.starts[-1][1]}' has no column {missing}, which '{self.starts[0][1]}' has; give all "
                f"files of a split the same columns ({where})"
            )

    def add(self, row: Row) -> None:
        """Add a row. What is wrong with its texts, and with columns of zeros and ones, is noted as a flaw."""
        index, cell = len(self.texts), None
        self.parsed = True
        if self.unseen:
            self.unseen -= row.keys()
        if len(self.label_columns) > 1:
            try:
                cell = hot_labels(row, self.label_columns, _HERE)
            except DataError as err:
                self._note(index, _reason(err))
        else:
            cell = row.get(self.label_columns[0]) if self.label_columns else -1
        self.cells.append(cell)
        for column, values in ((self.columns.text, self.texts), (self.columns.text_pair, self.pairs)):
            value = None if column is None else row.get(column)
            if column is not None and (problem := text_problem(value, column)):
                self._note(index, problem, lacking=is_missing(value))
            values.append("" if value is None else str(value))

    def add_broken(self, error: DataError) -> None:
        """Add a row that could not be parsed, with its flaw."""
        place = _PLACE.match(str(error))
        self._note(len(self.texts), str(error)[place.end() if place else 0 :], number=place["number"] if place else "")
        for values in (self.texts, self.pairs, self.cells):
            values.append(None)

    def _note(self, index: int, reason: str, lacking: bool = False, number: str = "") -> None:
        start, file = self.starts[-1]
        self.flaws.append(Flaw(index, file, number or str(index - start + 1), reason, lacking))


def _settle(where: str, row: Row, wanted: Wanted, known: Columns | None) -> Columns:
    """Return the columns of a split, judging by its first row.

    Raises:
        DataError: a column is not there, or cannot be guessed.
    """
    names, trained = list(row), wanted.trained or {}
    text, pair = as_trained(names, wanted.text, wanted.text_pair, trained)
    label = wanted.label
    if label is None and (trained_label := trained.get("label")) and label_columns(trained_label, names):
        label = trained_label
    columns, asked = known, (known.label if known else label)
    if wanted.may_lack_label and not (asked and label_columns(asked, names)):
        label, columns = None, columns and replace(columns, label=None)
    try:
        columns = columns or choose_columns(names, text, pair, label, where=where, need_label=not wanted.may_lack_label)
    except DataError as err:
        raise DataError(f"{err}{_hint_at_text_file(where, row)}", **vars(err)) from err
    needed = [columns.text, columns.text_pair]
    if columns.label and not label_columns(columns.label, names):
        needed += split_columns(columns.label)
    for name in needed:
        if name is not None and name not in row:
            raise DataError(
                f"{where}: column '{name}' of the other splits is not among the columns "
                f"({', '.join(row)}); give all splits the same columns"
            )
    return columns


def _hint_at_text_file(where: str, row: Row) -> str:
    """Return a hint for an error message about a .txt file, which has no column of labels."""
    stem, ending, _ = split_name(where)
    if ending != ".txt":
        return ""
    text = str(row.get("text"))
    separator = next((mark for mark in ("\t", ";", "|", ",") if mark in text), None)
    hint = ". A .txt file has a text in each line and no labels, so it serves for prediction"
    if separator is None:
        return f"{hint}; give a .csv file with a column for each"
    name, header = (".tsv", "text\\tlabel\\n") if separator == "\t" else (".csv", f"text{separator}label\\n")
    return f"{hint}; make a table of it: (printf '{header}'; cat '{where}') > '{stem}{name}'"


def read_labels(
    raw: RawSplit, column: str, problem_type: ProblemType, separator: str | None, known: Sequence[str] | None = None
) -> RawSplit:
    """Return a split whose raw cells have been read as labels of the given problem type.

    Cells that are not labels of this type are noted as flaws.

    Args:
        raw: the split.
        column: the name of the label column.
        problem_type: the kind of the labels.
        separator: text between the labels of a row, if the caller names it.
        known: label names of an adapter.
    """
    if raw.labels is None:
        return raw
    names = raw.class_names
    present = {*map(str, known or ())} | {cell.strip() for cell in raw.labels if isinstance(cell, str)}
    flaws: list[Flaw] = []
    settled = known is not None  # an adapter's problem type is what it is

    def read(cell: Any) -> Any:
        if problem_type == REGRESSION:
            return number_of(cell, column, _HERE, settled)
        if problem_type == MULTI:
            return [_named(label, names) for label in labels_of(cell, column, _HERE, separator)]
        return _named(label_of(cell, column, _HERE, settled), names)

    def stands_for_none(label: Any) -> bool:
        if problem_type != SINGLE or str(label) in (known or names or ()):
            return False
        return (names is not None and label == -1) or is_placeholder(str(label), present)

    labels = []
    unreadable = {flaw.row for flaw in raw.flaws if not flaw.lacking}
    for index, cell in enumerate(raw.labels):
        label = None
        try:
            if index in unreadable:
                continue
            label = read(cell)
            if stands_for_none(label):
                flaws.append(
                    raw.flaw(index, f"column '{column}' holds '{label}', which stands for no label; fill it in", True)
                )
        except DataError as err:
            flaws.append(raw.flaw(index, _reason(err), lacking=is_missing(cell)))
        finally:
            labels.append(label)
    return replace(raw, labels=labels, flaws=(*raw.flaws, *flaws))


def _named(value: str | int, names: list[str] | None) -> str | int:
    """Return the name of a label that is an index into `names`, and other labels as they are."""
    if names is None or not isinstance(value, int) or value == -1:
        return value
    if not 0 <= value < len(names):
        raise DataError(f"{_HERE}: label {value} has no name; the file names labels 0 to {len(names) - 1}")
    return names[value]


def _reason(err: DataError) -> str:
    return str(err).removeprefix(f"{_HERE}: ")


def _place(starts: list[tuple[int, str]], index: int) -> tuple[str, int]:
    """Return the file of a row and the row's number in it, counted from 1."""
    start, file = starts[bisect_right(starts, index, key=lambda entry: entry[0]) - 1]
    return file, index - start + 1
