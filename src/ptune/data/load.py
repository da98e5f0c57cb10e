"""Load labelled text from a folder, a file, the Hub or an object in memory, and check it row by row.

`load_data` returns a `TextData`: splits of texts, pairs and targets, and the
label names in index order. Labels are names or numbers. Names are sorted
alphabetically and numbers by size. Label names that come with a Parquet file or
a Hub data set keep their order. See `targets` for the kinds of targets.
"""

from __future__ import annotations

import logging
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

from ptune.data.columns import Columns, column_name, joined_columns
from ptune.data.flaws import ON_EMPTY, OnEmpty, count_reasons, describe_flaws
from ptune.data.glue import TITLES
from ptune.data.label_names import (
    RARE,
    are_indices,
    check_names,
    index_labels,
    label_names,
    rare_labels,
    without_labels,
)
from ptune.data.objects import find_in_memory, is_place, name_of
from ptune.data.raw import RawSplit, Wanted, read_labels, read_table
from ptune.data.sources import Found, find_tables
from ptune.data.splits import Split, TextData, hold_back, sample
from ptune.data.targets import MULTI, REGRESSION, SINGLE, ProblemType, is_number, named_labels, settle_problem_type
from ptune.errors import DataError, check_whole_number, unknown_choice

logger = logging.getLogger(__name__)

_FLOAT32 = 2.0**-24  # the rounding error of float32, as a share of a number
_MOST_ROUNDING = 0.01  # the largest one that does not matter, as a share of the targets' standard deviation


def load_data(
    source: Any,
    *,
    text: str | None = None,
    text_pair: str | None = None,
    label: str | Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    problem_type: ProblemType | None = None,
    label_separator: str | None = None,
    only: str | None = None,
    trained: Mapping[str, str | None] | None = None,
    seed: int = 0,
    max_train_rows: int | None = None,
    max_validation_rows: int | None = None,
    revision: str | None = None,
    on_empty: OnEmpty = "error",
    drop_rare: int | None = None,
) -> TextData:
    """Load and check labelled text.

    If the source has no validation split, a stratified tenth of the training rows becomes it.

    Args:
        source: a folder with train, validation and test files; one file; or a Hub id with an optional
            configuration (`glue/mrpc`). Tasks of GLUE and SuperGLUE are recognised by their name and by their files.
            Or an object in memory: a pandas or Polars DataFrame, a `datasets.Dataset`, a list of dicts, a dict of
            lists, a tuple (texts, labels), or a dict of splits to any of these, such as a `DatasetDict`.
        text, text_pair, label: column names; None: guess them. Several names for `label`, in a list or joined by
            commas, are columns of zeros and ones, one for each label of a multi-label task.
        labels: label names in index order, such as an adapter's; None: take them from the training rows.
        problem_type: the kind of the labels; None: guess it. Lists are several labels at once, fractions are the
            targets of a regression, and everything else is one label per row.
        label_separator: text between the labels of a row, such as '|', for several labels in a CSV file.
        only: read only this split, for evaluation. A source without splits, such as a file, is this split.
        trained: columns of an adapter's training data by `text`, `text_pair` and `label`. They are used, if the data
            have them, unless other columns are named.
        seed: seed of the validation split and of the samples for `max_train_rows` and `max_validation_rows`.
        max_train_rows: the size of a stratified sample of the training rows; None: use all rows.
        max_validation_rows: the same for the validation rows.
        revision: branch, tag or commit of a Hub id.
        on_empty: what to do with rows without text or label: `error` reports them, `skip` leaves them out.
        drop_rare: leave out labels that fewer training rows have, and rows with no other label; None: keep all.

    Raises:
        DataError: the data cannot be used. The message names the file, the rows and what was expected.
        ConfigError: `label_separator` is empty, or given for another problem type than multi-label.
        ConfigError: `on_empty` or `problem_type` is unknown, a number is not whole or too small, or a name in `labels`
            occurs twice.
    """
    if on_empty not in ON_EMPTY:
        raise unknown_choice("on_empty", on_empty, ON_EMPTY)
    if problem_type is not None and problem_type not in get_args(ProblemType):
        raise unknown_choice("problem_type", problem_type, get_args(ProblemType))
    for name, number, least in (
        ("seed", seed, None),
        ("max_train_rows", max_train_rows, 1),
        ("max_validation_rows", max_validation_rows, 1),
        ("drop_rare", drop_rare, 1),
    ):
        check_whole_number(name, number, least)
    if labels is not None:
        labels = named_labels(labels)
    text, text_pair = column_name("text", text), column_name("text_pair", text_pair)
    label = joined_columns(label)
    in_memory = not is_place(source)
    located = find_in_memory(source, only) if in_memory else find_tables(str(source), only, revision)
    task = located.task
    if task is not None:
        text, text_pair = (text, text_pair) if text else (task.columns.text, text_pair or task.columns.text_pair)
        label = label or task.label
    raw, columns = _read_splits(located, Wanted(text, text_pair, label, trained), only)
    notes = [f"columns: {columns}"]
    reference = raw[only or "train"]
    task_type = task.problem_type if task is not None and label == task.label else None
    settled, reason = settle_type(problem_type, task_type, label_separator, reference)
    notes.append(f"problem type: {settled} ({reason})")
    metrics: tuple[str, ...] = ()
    if task is not None and settled == task_type:
        metrics = task.metrics
        notes.append(f"task: {TITLES[task.benchmark]}'s {task.title}, measured by {' and '.join(metrics)}")
    raw = {
        name: read_labels(split, columns.label or "", settled, label_separator, labels) for name, split in raw.items()
    }
    reference = raw[only or "train"]
    if settled != REGRESSION and labels is None:
        check_names(reference, may_be_joined=settled == SINGLE and problem_type is None and task_type is None)
    if drop_rare and settled != REGRESSION and (rare := rare_labels(reference, drop_rare)):
        raw = {name: without_labels(split, rare) for name, split in raw.items()}
        shown = ", ".join(f"{name} ({count})" for name, count in rare.items())
        notes.append(f"labels left out because fewer than {drop_rare} rows have them: {shown}")
    names = label_names(raw[only or "train"], settled, labels, columns.label)
    splits = _usable_rows(raw, names, settled, on_empty, only, notes)
    good = raw[only or "train"].good_labels()
    if labels is not None and settled != REGRESSION and good and are_indices(good, names):
        shown = ", ".join(f"{index} {name}" for index, name in enumerate(names[:5]))
        logger.info(
            "the labels of the rows are whole numbers, which are taken as indices: %s%s",
            shown,
            ", …" if len(names) > 5 else "",
        )
    data = TextData(
        splits, names, columns, name_of(source), tuple(notes), settled, label_separator, located.origin, metrics
    )
    if only is not None:
        return data
    _check_train(raw["train"], data)
    data = sample(hold_back(data, seed), seed, max_train_rows)
    data = sample(data, seed, max_validation_rows, "validation")
    if data.problem_type == REGRESSION and len(set(data.train.labels or [])) < 2:
        raise DataError(f"{raw['train'].where}: all rows left to train on have the same number; give more rows")
    if data.problem_type == REGRESSION:
        _warn_of_digits(raw["train"].where, [float(target) for target in data.train.labels or []])  # type: ignore[arg-type]
    return data


def _warn_of_digits(where: str, numbers: Sequence[float]) -> None:
    """Warn of numbers that differ by little compared with their size, so that float32 cannot tell them apart."""
    spread, largest = statistics.pstdev(numbers), max(map(abs, numbers))
    if spread and largest * _FLOAT32 > _MOST_ROUNDING * spread:
        logger.warning(
            "%s: the numbers are as large as %g, but differ only by about %g. Learning rounds them to 7 digits, so "
            "take %g from all of them",
            where,
            largest,
            spread,
            statistics.fmean(numbers),
        )


def _read_splits(located: Found, wanted: Wanted, only: str | None) -> tuple[dict[str, RawSplit], Columns]:
    """Return the rows of all splits, whose labels are raw cells, and the columns of the first split."""
    raw: dict[str, RawSplit] = {}
    columns: Columns | None = None
    for name, table in located.tables.items():
        may_lack = name.startswith("test") and (only is None or located.task is not None)
        raw[name], own = read_table(table, replace(wanted, may_lack_label=may_lack), columns)
        columns = columns or own
    assert columns is not None
    return raw, columns


def settle_type(
    asked: ProblemType | None, of_task: ProblemType | None, separator: str | None, raw: RawSplit
) -> tuple[ProblemType, str]:
    """Return the problem type that the caller or the task says, or that the labels show, and the reason in words."""
    settled, reason = settle_problem_type(asked or of_task, separator, raw.labels or [])
    if asked is None and of_task is not None:
        return settled, "from the task"
    if asked is None and raw.hot:
        return MULTI, "there is a column for each label"
    return settled, reason


def _usable_rows(
    raw: dict[str, RawSplit],
    names: list[str],
    problem_type: ProblemType,
    on_empty: OnEmpty,
    only: str | None,
    notes: list[str],
) -> dict[str, Split]:
    """Return the splits that have labels, with their usable rows. What is left out is added to the notes.

    Raises:
        DataError: a row cannot be used, and may not be left out.
    """
    splits: dict[str, Split] = {}
    for name, split in raw.items():
        if name == "train" or only or split.labels:
            splits[name], left_out = _finish(split, names, problem_type, on_empty)
            notes += [f"rows of {name} left out: {left_out}"] if left_out else []
        else:
            notes.append(f"split: the rows of {name} have no labels and are left out")
    return splits


def _finish(raw: RawSplit, names: list[str], problem_type: ProblemType, on_empty: OnEmpty) -> tuple[Split, str]:
    """Return the usable rows of a split with their targets, and which rows were left out, in words.

    Raises:
        DataError: a row cannot be used, and may not be left out. The message names all of them.
    """
    targets, unknown = index_labels(raw, names, problem_type)
    flaws = [*raw.flaws, *unknown]
    fatal = [flaw for flaw in flaws if not (flaw.lacking and (on_empty == "skip" or flaw.reason == RARE))]
    if fatal:
        raise DataError(describe_flaws(sorted(fatal, key=lambda flaw: flaw.row), len(raw.texts)))
    split = Split(raw.texts, raw.pairs, None if raw.labels is None else targets)  # type: ignore[arg-type]
    if not flaws:
        return split, ""
    bad = {flaw.row for flaw in flaws}
    kept = split.select([row for row in range(len(split)) if row not in bad])
    if not kept.texts:
        raise DataError(f"{raw.where}: no row can be used; left out: {count_reasons(flaws)}")
    return kept, f"{len(bad)} of {len(split)}; {count_reasons(flaws)}"


def _check_train(raw: RawSplit, data: TextData) -> None:
    """Check that the training rows have different targets, and every class at least two rows if one is held back.

    A label of a multi-label task may occur once, because its row can have other labels too.

    Raises:
        DataError: no row has a label, all rows have the same target, or a class has only one row, of which ptune itself
            would take one for validation.
    """
    counts = Counter(data.train.labels or [])
    if not counts:
        raise DataError(f"{raw.where}: no row has a label")
    if len(counts) < 2:
        only = next(iter(raw.good_labels()))
        if data.problem_type == SINGLE:
            raise DataError(f"{raw.where}: every row has label '{only}'; a classifier needs at least two classes")
        raise DataError(f"{raw.where}: every row has the same target, {only}; there is nothing to learn")
    if data.problem_type != SINGLE or "validation" in data.splits:
        return
    once = {label for label, count in counts.items() if count == 1}
    if not once:
        return
    bad = {flaw.row for flaw in raw.flaws}
    targets = iter(data.train.labels or [])
    rows = [row for row in range(len(raw.texts)) if row not in bad and next(targets) in once]
    labels = raw.labels or []
    numbers = ""
    if all(map(is_number, data.labels)):
        numbers = f". To learn the numbers themselves, set `problem_type='{REGRESSION}'`"
    flaws = [
        raw.flaw(
            row,
            f"label '{labels[row]}' occurs only once; every label needs at least two rows, one for training and one "
            "for validation. Add rows, give a validation split, or leave such labels out with `drop_rare=2`" + numbers,
        )
        for row in rows
    ]
    raise DataError(describe_flaws(flaws, len(raw.texts)))
