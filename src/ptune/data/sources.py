"""Find the splits of a folder, a file or a Hub data set. Their rows are read later, one at a time."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Any

from ptune.data.glue import Task, check, local_tasks, named_task
from ptune.data.readers import SUFFIXES, Row, read_class_names, read_rows
from ptune.data.splits import Origin
from ptune.errors import DataError
from ptune.hub import why

logger = logging.getLogger(__name__)

_SPLIT_NAMES = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation"}
_SPLIT_NAMES |= {"dev": "validation", "eval": "validation", "test": "test"}
# What may follow the name of a split: nothing (train.csv), or the number of a shard (train-1.csv, train_02.csv,
# train-00000-of-00002.parquet), with or without a hash.
_SHARD = r"([-_.]?\d+([-_]of[-_]\d+)?(-[0-9a-f]{8,})?)?"
# Anything else (train_data.csv, dev-en.tsv). Such a file is used only if its split has no better one.
_ANYTHING = r"[-_.].*"


@dataclass(frozen=True)
class Table:
    """A split whose rows are yet to be read.

    where: where the split comes from, for error messages.
    rows: (file, row) for each row; the file is for error messages.
    class_names: for columns of label indices, the label names in index order.
    """

    where: str
    rows: Iterable[tuple[str, Row]]
    class_names: Mapping[str, list[str]]


@dataclass(frozen=True)
class Found:
    """The splits of a source.

    tables: splits by name, train first.
    origin: where the data come from, as an adapter records it; None for objects in memory.
    task: the benchmark's task that the data belong to; None for other data.
    """

    tables: dict[str, Table]
    origin: Origin | None
    task: Task | None


def find_tables(source: str, only: str | None, revision: str | None) -> Found:
    """Return the splits of a source.

    Args:
        source: a folder, a file, or a Hub id with an optional configuration.
        only: return only this split; None: all splits, which must include train.
        revision: branch, tag or commit of a Hub id.

    Raises:
        DataError: the source does not exist, cannot be loaded, or does not have the split.
    """
    path = Path(source).expanduser()
    if path.exists() or path.suffix.lower() in SUFFIXES:
        found = _find_locally(path, only)
    elif path.is_absolute() or source.startswith(("./", "../", "~")):
        raise DataError(f"data '{source}': there is no such file or folder")
    else:
        found = _find_on_hub(source, only, revision)
    wanted = only or "train"
    if wanted not in found.tables:
        raise DataError(f"data '{source}' has no split '{wanted}'; it has {', '.join(found.tables) or 'no data files'}")
    # Train comes first because it decides which columns the other splits must have.
    names = [wanted] if only else sorted(found.tables, key=lambda name: name != "train")
    return replace(found, tables={name: found.tables[name] for name in names})


def split_named(name: str) -> str | None:
    """Return the split that a name stands for, such as validation for dev; None for other names."""
    return _SPLIT_NAMES.get(name.lower())


def _find_locally(path: Path, only: str | None) -> Found:
    if path.is_dir():
        files, task = _folder_splits(path)
    else:
        files = {only or "train": [path]}
        task = next((task for task in local_tasks(path.resolve().parent.name, [path]) if _fits(task, path)), None)
    tables = {
        name: Table(
            ", ".join(map(str, shards)), _prepare(_read_files(shards, task), task), _class_names(shards[0], task)
        )
        for name, shards in files.items()
    }
    return Found(tables, Origin(path.resolve().name), task)


def _folder_splits(folder: Path) -> tuple[dict[str, list[Path]], Task | None]:
    """Return the files of each split of a folder, and the task that they belong to.

    A split has several files if they are its shards.

    Raises:
        DataError: the folder has no train file, or several files of a split that are not shards.
    """
    files = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES and path.is_file()]
    for task in local_tasks(folder.resolve().name, files):
        splits = _by_split(files, task.splits, _SHARD) | _by_split(files, _SPLIT_NAMES, _SHARD)
        if splits and _fits(task, splits.get("train", next(iter(splits.values())))[0]):
            _check_shards(folder, splits, {**_SPLIT_NAMES, **task.splits})
            return splits, task
    splits = _by_split(files, _SPLIT_NAMES, _ANYTHING) | _by_split(files, _SPLIT_NAMES, _SHARD)
    if not splits and len(files) == 1:
        return {"train": files}, None
    if not splits and (folder / "data").is_dir():
        return _folder_splits(folder / "data")
    if not splits:
        raise DataError(
            f"data '{folder}' has no train file; expected train{', train'.join(SUFFIXES)}{_hint_at_tasks(folder)}"
        )
    _check_shards(folder, splits, _SPLIT_NAMES)
    return splits, None


def _hint_at_tasks(folder: Path) -> str:
    """Return a hint for an error message if a folder contains folders of a benchmark's tasks."""
    tasks = [path.name for path in sorted(folder.iterdir()) if path.is_dir() and local_tasks(path.name, ())]
    return f". It contains folders of tasks; give one of them, such as '{folder / tasks[0]}'" if tasks else ""


def _check_shards(folder: Path, splits: Mapping[str, Sequence[Path]], names: Mapping[str, str]) -> None:
    """Check that a split with several files has only numbered shards of one format.

    Raises:
        DataError: the files are not shards.
    """
    for split, files in splits.items():
        numbered = all(re.search(r"\d", path.stem) and _match(path, names, _SHARD) for path in files)
        if len(files) > 1 and not (numbered and len({path.suffix for path in files}) == 1):
            raise DataError(
                f"data '{folder}' has several files for split '{split}' that are not shards: "
                f"{', '.join(path.name for path in files)}; keep one"
            )


def _by_split(files: Sequence[Path], names: Mapping[str, str], ending: str) -> dict[str, list[Path]]:
    """Return files by split.

    Args:
        files: the files of a folder.
        names: for each name that a file may begin with, the split that it stands for.
        ending: a pattern of what may follow that name.
    """
    splits: dict[str, list[Path]] = {}
    for path in files:
        match = _match(path, names, ending)
        if match:
            splits.setdefault(names[match[1]], []).append(path)
    return splits


def _match(path: Path, names: Mapping[str, str], ending: str) -> re.Match[str] | None:
    """Match a file's name against one of `names`, which is group 1, followed by `ending`."""
    return re.fullmatch(f"({'|'.join(map(re.escape, names))}){ending}", path.stem.lower()) if names else None


def _fits(task: Task, path: Path) -> bool:
    """Return whether the first row of a file belongs to a task.

    Raises:
        DataError: it does, but the task cannot be learned.
    """
    row = next(read_rows(path, task.reader(path)), None)
    if row is None or not task.fits(row):
        return False
    check(task, str(path))
    return True


def _class_names(path: Path, task: Task | None) -> dict[str, list[str]]:
    return read_class_names(path) if task is None else {task.label: [*task.labels]}


def _read_files(files: Sequence[Path], task: Task | None) -> Iterator[tuple[str, Row]]:
    for path in files:
        for row in read_rows(path, task.reader(path) if task else None):
            yield str(path), row


def _prepare(rows: Iterable[tuple[str, Row]], task: Task | None) -> Iterator[tuple[str, Row]]:
    """Yield rows in the form that their task needs, without the incomplete rows that the task is known to have."""
    if task is None:
        yield from rows
        return
    skipped = 0
    for where, row in rows:
        try:
            for prepared in task.prepare(row):
                if task.gaps and task.lacks_a_part(prepared):
                    skipped += 1
                else:
                    yield where, prepared
        except DataError as err:
            raise DataError(f"{where}: {err}") from err
    if skipped:
        logger.warning("%s: skipped %d rows without a text or a label", task.source, skipped)


def _find_on_hub(source: str, only: str | None, revision: str | None) -> Found:
    """Return the splits of a Hub data set.

    Args:
        source: `name`, `owner/name`, `name/configuration`, `owner/name/configuration`, or a benchmark's task.
        only: also return the split of this name, even if it is not a usual name.
        revision: branch, tag or commit.
    """
    task, parts = named_task(source), source.split("/")
    repository, configuration = task.hub if task else ("/".join(parts[:2]), "/".join(parts[2:]) or None)
    origin = Origin(repository, True, configuration, revision)
    splits = {**_SPLIT_NAMES, **(task.splits if task else {})}
    tables = {}
    for name, rows in _load_from_hub(source, origin).items():
        if name in splits or name == only:
            where = f"{source}, split {name}"
            known = {column: names for column, feature in rows.features.items() if (names := feature_names(feature))}
            class_names = {task.label: [*task.labels]} if task else known
            tables[splits.get(name, name)] = Table(
                where, _prepare(zip(repeat(where), rows, strict=False), task), class_names
            )
    return Found(tables, origin, task)


def feature_names(feature: Any) -> list[str] | None:
    """Return the label names of a Hub column of labels or of lists of labels; None for other columns."""
    return getattr(feature, "names", None) or getattr(getattr(feature, "feature", None), "names", None)


def _load_from_hub(source: str, origin: Origin) -> Any:
    import datasets

    try:
        return datasets.load_dataset(origin.name, origin.configuration, revision=origin.revision)
    except Exception as err:  # the library raises errors of many kinds, including those of its network client
        at_revision = f" at revision '{origin.revision}'" if origin.revision else ""
        raise DataError(
            f"data '{source}' is not a file or folder here, and could not be loaded from the Hub{at_revision} "
            f"({why(err)}); give a file or a folder, or check the Hub id and the network"
        ) from err
