"""Labelled text from a folder, a file or the Hub, checked row by row.

`load_data` gives a `TextData`: splits with texts, pairs and targets, and the
label names in index order. Labels may be names or numbers; numbers keep their
order, names are sorted, and names that a Parquet file or a Hub data set brings
are kept as they are. Which kind of target a label column holds, `targets` says.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Any

from ptune.data.columns import Columns, choose_columns, text_of
from ptune.data.files import SUFFIXES, Row, read_class_names, read_rows
from ptune.data.splits import Origin, Split, TextData, hold_back, sample
from ptune.data.targets import (
    MULTI,
    REGRESSION,
    SINGLE,
    ProblemType,
    Target,
    label_of,
    labels_of,
    number_of,
    settle_problem_type,
)
from ptune.errors import DataError
from ptune.hub import why

logger = logging.getLogger(__name__)

_SPLIT_NAMES = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation"}
_SPLIT_NAMES |= {"dev": "validation", "eval": "validation", "test": "test"}
# train.csv, and shards of it: train-1.csv, train_02.csv, train-00000-of-00002.parquet, with or without a hash.
_SPLIT_FILE = re.compile(rf"({'|'.join(_SPLIT_NAMES)})([-_.]?\d+([-_]of[-_]\d+)?(-[0-9a-f]{{8,}})?)?")
# train_data.csv, dev-en.tsv: taken where the split has nothing better.
_LIKE_A_SPLIT = re.compile(rf"({'|'.join(_SPLIT_NAMES)})[-_.].*")
# Old names of the Hub's data sets, which are still what everybody calls them.
_HUB_NAMES = {"glue": "nyu-mll/glue", "super_glue": "aps/super_glue"}


@dataclass(frozen=True)
class _Table:
    """One split as it comes: where it is from, its rows, and names for whole-number labels by column."""

    where: str
    rows: Iterable[tuple[str, Row]]  # each with its file, for messages
    class_names: dict[str, list[str]]


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
    seed: int = 0,
    max_train_rows: int | None = None,
    revision: str | None = None,
) -> TextData:
    """Read and check labelled text.

    Args:
        source: a folder with train, validation and test files; one file; or a Hub id with an optional
            configuration (`glue/mrpc`). Where there is no validation split, a stratified tenth of train becomes it.
        text, text_pair, label: column names; guessed where None.
        labels: label names in index order, where they are known (an adapter's); else taken from train.
        problem_type: what the labels are; None: lists are several labels at once, fractions a regression's
            targets, all else one label a row.
        label_separator: what stands between the labels of a row in text, such as '|' in a CSV file.
        only: read just this split, for evaluation; with one file, all of it.
        seed: of the split and of the sample for `max_train_rows`.
        max_train_rows: train on a stratified sample of this many rows.
        revision: of a Hub id.

    Raises:
        DataError: names the file, the row and what was expected.
        ConfigError: a separator for labels of another type.
    """
    path = _local_path(str(source))
    origin = _hub_origin(str(source), revision) if path is None else Origin(path.resolve().name)
    tables = _hub_tables(str(source), origin, only) if path is None else _file_tables(path, str(source), only)
    raw: dict[str, _Raw] = {}
    columns: Columns | None = None
    for name, table in tables.items():
        may_lack = name == "test" and only is None
        raw[name], found = _read_table(table, (text, text_pair, label), columns, may_lack)
        columns = columns or found
    assert columns is not None
    guide = raw[only or "train"]
    settled, why = settle_problem_type(problem_type, label_separator, guide.labels or [])
    raw = {name: _read_labels(part, columns.label or "", settled, label_separator) for name, part in raw.items()}
    names = _names(raw[only or "train"], settled, labels, columns)
    splits = {
        name: _index(part, names, settled) for name, part in raw.items() if name == "train" or only or part.labels
    }
    notes = (f"columns: {columns}", f"problem type: {settled} ({why})")
    data = TextData(splits, names, columns, str(source), notes, settled, label_separator, origin)
    if only is not None:
        return data
    _check_train(raw["train"], data)
    return sample(hold_back(data, seed), seed, max_train_rows)


def _local_path(source: str) -> Path | None:
    """A file or folder of this name, and a file where the name has a data file's ending; None: it is a Hub id."""
    path = Path(source).expanduser()
    if path.exists() or path.suffix.lower() in SUFFIXES:
        return path
    if path.is_absolute() or source.startswith(("./", "../", "~")):
        raise DataError(f"data '{source}': there is no such file or folder")
    return None


def _file_tables(path: Path, source: str, only: str | None) -> dict[str, _Table]:
    files = _split_files(path) if path.is_dir() else {only or "train": [path]}
    tables = {
        name: _Table(", ".join(map(str, parts)), _chain(parts), read_class_names(parts[0]))
        for name, parts in files.items()
    }
    return _choose(tables, source, only)


def _choose(tables: dict[str, _Table], source: str, only: str | None) -> dict[str, _Table]:
    wanted = only or "train"
    if wanted not in tables:
        raise DataError(f"data '{source}' has no split '{wanted}'; it has {', '.join(tables) or 'no data files'}")
    return {wanted: tables[wanted]} if only else tables


def _split_files(folder: Path) -> dict[str, list[Path]]:
    """Files of each split of a folder; several of one ending are shards of it."""
    files = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES and path.is_file()]
    found = _by_split(files, _SPLIT_FILE)
    for name, parts in _by_split(files, _LIKE_A_SPLIT).items():
        found.setdefault(name, parts)
    if not found and len(files) == 1:
        return {"train": files}
    if not found and (folder / "data").is_dir():
        return _split_files(folder / "data")
    for name, parts in found.items():
        shards = all(re.search(r"\d", path.stem) and _SPLIT_FILE.fullmatch(path.stem.lower()) for path in parts)
        if len(parts) > 1 and not (shards and len({path.suffix for path in parts}) == 1):
            raise DataError(
                f"data '{folder}' has split '{name}' in several forms: {', '.join(path.name for path in parts)}; "
                "leave one"
            )
    if not found:
        raise DataError(f"data '{folder}' holds no train file; expected train{', train'.join(SUFFIXES)}")
    return found


def _by_split(files: Sequence[Path], pattern: re.Pattern[str]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in files:
        match = pattern.fullmatch(path.stem.lower())
        if match:
            found.setdefault(_SPLIT_NAMES[match[1]], []).append(path)
    return found


def _chain(parts: Sequence[Path]) -> Iterator[tuple[str, Row]]:
    for path in parts:
        for row in read_rows(path):
            yield str(path), row


def _hub_origin(source: str, revision: str | None) -> Origin:
    """`name`, `owner/name`, `name/configuration` or `owner/name/configuration`."""
    parts = source.split("/")
    if parts[0] in _HUB_NAMES:
        parts[:1] = _HUB_NAMES[parts[0]].split("/")
    return Origin("/".join(parts[:2]), True, "/".join(parts[2:]) or None, revision)


def _hub_tables(source: str, origin: Origin, only: str | None) -> dict[str, _Table]:
    dataset = _load_from_hub(source, origin)
    tables = {
        _SPLIT_NAMES.get(name, name): _Table(
            f"{source}, split {name}",
            zip(repeat(f"{source}, split {name}"), rows, strict=False),
            {column: names for column, feature in rows.features.items() if (names := _feature_names(feature))},
        )
        for name, rows in dataset.items()
        if name in _SPLIT_NAMES or name == only
    }
    return _choose(tables, source, only)


def _feature_names(feature: Any) -> list[str] | None:
    """Label names of a Hub column, of one label or of a list of them."""
    return getattr(feature, "names", None) or getattr(getattr(feature, "feature", None), "names", None)


def _load_from_hub(source: str, origin: Origin) -> Any:
    import datasets

    try:
        return datasets.load_dataset(origin.name, origin.configuration, revision=origin.revision)
    except Exception as err:  # the library raises many kinds, among them those of the network below it
        at = f", revision '{origin.revision}'," if origin.revision else ""
        raise DataError(
            f"data '{source}' is no file or folder here, and as a Hub id{at} it could not be loaded ({why(err)}); "
            "give a folder, a file, or check the id and the network"
        ) from err


def _read_table(
    table: _Table, wanted: tuple[str | None, str | None, str | None], known: Columns | None, may_lack_label: bool
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
            columns = columns or choose_columns(list(row), *wanted, where=table.where)
            if may_lack_label and columns.label not in row:
                columns = replace(columns, label=None)
            names = table.class_names.get(columns.label or "")
            choose_columns(
                list(row), columns.text, columns.text_pair, columns.label, where=table.where, need_label=False
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
    unnamed = labels == [f"LABEL_{index}" for index in range(len(labels))]
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
    """Labels as class indices. Numbers stand for themselves as names, or else for the index."""
    if raw.labels is None or problem_type == REGRESSION:
        return Split(raw.texts, raw.pairs, raw.labels)
    index = {name: position for position, name in enumerate(names)}
    by_number = all(isinstance(value, int) and str(value) not in index for value in _each(raw.labels))
    places = {str(position): position for position in range(len(names))} if by_number else index

    def place(value: str | int, number: int) -> int:
        position = places.get(str(value))
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
