"""Find the splits of a folder by the names of its files and folders.

The names that count, the best first: train.csv and its shards (train-00000-of-00002.csv, train_part1.csv), a folder
train with files in it, names that begin with a split (train_data.csv), and names that end with one
(twitter_training.csv).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ptune.data.files import SUFFIXES, DataFile, is_data_file
from ptune.data.glue import Task, check, local_tasks
from ptune.data.readers import read_rows
from ptune.errors import DataError
from ptune.places import Place

SPLIT_NAMES = {"train": "train", "training": "train"}
SPLIT_NAMES |= {"validation": "validation", "valid": "validation", "val": "validation", "dev": "validation"}
SPLIT_NAMES |= {"eval": "validation", "test": "test", "testing": "test"}
# What may follow the name of a split: nothing (train.csv), or the number of a shard (train-1.csv, train_part02.csv,
# train-00000-of-00002.parquet), with or without a hash.
_SHARD = r"([-_. ]?(part|shard|chunk|file)?[-_. ]?\d+([-_]of[-_]\d+)?(-[0-9a-f]{8,})?)?"
# Anything else (train_data.csv, dev-en.tsv), or something in front of the name (twitter_training.csv). Such a file is
# used only if its split has no better one.
_ANYTHING = r"[-_. ].*"
_BEFORE = r".*[-_. ]"

Splits = dict[str, list[DataFile]]


def visible(folder: Place) -> list[Place]:
    """Return what a folder holds, in the order of the names, without hidden files.

    Raises:
        DataError: the folder cannot be read.
    """
    try:
        return sorted((path for path in folder.iterdir() if not path.name.startswith(".")), key=lambda path: path.name)
    except OSError as err:
        raise DataError(f"folder '{folder}' cannot be read: {err.strerror or err}") from err


def folder_splits(folder: Place, name: str) -> tuple[Splits, Task | None]:
    """Return the files of each split of a folder, and the task that they belong to. A split may have several files.

    Args:
        folder: the folder.
        name: what the folder is called, which may be that of a task.

    Raises:
        DataError: the folder has no train file, or several files of a split that are not shards.
    """
    files = [DataFile(path) for path in visible(folder) if is_data_file(path.name) and path.is_file()]
    for task in local_tasks(name, files):
        splits = _by_split(files, task.splits, _SHARD) | _by_split(files, SPLIT_NAMES, _SHARD)
        if splits and fits(task, splits.get("train", next(iter(splits.values())))[0]):
            _check_shards(folder, splits, {**SPLIT_NAMES, **task.splits})
            return splits, task
    splits = {
        **_by_split(files, SPLIT_NAMES, _SHARD, _BEFORE),
        **_by_split(files, SPLIT_NAMES, _ANYTHING),
        **_by_split(files, SPLIT_NAMES, _SHARD),
    }
    _check_shards(folder, splits, SPLIT_NAMES)
    splits = {**_inner_splits(folder), **splits}
    if not splits and len(files) == 1:
        return {"train": files}, None
    if not splits and (folder / "data").is_dir():
        return folder_splits(folder / "data", name)
    if not splits:
        raise DataError(
            f"data '{folder}' has no train file; expected train{', train'.join(SUFFIXES)}, or a folder of .txt files "
            f"for each label{_hint_at_tasks(folder)}"
        )
    return splits, None


def has_split_files(folder: Place) -> bool:
    """Return whether a folder holds a data file with the name of a split."""
    files = [DataFile(path) for path in visible(folder) if is_data_file(path.name)]
    return any(_match(file, SPLIT_NAMES, _ANYTHING) or _match(file, SPLIT_NAMES, _SHARD) for file in files)


def fits(task: Task, file: DataFile) -> bool:
    """Return whether the first row of a file belongs to a task.

    Raises:
        DataError: it does, but the task cannot be learned.
    """
    row = next(read_rows(file, task.reader(file)), None)
    if row is None or not task.fits(row):
        return False
    check(task, str(file))
    return True


def _inner_splits(folder: Place) -> Splits:
    """Return the files in folders with the names of splits, such as train/a.csv and train/b.csv.

    Raises:
        DataError: the files of such a folder are not of one format.
    """
    splits: Splits = {}
    for inner in visible(folder):
        split = SPLIT_NAMES.get(inner.name.lower())
        if split is None or not inner.is_dir():
            continue
        files = [DataFile(path) for path in visible(inner) if is_data_file(path.name) and path.is_file()]
        if len({file.ending for file in files}) > 1:
            raise DataError(f"data '{inner}' has files of several formats: {_names(files)}; keep those of one")
        if files:
            splits.setdefault(split, []).extend(files)
    return splits


def _hint_at_tasks(folder: Place) -> str:
    """Return a hint for an error message if a folder contains folders of a benchmark's tasks."""
    tasks = [path.name for path in visible(folder) if local_tasks(path.name, ()) and path.is_dir()]
    return f". It contains folders of tasks; give one of them, such as '{folder / tasks[0]}'" if tasks else ""


def _check_shards(folder: Place, splits: Splits, names: Mapping[str, str]) -> None:
    """Check that a split with several files has only numbered shards of one format.

    Raises:
        DataError: the files are not shards.
    """
    for split, files in splits.items():
        numbered = all(
            re.search(r"\d", file.stem) and (_match(file, names, _SHARD) or _match(file, names, _SHARD, _BEFORE))
            for file in files
        )
        if len(files) > 1 and not (numbered and len({file.ending for file in files}) == 1):
            raise DataError(
                f"data '{folder}' has several files for split '{split}' that are not shards: {_names(files)}; keep one"
            )


def _by_split(files: Sequence[DataFile], names: Mapping[str, str], ending: str, beginning: str = "") -> Splits:
    """Return files by split.

    Args:
        files: the files of a folder.
        names: for each name that a file may have in it, the split that it stands for.
        ending: a pattern of what may follow that name.
        beginning: a pattern of what has to stand in front of it.
    """
    splits: Splits = {}
    for file in files:
        match = _match(file, names, ending, beginning)
        if match:
            splits.setdefault(names[match["split"]], []).append(file)
    return splits


def _match(file: DataFile, names: Mapping[str, str], ending: str, beginning: str = "") -> re.Match[str] | None:
    """Match a file's name against one of `names`, which is the group `split`, between `beginning` and `ending`."""
    alternatives = "|".join(map(re.escape, names))
    return re.fullmatch(f"{beginning}(?P<split>{alternatives}){ending}", file.stem.lower()) if names else None


def _names(files: Sequence[DataFile]) -> str:
    return ", ".join(file.place.name for file in files)
