"""Where data are: the splits of a folder, a file or a Hub data set, each as rows yet to be read."""

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
# train.csv, and shards of it: train-1.csv, train_02.csv, train-00000-of-00002.parquet, with or without a hash.
_SHARD = r"([-_.]?\d+([-_]of[-_]\d+)?(-[0-9a-f]{8,})?)?"
# train_data.csv, dev-en.tsv: taken where the split has nothing better.
_ANYTHING = r"[-_.].*"


@dataclass(frozen=True)
class Table:
    """One split as it comes: where it is from, its rows, and names for whole-number labels by column."""

    where: str
    rows: Iterable[tuple[str, Row]]  # each with its file, for messages
    class_names: Mapping[str, list[str]]


@dataclass(frozen=True)
class Found:
    """Splits by name, train first; where they are from; the benchmark's task that they are, where they are one."""

    tables: dict[str, Table]
    origin: Origin
    task: Task | None


def find_tables(source: str, only: str | None, revision: str | None) -> Found:
    """The splits of a source.

    Args:
        source: a folder, a file, or a Hub id with or without a configuration.
        only: the split that is wanted alone.
        revision: of a Hub id.

    Raises:
        DataError: nothing is there, or not the split that is wanted.
    """
    path = Path(source).expanduser()
    if path.exists() or path.suffix.lower() in SUFFIXES:
        found = _local(path, only)
    elif path.is_absolute() or source.startswith(("./", "../", "~")):
        raise DataError(f"data '{source}': there is no such file or folder")
    else:
        found = _on_the_hub(source, only, revision)
    wanted = only or "train"
    if wanted not in found.tables:
        raise DataError(f"data '{source}' has no split '{wanted}'; it has {', '.join(found.tables) or 'no data files'}")
    # Train says what the columns are.
    names = [wanted] if only else sorted(found.tables, key=lambda name: name != "train")
    return replace(found, tables={name: found.tables[name] for name in names})


def _local(path: Path, only: str | None) -> Found:
    if path.is_dir():
        parts, task = _folder_splits(path)
    else:
        parts = {only or "train": [path]}
        task = next((task for task in local_tasks(path.resolve().parent.name, [path]) if _fits(task, path)), None)
    tables = {
        name: Table(", ".join(map(str, own)), _prepared(_chain(own, task), task), _class_names(own[0], task))
        for name, own in parts.items()
    }
    return Found(tables, Origin(path.resolve().name), task)


def _folder_splits(folder: Path) -> tuple[dict[str, list[Path]], Task | None]:
    """Files of each split of a folder, and the task that they are of; several of one ending are shards of a split."""
    files = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES and path.is_file()]
    for task in local_tasks(folder.resolve().name, files):
        found = _by_split(files, task.splits, _SHARD) | _by_split(files, _SPLIT_NAMES, _SHARD)
        if found and _fits(task, found.get("train", next(iter(found.values())))[0]):
            _check_forms(folder, found, {**_SPLIT_NAMES, **task.splits})
            return found, task
    found = _by_split(files, _SPLIT_NAMES, _ANYTHING) | _by_split(files, _SPLIT_NAMES, _SHARD)
    if not found and len(files) == 1:
        return {"train": files}, None
    if not found and (folder / "data").is_dir():
        return _folder_splits(folder / "data")
    if not found:
        raise DataError(
            f"data '{folder}' holds no train file; expected train{', train'.join(SUFFIXES)}{_hint_at_tasks(folder)}"
        )
    _check_forms(folder, found, _SPLIT_NAMES)
    return found, None


def _hint_at_tasks(folder: Path) -> str:
    """Where a folder holds those of a benchmark's tasks."""
    own = [path.name for path in sorted(folder.iterdir()) if path.is_dir() and local_tasks(path.name, ())]
    return f". It holds folders of tasks; give one of them, such as '{folder / own[0]}'" if own else ""


def _check_forms(folder: Path, found: Mapping[str, Sequence[Path]], names: Mapping[str, str]) -> None:
    for name, parts in found.items():
        shards = all(re.search(r"\d", path.stem) and _match(path, names, _SHARD) for path in parts)
        if len(parts) > 1 and not (shards and len({path.suffix for path in parts}) == 1):
            raise DataError(
                f"data '{folder}' has split '{name}' in several forms: {', '.join(path.name for path in parts)}; "
                "leave one"
            )


def _by_split(files: Sequence[Path], names: Mapping[str, str], ending: str) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in files:
        match = _match(path, names, ending)
        if match:
            found.setdefault(names[match[1]], []).append(path)
    return found


def _match(path: Path, names: Mapping[str, str], ending: str) -> re.Match[str] | None:
    """The name of a split, in a group of its own, and behind it `ending`."""
    return re.fullmatch(f"({'|'.join(map(re.escape, names))}){ending}", path.stem.lower()) if names else None


def _fits(task: Task, path: Path) -> bool:
    """Whether a file's first row is the task's.

    Raises:
        DataError: it is, and no classification.
    """
    row = next(read_rows(path, task.reader(path)), None)
    if row is None or not task.fits(row):
        return False
    check(task, str(path))
    return True


def _class_names(path: Path, task: Task | None) -> dict[str, list[str]]:
    return read_class_names(path) if task is None else {task.label: [*task.labels]}


def _chain(parts: Sequence[Path], task: Task | None) -> Iterator[tuple[str, Row]]:
    for path in parts:
        for row in read_rows(path, task.reader(path) if task else None):
            yield str(path), row


def _prepared(rows: Iterable[tuple[str, Row]], task: Task | None) -> Iterator[tuple[str, Row]]:
    """Rows as the task has them; what it lacks by its nature is left out."""
    if task is None:
        yield from rows
        return
    left_out = 0
    for where, row in rows:
        try:
            for part in task.prepare(row):
                if task.gaps and task.lacks_a_part(part):
                    left_out += 1
                else:
                    yield where, part
        except DataError as err:
            raise DataError(f"{where}: {err}") from err
    if left_out:
        logger.warning("%s: %d rows that lack a text or a label are left out", task.source, left_out)


def _on_the_hub(source: str, only: str | None, revision: str | None) -> Found:
    """`name`, `owner/name`, `name/configuration`, `owner/name/configuration`, or a benchmark's task."""
    task, parts = named_task(source), source.split("/")
    repository, configuration = task.hub if task else ("/".join(parts[:2]), "/".join(parts[2:]) or None)
    origin = Origin(repository, True, configuration, revision)
    names = {**_SPLIT_NAMES, **(task.splits if task else {})}
    tables = {}
    for name, rows in _load_from_hub(source, origin).items():
        if name in names or name == only:
            where = f"{source}, split {name}"
            known = {column: found for column, feature in rows.features.items() if (found := _feature_names(feature))}
            class_names = {task.label: [*task.labels]} if task else known
            tables[names.get(name, name)] = Table(
                where, _prepared(zip(repeat(where), rows, strict=False), task), class_names
            )
    return Found(tables, origin, task)


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
