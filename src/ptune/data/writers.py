"""Write predicted rows to JSON Lines, CSV, TSV or Parquet files.

Rows are streamed, and a file gets its name only when it is complete.

A `Writer` takes the rows, the path, the label names, and a function that returns an empty row. The empty row gives a
table its columns if there are no rows.

In CSV, TSV and Parquet, the `scores` of a row become one column per label, `score_<label>`. In CSV and TSV, the
`labels` of a row are joined by "|", and other lists and objects are written as JSON.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import IO, TYPE_CHECKING, Any

from ptune.atomic import try_folder, written_file
from ptune.data.columns import kept_names
from ptune.data.readers import Row
from ptune.errors import ConfigError, DataError, printable, short
from ptune.places import Place

if TYPE_CHECKING:
    import pyarrow

Blank = Callable[[], Row]
Writer = Callable[[Iterable[Row], Place, Sequence[str], Blank], None]
_PARQUET_ROWS = 1024
LABEL_SEPARATOR = "|"


def check_output(path: Place) -> None:
    """Check that a file can be written, before any work is done. Nothing is left behind.

    Raises:
        ConfigError: the file's ending is unknown, or the path is a folder.
        OutputError: the folder cannot be created or written into.
    """
    open_writer(path)
    if path.is_dir():
        raise ConfigError(
            f"output '{path}' is a folder; give the name of a file",
            field="output",
            value=str(path),
            expected="the name of a file",
        )
    try_folder(path.parent)


def open_writer(path: Place) -> Writer:
    """Return the writer for a file's ending.

    Raises:
        ConfigError: the ending is unknown.
    """
    suffix = path.suffix.lower()
    if suffix not in _WRITERS:
        raise ConfigError(
            f"output '{path}': the ending '{suffix}' is unknown; use one of {', '.join(_WRITERS)}",
            field="output",
            value=str(path),
            expected=f"a file that ends in one of {', '.join(_WRITERS)}",
        )
    return _WRITERS[suffix]


def print_json_lines(rows: Iterable[Row], file: IO[Any]) -> None:
    """Write each row as a JSON object on a line of its own.

    NaN and infinities become null, because JSON has neither. Half a surrogate pair, and characters that would control
    a terminal, are written as JSON escapes.
    """
    for row in rows:
        line = to_json(row)
        try:
            file.write(printable(line) + "\n")
        except UnicodeEncodeError:
            file.write(json.dumps(json.loads(line)) + "\n")


def to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None) -> str:
    """Return a value as JSON, with null for every NaN and infinity."""
    try:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, default=str, allow_nan=False)
    except ValueError:
        return json.dumps(_with_nulls(value), ensure_ascii=ensure_ascii, indent=indent, default=str)


def _with_nulls(value: Any) -> Any:
    """Return a JSON value with None for every NaN and infinity."""
    if isinstance(value, dict):
        return {key: _with_nulls(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_nulls(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_json_lines(rows: Iterable[Row], path: Place, _labels: Sequence[str], _blank: Blank) -> None:
    with written_file(path) as file:
        print_json_lines(rows, file)


def _write_delimited(rows: Iterable[Row], path: Place, labels: Sequence[str], blank: Blank, delimiter: str) -> None:
    flat = (_as_text(_join_labels(row, path)) for row in _flatten(rows, path, labels))
    with _open_table(path) as file:
        first = next(flat, None)
        columns = list(first or next(_flatten([blank()], path, labels)))
        options: dict[str, Any] = {"delimiter": delimiter, "lineterminator": "\n", "restval": ""}
        writer = csv.DictWriter(file, columns, **options)
        quoted = csv.DictWriter(file, columns, quoting=csv.QUOTE_ALL, **options)
        writer.writeheader()
        for row in chain([first] if first else [], flat):
            # Before Python 3.13, csv does not put a field in quotation marks because of a single carriage return.
            (quoted if any("\r" in str(value) for value in row.values()) else writer).writerow(row)


def _as_text(row: Row) -> Row:
    """Return a row whose lists and objects are JSON."""
    return {name: to_json(value) if isinstance(value, (dict, list, tuple)) else value for name, value in row.items()}


@contextmanager
def _open_table(path: Place, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file as `written_file` does, for formats that cannot hold half a character.

    Raises:
        DataError: a value contains half a surrogate pair.
    """
    try:
        with written_file(path, mode) as file:
            yield file
    except UnicodeEncodeError as err:
        raise DataError(
            f"output '{path}': a column of the input contains half a character, such as \\ud800; write .jsonl, which "
            "can hold it"
        ) from err


def _join_labels(row: Row, path: Place) -> Row:
    """Return a row whose `labels` are one text, which can be read with `label_separator='|'`.

    Raises:
        DataError: a label contains the separator.
    """
    labels = row.get("labels")
    if not isinstance(labels, list):
        return row
    names = [*row, ""]
    if not names[names.index("labels") + 1].startswith("score"):  # a column of the input: scores follow a prediction
        return row
    if ambiguous := [label for label in labels if LABEL_SEPARATOR in str(label)]:
        raise DataError(
            f"output '{path}': label '{ambiguous[0]}' contains '{LABEL_SEPARATOR}', which separates labels in such a "
            "file; write .jsonl or .parquet"
        )
    return {**row, "labels": LABEL_SEPARATOR.join(map(str, labels))}


def write_parquet(
    rows: Iterable[Row],
    path: Place,
    labels: Sequence[str],
    blank: Blank,
    schema: pyarrow.Schema | None = None,
    source: Source | None = None,
) -> None:
    """Write rows to a Parquet file.

    Args:
        rows, path, labels, blank: as for every `Writer`.
        schema: the columns and their types. None: those of the first rows.
        source: where the rows come from, if they are a part of a larger table with this schema.

    Raises:
        DataError: a value does not go with the others of its column, or a row has a column that others do not have.
        OutputError: the file cannot be written.
    """
    import pyarrow
    import pyarrow.parquet as parquet

    flat = _flatten(rows, path, labels, None if schema is None else set(schema.names), source)
    with _open_table(path, "wb") as file, ExitStack() as stack:
        writer = None
        while group := list(islice(flat, _PARQUET_ROWS)):
            try:
                schema = schema or _schema_of(group, list(_flatten([blank()], path, labels)))
                _check_fractions(group, schema)  # pyarrow would cut them off without an error
                table = pyarrow.Table.from_pylist(group, schema=schema)
            except (pyarrow.ArrowException, TypeError, OverflowError) as err:
                raise _not_in_a_column(path, err, source) from err
            # The stack closes the writer in any case, while its file is still open.
            writer = writer or stack.enter_context(parquet.ParquetWriter(file, schema))
            writer.write_table(table)
        if writer is None:
            empty = list(_flatten([blank()], path, labels))
            stack.enter_context(parquet.ParquetWriter(file, schema or _schema_of(empty, empty)))


def parquet_schema(rows: Sequence[Row], path: Place, labels: Sequence[str], blank: Row) -> pyarrow.Schema:
    """Return the schema that `write_parquet` gives a file which begins with these rows.

    Raises:
        DataError: a column has values of several types.
    """
    import pyarrow

    empty = list(_flatten([blank], path, labels))
    try:
        return _schema_of(list(_flatten(rows[:_PARQUET_ROWS], path, labels)) or empty, empty)
    except (pyarrow.ArrowException, TypeError, OverflowError) as err:
        raise _not_in_a_column(path, err) from err


def _schema_of(rows: list[Row], empty: list[Row]) -> pyarrow.Schema:
    import pyarrow

    return _settle_schema(pyarrow.Table.from_pylist(rows).schema, pyarrow.Table.from_pylist(empty).schema)


def _not_in_a_column(path: Place, err: Exception, source: Source | None = None) -> DataError:
    reason = " ".join(str(err).split())
    if source is not None:
        return DataError(
            f"{source.where}: a column has values of another type than in the first file ({reason}); give all files "
            "the same types"
        )
    return DataError(
        f"output '{path}': a column has values of several types, or a value that Parquet cannot hold ({reason}); write "
        ".jsonl"
    )


def _check_fractions(rows: Sequence[Row], schema: Any) -> None:
    """Check that columns of whole numbers hold no fractions.

    Raises:
        TypeError: one does.
    """
    import pyarrow

    def loses(value: Any, data_type: Any) -> bool:
        if isinstance(value, float):
            return bool(pyarrow.types.is_integer(data_type)) and not value.is_integer()
        if isinstance(value, list) and pyarrow.types.is_list(data_type):
            return any(loses(item, data_type.value_type) for item in value)
        if isinstance(value, dict) and pyarrow.types.is_struct(data_type):
            return any(loses(value.get(inner.name), inner.type) for inner in data_type)
        return False

    for field in schema:
        for row in rows:
            value = row.get(field.name)
            if not isinstance(value, str) and loses(value, field.type):
                raise TypeError(f"column '{field.name}' began with whole numbers and now holds {short(value, 50)}")


def _settle_schema(schema: Any, empty: Any) -> Any:
    """Return a schema in which columns of unknown type have that of the empty row or, if it has none, hold text.

    The type is unknown if the first rows of a column have no values, or only empty lists.
    """
    import pyarrow

    def settle(data_type: Any) -> Any:
        if pyarrow.types.is_list(data_type):
            return pyarrow.list_(settle(data_type.value_type))
        return pyarrow.string() if pyarrow.types.is_null(data_type) else data_type

    def known(field: Any) -> Any:
        place = empty.get_field_index(field.name)
        return empty.field(place).type if pyarrow.types.is_null(field.type) and place >= 0 else field.type

    return pyarrow.schema([field.with_type(settle(known(field))) for field in schema])


@dataclass(frozen=True)
class Source:
    """Where the rows of a part of a table come from.

    where: the file, in words.
    before: number of its rows before these.
    """

    where: str
    before: int


def _flatten(
    rows: Iterable[Row],
    path: Place,
    labels: Sequence[str],
    columns: set[str] | None = None,
    source: Source | None = None,
) -> Iterator[Row]:
    """Yield rows for a table, with one column per label instead of `scores`, if there are labels.

    Args:
        rows, path, labels: as for every `Writer`.
        columns: the columns that the table has. None: those of the first row.
        source: see `write_parquet`.

    Raises:
        DataError: a row has a column that the table does not have.
    """
    names: dict[str, str] = {}
    for number, row in enumerate(rows, 1):
        by_label = row["scores"] or {} if labels else {}  # an answer of nulls has no scores
        scores = {f"score_{name}": by_label.get(name) for name in labels}
        names = kept_names(row, scores, names)
        flat = {names[name]: value for name, value in row.items() if not (scores and name == "scores")}
        flat |= scores
        columns = columns or set(flat)
        unknown = [name for name in flat if name not in columns]
        if unknown and source is not None:
            raise DataError(
                f"{source.where}, row {source.before + number} has column '{unknown[0]}', but the first file does not; "
                "give all files the same columns"
            )
        if unknown:
            raise DataError(
                f"output '{path}': row {number} has column '{unknown[0]}', but the first row does not, so the table "
                "cannot hold it; write .jsonl"
            )
        yield flat


_WRITERS: dict[str, Writer] = {
    ".jsonl": _write_json_lines,
    ".ndjson": _write_json_lines,
    ".csv": partial(_write_delimited, delimiter=","),
    ".tsv": partial(_write_delimited, delimiter="\t"),
    ".parquet": write_parquet,
}
