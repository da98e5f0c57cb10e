"""The files of a prediction on a cluster: those that are read, and the shards that are written.

Every file is read in blocks of so many rows, and each block gives one shard, whose name says which block it is. A shard
gets its name when it is complete. So a block that is computed again replaces its shard by the same, and a prediction
that was killed goes on with the shards that are missing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ptune.atomic import write_files
from ptune.data.files import DataFile, as_file, is_data_file
from ptune.data.readers import Row, read_rows
from ptune.errors import ConfigError, DataError
from ptune.inference.tally import Tally
from ptune.places import Place, as_place
from ptune.settings_file import parse_file

MANIFEST_FILE = "_predict.json"  # readers of Parquet folders skip names that begin with _
TALLY_KEY = b"ptune"  # of the counts of a shard, in its metadata
_SHARD = re.compile(r"\d{5,}-\d{6,}\.parquet")
# Rows of a block. A worker that is lost has at most so many to compute again.
BLOCK_ROWS = 8192


def list_files(source: str) -> list[DataFile]:
    """Return the data files that are meant by a file, or are anywhere in a folder, in the order of their names.

    Args:
        source: a path or a URL that fsspec knows.

    Raises:
        DataError: there is no such file, or the folder holds no data file.
    """
    place = as_place(source)
    if not place.is_dir():
        file = as_file(place)
        file.check()
        return [file]
    files = [DataFile(found) for found in _in_folder(place)]
    if not files:
        raise DataError(f"folder '{source}' holds no data files; give one with .csv, .jsonl or .parquet files")
    return files


def _in_folder(folder: Place) -> Iterator[Place]:
    places: list[Place] = sorted(folder.iterdir(), key=str)
    for place in places:
        if place.name.startswith((".", "_")):
            continue
        if place.is_dir():
            yield from _in_folder(place)
        elif is_data_file(place.name):
            yield place


def read_blocks(file: DataFile, size: int) -> Iterator[list[Row]]:
    """Yield the rows of a file, so many at a time. A file without rows gives one block without rows.

    Raises:
        DataError: the file or a row cannot be read.
    """
    rows = read_rows(file)
    block = list(islice(rows, size))
    yield block
    while block := list(islice(rows, size)):
        yield block


@dataclass(frozen=True)
class Shards:
    """The folder of the predictions.

    folder: where the shards go, a path or a URL.
    """

    folder: Place

    def path(self, file: int, block: int) -> Place:
        """Return the path of the shard for a block of a file, both counted from 0."""
        return self.folder / f"{file:05d}-{block:06d}.parquet"

    def finished(self) -> list[Place]:
        """Return the shards that are complete, in the order of the input."""
        places: list[Place] = sorted(self.folder.iterdir(), key=str) if self.folder.exists() else []
        return [place for place in places if _SHARD.fullmatch(place.name)]

    def tally(self) -> Tally | None:
        """Return the counts of all shards that are complete; None if there are none."""
        import pyarrow.parquet as parquet

        total: Tally | None = None
        for path in self.finished():
            with path.open("rb") as content:
                counts = Tally.from_json(parquet.read_schema(content).metadata[TALLY_KEY].decode())
            total = counts if total is None else total + counts
        return total

    def begin(self, facts: dict[str, Any], overwrite: bool) -> None:
        """Note what the shards depend on, after it has been compared with what an earlier command noted.

        Args:
            facts: everything that all shards have to share, as JSON can hold it.
            overwrite: whether predictions from something else may be deleted.

        Raises:
            ConfigError: the folder holds other files, or predictions from something else.
            OutputError: the folder cannot be written.
        """
        manifest = self.folder / MANIFEST_FILE
        if manifest.exists():
            before = parse_file(manifest, "file")
            if before == facts:
                return
            if not overwrite:
                changed = ", ".join(
                    sorted(name for name in facts.keys() | before if facts.get(name) != before.get(name))
                )
                raise ConfigError(
                    f"output '{self.folder}' holds predictions that were made with other settings ({changed}); give "
                    "another `output`, or `overwrite=True` to replace them",
                    field="output",
                    value=str(self.folder),
                )
            write_files(self.folder, {}, remove=[path.name for path in self.finished()])
        elif self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise ConfigError(
                f"output '{self.folder}' should be a new or empty folder for the shards of the prediction",
                field="output",
                value=str(self.folder),
            )
        write_files(self.folder, {MANIFEST_FILE: (json.dumps(facts, indent=2, ensure_ascii=False) + "\n").encode()})


def facts_of(files: list[DataFile]) -> list[list[Any]]:
    """Return the name, the size, and the time or version of each file, by which a changed one is noticed."""
    return [[file.name, *_stat(file.place)] for file in files]


def _stat(place: Place) -> list[int | str]:
    if not isinstance(place, Path):
        return [*place.parent.sizes([place.name]).get(place.name, ())]
    status = place.stat()
    return [status.st_size, status.st_mtime_ns]
