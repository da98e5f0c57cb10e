"""Predicted rows to files: JSON Lines, CSV, TSV, Parquet. Streamed, and named only when whole.

A writer takes the rows, the file, the labels, and what gives a row with nothing in it: where there are no rows, a
table still has columns.

In CSV, TSV and Parquet the `scores` of a row become a column a label, `score_<label>`. In CSV and TSV the
`labels` of a row that may have several are parted by "|".
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

from ptune.atomic import make_folder, written_file
from ptune.data.columns import kept_names
from ptune.data.readers import Row
from ptune.errors import ConfigError, DataError

Blank = Callable[[], Row]
Writer = Callable[[Iterable[Row], Path, Sequence[str], Blank], None]
_PARQUET_ROWS = 1024
LABEL_SEPARATOR = "|"


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
    """One JSON object a line. What is not a number becomes null, and half a character its escape, as JSON has it."""
    for row in rows:
        try:
            line = json.dumps(row, ensure_ascii=False, default=str, allow_nan=False)
        except ValueError:
            line = json.dumps(_with_nulls(row), ensure_ascii=False, default=str)
        try:
            file.write(line + "\n")
        except UnicodeEncodeError:
            file.write(json.dumps(json.loads(line)) + "\n")


def _with_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_nulls(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_nulls(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_json_lines(rows: Iterable[Row], path: Path, _labels: Sequence[str], _blank: Blank) -> None:
    with written_file(path) as file:
        print_json_lines(rows, file)


def _write_delimited(rows: Iterable[Row], path: Path, labels: Sequence[str], blank: Blank, delimiter: str) -> None:
    flat = (_in_cells(row, path) for row in _flat(rows, path, labels))
    with _table(path) as file:
        first = next(flat, None)
        columns = list(first or next(_flat([blank()], path, labels)))
        options: dict[str, Any] = {"delimiter": delimiter, "lineterminator": "\n", "restval": ""}
        writer = csv.DictWriter(file, columns, **options)
        quoted = csv.DictWriter(file, columns, quoting=csv.QUOTE_ALL, **options)
        writer.writeheader()
        for row in chain([first] if first else [], flat):
            # Before Python 3.13 a lone carriage return is not put in quotation marks by itself.
            (quoted if any("\r" in str(value) for value in row.values()) else writer).writerow(row)


@contextmanager
def _table(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """`written_file`, for formats that hold whole characters only."""
    try:
        with written_file(path, mode) as file:
            yield file
    except UnicodeEncodeError as err:
        raise DataError(
            f"output '{path}': a column of the input holds half a character, such as \\ud800; write .jsonl, which may"
        ) from err


def _in_cells(row: Row, path: Path) -> Row:
    """With several labels as one text, as `label_separator='|'` reads them."""
    labels = row.get("labels")
    if not isinstance(labels, list):
        return row
    if parted := [label for label in labels if LABEL_SEPARATOR in str(label)]:
        raise DataError(
            f"output '{path}': label '{parted[0]}' holds '{LABEL_SEPARATOR}', which stands between labels there; write "
            ".jsonl or .parquet"
        )
    return {**row, "labels": LABEL_SEPARATOR.join(map(str, labels))}


def _write_parquet(rows: Iterable[Row], path: Path, labels: Sequence[str], blank: Blank) -> None:
    import pyarrow
    import pyarrow.parquet as parquet

    flat = _flat(rows, path, labels)
    with _table(path, "wb") as file, ExitStack() as stack:
        writer = None
        schema = None
        while part := list(islice(flat, _PARQUET_ROWS)):
            try:
                schema = schema or _schema(pyarrow.Table.from_pylist(part).schema)
                table = pyarrow.Table.from_pylist(part, schema=schema)
            except (pyarrow.ArrowException, TypeError, OverflowError) as err:
                reason = " ".join(str(err).split())
                raise DataError(
                    f"output '{path}': a column holds several kinds of values, or one that Parquet has no place for "
                    f"({reason}); write .jsonl"
                ) from err
            # Closed whatever happens, while its file still is open.
            writer = writer or stack.enter_context(parquet.ParquetWriter(file, schema))
            writer.write_table(table)
        if writer is None:
            schema = _schema(pyarrow.Table.from_pylist(list(_flat([blank()], path, labels))).schema)
            stack.enter_context(parquet.ParquetWriter(file, schema))


def _schema(schema: Any) -> Any:
    """With text where the first rows of a column, or their lists, hold nothing that would tell its kind."""
    import pyarrow

    def settled(kind: Any) -> Any:
        if pyarrow.types.is_list(kind):
            return pyarrow.list_(settled(kind.value_type))
        return pyarrow.string() if pyarrow.types.is_null(kind) else kind

    return pyarrow.schema([field.with_type(settled(field.type)) for field in schema])


def _flat(rows: Iterable[Row], path: Path, labels: Sequence[str]) -> Iterator[Row]:
    """Rows of a table: scores, where there are labels, in columns; columns as the first row has them."""
    columns: set[str] | None = None
    for number, row in enumerate(rows, 1):
        scores = {f"score_{name}": row["scores"][name] for name in labels}
        flat = {new: row[name] for name, new in kept_names(row, scores).items() if not (scores and name == "scores")}
        flat |= scores
        columns = columns or set(flat)
        if surplus := [name for name in flat if name not in columns]:
            raise DataError(
                f"output '{path}': row {number} has column '{surplus[0]}', which the first row has not, so the table "
                "has no place for it; write .jsonl"
            )
        yield flat


_WRITERS: dict[str, Writer] = {
    ".jsonl": _write_json_lines,
    ".ndjson": _write_json_lines,
    ".csv": partial(_write_delimited, delimiter=","),
    ".tsv": partial(_write_delimited, delimiter="\t"),
    ".parquet": _write_parquet,
}
