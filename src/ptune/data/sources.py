"""Find the splits of a folder, a file or a Hub data set. Their rows are read later, one at a time."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Any

from ptune.data.class_folders import find_classes, read_classes
from ptune.data.files import STANDARD_INPUT, DataFile, as_file, has_ending
from ptune.data.folders import SPLIT_NAMES, fits, folder_splits, has_split_files
from ptune.data.glue import TASKS, Task, local_tasks, named_task
from ptune.data.readers import Parsed, parse_rows, read_class_names
from ptune.data.saved import is_saved, load_saved
from ptune.data.splits import Origin
from ptune.errors import DataError
from ptune.hub import expanded, hint, is_there, mistyped, why
from ptune.places import as_place, is_url

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Table:
    """A split whose rows are yet to be read.

    where: where the split comes from, for error messages.
    rows: (file, row) for each row; the file is for error messages. In the place of a row that cannot be parsed stands
        the error.
    class_names: for columns of label indices, the label names in index order.
    """

    where: str
    rows: Iterable[tuple[str, Parsed]]
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
    if not source.strip():
        raise DataError("the name of the data is empty; give a file, a folder or a Hub id", field="data", value=source)
    if is_url(source) or source == STANDARD_INPUT or has_ending(source) or is_there(expanded(source)):
        if revision is not None:
            logger.warning("data '%s' are not on the Hub; their revision '%s' is ignored", source, revision)
        found = _find_files(source, only)
    elif expanded(source).is_absolute() or source.startswith(("./", "../", "~")) or source.endswith("/"):
        raise DataError(f"data '{source}': there is no such file or folder{hint(source)}")
    else:
        if revision is None and named_task(source) is None and (near := mistyped(source, "dataset")):
            raise DataError(
                f"data '{source}': there is no such file or folder; did you mean '{near}'? For the Hub's data set of "
                "this name, give its revision too: `data_revision='main'`"
            )
        found = _find_on_hub(source, only, revision)
    wanted = only or "train"
    if wanted not in found.tables:
        raise DataError(missing_split(source, wanted, found.tables, only))
    # Train comes first because it decides which columns the other splits must have.
    names = [wanted] if only else sorted(found.tables, key=lambda name: name != "train")
    return replace(found, tables={name: found.tables[name] for name in names})


def missing_split(name: str, wanted: str, there: Iterable[str], only: str | None) -> str:
    """Return the error message for data without the split `wanted`. `only`: None if the caller has asked for none."""
    names = ", ".join(there)
    choose = "; choose one of them with `split`" if only and names else ""
    return f"data '{name}' has no split '{wanted}'; it has {names or 'no data files'}{choose}"


def split_named(name: str) -> str | None:
    """Return the split that a name stands for, such as validation for dev; None for other names."""
    return SPLIT_NAMES.get(name.lower())


def check_whole(name: str, only: str | None) -> None:
    """Check the name of the split that data without splits are to be read as.

    Args:
        name: what the data are called.
        only: the name; None: train.

    Raises:
        DataError: splits do not have this name. It is a typing error, because data without splits are read as a whole.
    """
    known = {*SPLIT_NAMES, *(name for task in TASKS for name in (*task.splits, *task.splits.values()))}
    if only is None or only in known:
        return
    near = difflib.get_close_matches(only, known, n=1)
    raise DataError(
        f"data '{name}' has no splits and is read as a whole; `split` '{only}' is not the name of one"
        + (f" (did you mean '{near[0]}'?)" if near else "")
        + "; leave `split` out, or use train, validation or test",
        field="split",
        value=only,
        expected="train, validation or test",
    )


def _find_files(source: str, only: str | None) -> Found:
    """Return the splits of a file or a folder, on disk or behind a URL."""
    place = as_place(source)
    if source == STANDARD_INPUT or not place.is_dir():
        check_whole(source, only)
        file = as_file(source)
        folder = place.resolve().parent.name if isinstance(place, Path) else ""
        task = next((task for task in local_tasks(folder, [file]) if fits(task, file)), None)
        return Found(
            {only or "train": _file_table([file], task)},
            Origin(file.place.name if source != STANDARD_INPUT else file.name),
            task,
        )
    name = place.resolve().name if isinstance(place, Path) else place.name
    if is_saved(place):
        return Found(_split_tables(load_saved(place, only), source, SPLIT_NAMES, only), Origin(name), None)
    if not has_split_files(place) and (classes := find_classes(place)):
        if "" in classes:
            check_whole(source, only)
        tables = {
            split or only or "train": Table(where, read_classes(where, texts), {})
            for split, texts in classes.items()
            for where in [f"{source}, split {split}" if split else source]
        }
        return Found(tables, Origin(name), None)
    files, task = folder_splits(place, name)
    return Found({split: _file_table(parts, task) for split, parts in files.items()}, Origin(name), task)


def _file_table(files: Sequence[DataFile], task: Task | None) -> Table:
    for file in files:
        file.check()
    class_names = read_class_names(files[0]) if task is None else {task.label: [*task.labels]}
    return Table(", ".join(map(str, files)), _prepare(_read_files(files, task), task), class_names)


def _read_files(files: Sequence[DataFile], task: Task | None) -> Iterator[tuple[str, Parsed]]:
    for file in files:
        for row in parse_rows(file, task.reader(file) if task else None):
            yield str(file), row


def _prepare(rows: Iterable[tuple[str, Parsed]], task: Task | None) -> Iterator[tuple[str, Parsed]]:
    """Yield rows in the form that their task needs, without the incomplete rows that the task is known to have."""
    if task is None:
        yield from rows
        return
    skipped = 0
    for where, row in rows:
        if isinstance(row, DataError):
            yield where, row
            continue
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
    splits = {**SPLIT_NAMES, **(task.splits if task else {})}
    tables = _split_tables(_load_from_hub(source, origin), source, splits, only, task)
    return Found(tables, origin, task)


def _split_tables(
    rows_by_split: Mapping[str, Any],
    source: str,
    splits: Mapping[str, str],
    only: str | None,
    task: Task | None = None,
) -> dict[str, Table]:
    """Return the splits of a `DatasetDict`.

    Args:
        rows_by_split: the data sets by the names that they have there.
        source: the name of the data in messages.
        splits: for each name, the split that it stands for. Others are left out.
        only: also return the split of this name, even if it is not among `splits`.
        task: the benchmark's task that the data belong to.
    """
    tables = {}
    for name, rows in rows_by_split.items():
        if name in splits or name == only:
            where = f"{source}, split {name}"
            known = {column: names for column, feature in rows.features.items() if (names := feature_names(feature))}
            class_names = {task.label: [*task.labels]} if task else known
            tables[splits.get(name, name)] = Table(
                where, _prepare(zip(repeat(where), rows, strict=False), task), class_names
            )
    return tables


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
