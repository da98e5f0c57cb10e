"""The rows of all splits of a source as checks need them: with their place, all their cells, and what is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from ptune.data.columns import Columns, column_name, joined_columns, label_columns
from ptune.data.load import settle_type
from ptune.data.objects import find_in_memory, is_place, name_of
from ptune.data.raw import RawSplit, Wanted, read_labels, read_table
from ptune.data.sources import find_tables
from ptune.data.splits import TextData
from ptune.data.targets import MULTI, REGRESSION, SINGLE, ProblemType
from ptune.errors import DataError

Label = str | float | tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One row of the data.

    Attributes:
        split: train, validation or test.
        file: the file that the row is in, or what the object in memory is called.
        number: the row's number in its file, from 1.
        text, pair: its texts; pair is None for single texts.
        label: its label: a name, a tuple of names, or a number; None if it has none.
        cells: all its columns; empty if the row cannot be parsed.
        problem: why the row cannot be used; None if it can.
        lacking: whether the reason is that text or label is missing.
    """

    split: str
    file: str
    number: int
    text: str
    pair: str | None
    label: Label | None
    cells: Mapping[str, Any]
    problem: str | None = None
    lacking: bool = False

    @property
    def texts(self) -> tuple[str, ...]:
        """The text, and the second text if there is one."""
        return (self.text,) if self.pair is None else (self.text, self.pair)

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the row's labels. A number is not a name."""
        if isinstance(self.label, tuple):
            return self.label
        return (self.label,) if isinstance(self.label, str) else ()

    def place(self) -> dict[str, Any]:
        """Return where the row is, in types of JSON."""
        return {"split": self.split, "file": self.file, "row": self.number}


@dataclass(frozen=True)
class Rows:
    """All rows of a source.

    Attributes:
        all: the rows, split by split.
        columns: the columns of text, pair and label.
        problem_type: the kind of the labels.
        source: what the source is called.
        named: whether label names come with the data in their order, so that their spelling is settled.
        label_separator: the text between the labels of a row; None if labels were not read from such text.
    """

    all: list[Row]
    columns: Columns
    problem_type: ProblemType
    source: str
    named: bool = False
    label_separator: str | None = None

    @cached_property
    def usable(self) -> list[Row]:
        """Rows with a text that can be read. Rows of a split without labels are among them."""
        return [row for row in self.all if row.problem is None]

    @cached_property
    def labelled(self) -> list[Row]:
        """Usable rows with a label. A row of a multi-label task may have the label ()."""
        return [row for row in self.usable if row.label is not None]

    @property
    def splits(self) -> dict[str, int]:
        """The number of rows of each split."""
        counts: dict[str, int] = {}
        for row in self.all:
            counts[row.split] = counts.get(row.split, 0) + 1
        return counts

    @cached_property
    def other_columns(self) -> list[str]:
        """Columns that hold neither text nor label, as the first row has them."""
        first = next((row.cells for row in self.all if row.cells), {})
        labels = label_columns(self.columns.label or "", first)
        return [name for name in first if name and name not in (self.columns.text, self.columns.text_pair, *labels)]


def read_rows(
    source: Any,
    *,
    text: str | None = None,
    text_pair: str | None = None,
    label: str | Sequence[str] | None = None,
    problem_type: ProblemType | None = None,
    label_separator: str | None = None,
    trained: Mapping[str, str | None] | None = None,
    revision: str | None = None,
) -> Rows:
    """Read all splits of a source. Rows that cannot be used are among the result, with the reason.

    Arguments are those of `ptune.data.load.load_data`.

    Raises:
        DataError: the source cannot be read, or lacks a column.
        ConfigError: `label_separator` is empty, or given for another problem type than multi-label.
    """
    text, text_pair = column_name("text", text), column_name("text_pair", text_pair)
    label = joined_columns(label)
    located = find_tables(str(source), None, revision) if is_place(source) else find_in_memory(source, None)
    task = located.task
    if task is not None:
        text, text_pair = (text, text_pair) if text else (task.columns.text, text_pair or task.columns.text_pair)
        label = label or task.label
    columns: Columns | None = None
    raws: list[tuple[str, list[Any], RawSplit]] = []
    for split, table in located.tables.items():
        entries = list(table.rows)
        wanted = Wanted(text, text_pair, label, trained, may_lack_label=split.startswith("test"))
        raw, found = read_table(replace(table, rows=entries), wanted, columns)
        columns = columns or found
        raws.append((split, [row for _, row in entries], raw))
    assert columns is not None
    task_type = task.problem_type if task is not None and label == task.label else None
    settled, _ = settle_type(problem_type, task_type, label_separator, raws[0][2])
    rows: list[Row] = []
    for split, entries, raw in raws:
        labelled = read_labels(raw, columns.label or "", settled, label_separator)
        rows += _rows_of(split, entries, labelled, settled)
    return Rows(rows, columns, settled, name_of(source), raws[0][2].class_names is not None, label_separator)


def rows_of_data(data: TextData) -> Rows:
    """Return the rows of data that have been loaded. Their numbers are positions in the split."""

    def name(target: Any) -> Label | None:
        if target is None or data.problem_type == REGRESSION:
            return target
        return tuple(data.labels[i] for i in target) if data.problem_type == MULTI else data.labels[target]

    rows = [
        Row(
            name_of_split,
            name_of_split,
            index + 1,
            split.texts[index],
            split.pairs[index] if split.pairs else None,
            name(split.labels[index] if split.labels is not None else None),
            {},
        )
        for name_of_split, split in data.splits.items()
        for index in range(len(split))
    ]
    return Rows(rows, data.columns, data.problem_type, data.source, named=False)


def _rows_of(split: str, entries: list[Any], raw: RawSplit, problem_type: ProblemType) -> Iterator[Row]:
    problems = {flaw.row: flaw for flaw in reversed(raw.flaws)}  # the first of a row's flaws
    only_lacking = {flaw.row: flaw.lacking for flaw in raw.flaws}
    for flaw in raw.flaws:
        only_lacking[flaw.row] = only_lacking[flaw.row] and flaw.lacking
    file, start = "", 0
    starts = dict(raw.starts)
    for index, cells in enumerate(entries):
        if index in starts:
            file, start = starts[index], index
        problem = problems.get(index)
        label = None if raw.labels is None or problem else _label(raw.labels[index], problem_type)
        yield Row(
            split,
            file,
            index - start + 1,
            raw.texts[index] or "",
            raw.pairs[index] or "" if raw.pairs is not None else None,
            label,
            {} if isinstance(cells, DataError) else cells,
            problem.reason if problem else None,
            only_lacking.get(index, False),
        )


def _label(value: Any, problem_type: ProblemType) -> Label | None:
    if value is None or problem_type == REGRESSION:
        return value
    return str(value) if problem_type == SINGLE else tuple(sorted(map(str, value)))
