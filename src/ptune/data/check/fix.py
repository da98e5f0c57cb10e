"""Repair what needs no judgement, and write the rows to a file.

Rows without text or label are left out, labels get their most frequent spelling, wrongly decoded characters are
repaired, and of several copies of a text one stays. A text that occurs in several splits stays in the last of train,
validation and test. Copies with different labels stay, and so do rows that cannot be used for other reasons, as someone
has to decide. Rows that cannot be parsed cannot be written either, so nothing is written if there are any.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from ptune.data.check.copies import leaked_rows, same_label_copies, text_groups
from ptune.data.check.findings import KINDS, describe_rows, many
from ptune.data.check.labels import same_names
from ptune.data.check.mojibake import repaired
from ptune.data.check.rows import Label, Row, Rows
from ptune.data.targets import MULTI, REGRESSION, SINGLE
from ptune.data.writers import check_output, open_writer
from ptune.errors import ConfigError, DataError
from ptune.places import Place

ENDING = ".jsonl"  # of the files of a data set with several splits


def repair(rows: Rows) -> tuple[Rows, dict[str, int]]:
    """Return the repaired rows, without those that are left out, and how many rows each repair concerned.

    Raises:
        DataError: there are rows that cannot be parsed, or no row of a split is left.
    """
    lost = [row for row in rows.all if row.problem is not None and not row.cells]
    if lost:
        raise DataError(
            f"{len(lost):,} {many(len(lost), 'row', 'rows')} cannot be parsed and would be lost: "
            f"{describe_rows(lost, 5)} ({lost[0].problem}); correct them first, or leave out `fix`"
        )
    counts = {"missing": 0, "label_spellings": 0, "encoding": 0, "repeats": 0, "leaks": 0}
    spelling: dict[str, str] = {}
    if rows.problem_type != REGRESSION and not rows.named:
        spelling = same_names(Counter(label for row in rows.labelled for label in row.labels))
    kept = []
    for row in rows.all:
        if row.problem is not None:
            if row.lacking:
                counts["missing"] += 1
            else:
                kept.append(row)
            continue
        new = _with_texts(_with_label(row, spelling, rows), rows)
        counts["label_spellings"] += new.label != row.label
        counts["encoding"] += new.texts != row.texts
        kept.append(new)
    groups = text_groups(replace(rows, all=kept))
    leaked = {id(row) for group in groups if len({row.split for row in group}) > 1 for row in leaked_rows(group)}
    repeated = {id(row) for group in groups for copies in same_label_copies(group) for row in copies[1:]} - leaked
    counts |= {"repeats": len(repeated), "leaks": len(leaked)}
    left = replace(rows, all=[row for row in kept if id(row) not in leaked | repeated])
    emptied = [split for split in rows.splits if split not in left.splits]
    if emptied:
        raise DataError(
            f"data '{rows.source}': no row of {' and '.join(emptied)} is left after the repair: "
            f"{', '.join(f'{count:,} {KINDS[kind]}' for kind, count in counts.items() if count)}; give other rows"
        )
    return left, counts


def check_fixed_output(path: Place, splits: Collection[str]) -> None:
    """Check where repaired rows are to be written: a file, or a folder if there are several splits.

    Raises:
        ConfigError: it is the other of file and folder, the file's ending is unknown, or the folder holds other files.
        OutputError: it cannot be written.
    """
    if len(splits) > 1 and path.suffix:
        raise ConfigError(
            f"the data have {len(splits)} splits ({', '.join(splits)}), which do not fit into one file, '{path}'; give "
            f"the name of a folder to `fix`: `fix='{path.with_suffix('')}'`",
            field="fix",
            value=str(path),
            expected="the name of a folder",
        )
    if len(splits) > 1 and path.is_dir():
        own = {f"{split}{ENDING}" for split in splits}
        others = sorted(place.name for place in path.iterdir() if place.name not in own)
        if others:
            raise ConfigError(
                f"folder '{path}' holds other files, such as '{others[0]}', which would be read with the repaired "
                "rows; give a new or an empty folder to `fix`",
                field="fix",
                value=str(path),
                expected="a new or an empty folder",
            )
    check_output(path / f"train{ENDING}" if len(splits) > 1 else path)


def write_rows(rows: Rows, path: Place) -> list[Place]:
    """Write rows to a file, or to one file for each split in a folder. Return the files.

    Raises:
        ConfigError, OutputError: see `check_fixed_output`.
        DataError: the format cannot hold a value.
    """
    splits = rows.splits
    check_fixed_output(path, splits)
    files = {split: path / f"{split}{ENDING}" if len(splits) > 1 else path for split in splits}
    for split, file in files.items():
        cells = [_cells(row, rows) for row in rows.all if row.split == split]
        open_writer(file)(cells, file, (), lambda: cells[0])  # noqa: B023 (called at once)
    return [*files.values()]


def _with_texts(row: Row, rows: Rows) -> Row:
    text, pair = repaired(row.text), None if row.pair is None else repaired(row.pair)
    if (text, pair) == (row.text, row.pair):
        return row
    cells = {**row.cells, rows.columns.text: text}
    if rows.columns.text_pair is not None:
        cells[rows.columns.text_pair] = pair
    return replace(row, text=text, pair=pair, cells=cells)


def _with_label(row: Row, spelling: Mapping[str, str], rows: Rows) -> Row:
    column = rows.columns.label
    if column is None or column not in row.cells or not any(label in spelling for label in row.labels):
        return row
    names = [*dict.fromkeys(spelling.get(label, label) for label in row.labels)]
    cell, label = row.cells[column], _label(names, rows)
    if rows.problem_type == SINGLE:
        return replace(row, label=label, cells={**row.cells, column: names if isinstance(cell, list) else names[0]})
    if isinstance(cell, str):
        if rows.label_separator is None:  # a list that is written as text, by Python or as JSON
            text = str(names) if "'" in cell else json.dumps(names, ensure_ascii=False)
            return replace(row, label=label, cells={**row.cells, column: text})
        return replace(row, label=label, cells={**row.cells, column: rows.label_separator.join(names)})
    return replace(row, label=label, cells={**row.cells, column: names})


def _label(names: list[str], rows: Rows) -> Label:
    return tuple(sorted(names)) if rows.problem_type == MULTI else names[0]


def _cells(row: Row, rows: Rows) -> dict[str, Any]:
    """Return the cells of a row, with names in place of indices, because only Parquet and the Hub keep both."""
    column = rows.columns.label
    if rows.named and row.label is not None and column is not None and column in row.cells:
        return {**row.cells, column: list(row.label) if isinstance(row.label, tuple) else row.label}
    return dict(row.cells)
