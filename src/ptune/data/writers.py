"""Predicted rows to files: JSON Lines, CSV, TSV, Parquet. Streamed, and named only when whole.

In CSV, TSV and Parquet the `scores` of a row become a column a label, `score_<label>`.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any, cast

from ptune.atomic import make_folder, written_file
from ptune.data.files import Row
from ptune.errors import ConfigError

Writer = Callable[[Iterable[Row], Path, Sequence[str]], None]
_PARQUET_ROWS = 1024


def check_output(path: Path) -> None:
    """Fail early: an unknown ending, or a folder that cannot be written into.

    Raises:
        ConfigError: the ending is not known. OutputError: the folder is missing rights.
    """
    open_writer(path)
    if path.is_dir():
        raise ConfigError(f"output '{path}' is a folder; give the name of a file")
    make_folder(path.parent)


def open_writer(path: Path) -> Writer:
    """The writer for a file's ending."""
    kind = path.suffix.lower()
    if kind not in _WRITERS:
        raise ConfigError(f"output '{path}': the ending '{kind}' is not known; use one of {', '.join(_WRITERS)}")
    return _WRITERS[kind]


def print_json_lines(rows: Iterable[Row], file: IO[Any]) -> None:
    """One JSON object a line."""
    for row in rows:
        file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")


def _write_json_lines(rows: Iterable[Row], path: Path, _labels: Sequence[str]) -> None:
    with written_file(path) as file:
        print_json_lines(rows, file)


def _write_csv(rows: Iterable[Row], path: Path, labels: Sequence[str]) -> None:
    _write_delimited(rows, path, labels, ",")


def _write_tsv(rows: Iterable[Row], path: Path, labels: Sequence[str]) -> None:
    _write_delimited(rows, path, labels, "\t")


def _write_delimited(rows: Iterable[Row], path: Path, labels: Sequence[str], delimiter: str) -> None:
    with written_file(path) as file:
        writer: csv.DictWriter[str] | None = None
        for row in _flat(rows, labels):
            if writer is None:
                writer = csv.DictWriter(
                    cast("IO[str]", file), list(row), delimiter=delimiter, lineterminator="\n", restval=""
                )
                writer.writeheader()
            writer.writerow(row)


def _write_parquet(rows: Iterable[Row], path: Path, labels: Sequence[str]) -> None:
    import pyarrow
    import pyarrow.parquet as parquet

    flat = _flat(rows, labels)
    with written_file(path, "wb") as file:
        writer = None
        while part := list(islice(flat, _PARQUET_ROWS)):
            table = pyarrow.Table.from_pylist(part, schema=writer.schema if writer else None)
            writer = writer or parquet.ParquetWriter(file, table.schema)
            writer.write_table(table)
        if writer is None:
            writer = parquet.ParquetWriter(file, pyarrow.schema([]))
        writer.close()


def _flat(rows: Iterable[Row], labels: Sequence[str]) -> Iterator[Row]:
    for row in rows:
        scores = row["scores"]
        yield {k: v for k, v in row.items() if k != "scores"} | {f"score_{name}": scores[name] for name in labels}


_WRITERS: dict[str, Writer] = {
    ".jsonl": _write_json_lines,
    ".ndjson": _write_json_lines,
    ".csv": _write_csv,
    ".tsv": _write_tsv,
    ".parquet": _write_parquet,
}
