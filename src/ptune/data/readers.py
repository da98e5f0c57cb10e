"""Read rows from data files, one at a time: CSV, TSV, JSON Lines, JSON, Parquet and plain text.

Files are streamed, so they may be larger than memory; only .json files are
read at once. Rows are counted from 1, without the header, and every error names
the file and the row.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any

from ptune.errors import DataError

Row = dict[str, Any]
Reader = Callable[[Path], Iterator[Row]]

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".txt")


def read_rows(path: Path, reader: Reader | None = None) -> Iterator[Row]:
    """Yield the rows of a file as dictionaries, in order.

    Args:
        path: the data file.
        reader: the function that reads the file, such as `read_plain_tsv`; None: chosen by the file's ending.

    Raises:
        DataError: the file does not exist or cannot be read.
        DataError: the file's ending is unknown.
        DataError: the file is not UTF-8.
        DataError: a row cannot be parsed, or it does not fit the header.
    """
    suffix = path.suffix.lower()
    if not path.is_file():
        raise DataError(f"data file '{path}': there is no such file")
    if suffix not in SUFFIXES:
        raise DataError(f"data file '{path}': the ending '{suffix}' is unknown; use one of {', '.join(SUFFIXES)}")
    try:
        yield from (reader or _READERS[suffix])(path)
    except UnicodeDecodeError as err:
        raise DataError(
            f"data file '{path}' is not UTF-8: byte 0x{err.object[err.start]:02x} does not decode "
            f"({_place_of_bad_byte(path)}); convert it, for instance with iconv -t UTF-8"
        ) from err
    except OSError as err:
        reason = " ".join(str(err.strerror or err).split())
        raise DataError(f"data file '{path}' cannot be read: {reason}") from err


def read_columns(path: Path) -> list[str]:
    """Return the column names of a data file, even if it has no rows.

    JSON Lines and JSON have column names only in their rows, so the list is empty for them.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        import pyarrow.parquet as parquet

        return list(parquet.read_schema(path).names)
    if suffix in _TABLES:
        with _TABLES[suffix](path) as reader:
            return _read_header(path, reader)
    return ["text"] if suffix == ".txt" else []


def read_class_names(path: Path) -> dict[str, list[str]]:
    """Return the label names in a Parquet file's Hugging Face metadata, in index order, by column."""
    if path.suffix.lower() != ".parquet":
        return {}
    import pyarrow.parquet as parquet

    try:
        metadata = parquet.read_schema(path).metadata or {}
        features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    except (OSError, ValueError, AttributeError):
        return {}
    return {name: names for name, feature in features.items() if (names := _names_in(feature)) is not None}


def _names_in(feature: Any) -> list[str] | None:
    """Return the label names of a ClassLabel feature or of lists of it; None for other features."""
    while isinstance(feature, (dict, list)) and feature:
        if isinstance(feature, list):  # older files write a list of a feature like this
            feature = feature[0]
        elif isinstance(feature.get("names"), list):
            return feature["names"]
        else:
            feature = feature.get("feature")
    return None


@contextmanager
def _open_csv(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = file.readline()
        delimiter = ";" if "," not in header and ";" in header else ","
        file.seek(0)
        yield csv.reader(file, delimiter=delimiter, strict=True)


@contextmanager
def _open_tsv(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        quoting = _tsv_quoting(file)
    with path.open(encoding="utf-8-sig", newline="") as file:
        yield csv.reader(file, delimiter="\t", quoting=quoting)


def _tsv_quoting(file: Any) -> Any:
    """Return the csv module's quoting mode for a TSV file, judging by its content.

    Spreadsheets put fields in quotation marks. In GLUE's files, quotation marks are ordinary characters. The marks
    enclose fields if the whole file parses strictly that way, with the same number of fields in every row. It takes the
    whole file to decide: an open mark further down would swallow the rows up to the next mark.
    """
    csv.field_size_limit(sys.maxsize)
    try:
        widths = {len(fields) for fields in csv.reader(file, delimiter="\t", strict=True) if fields}
    except csv.Error:
        return csv.QUOTE_NONE
    return csv.QUOTE_MINIMAL if len(widths) == 1 else csv.QUOTE_NONE


@contextmanager
def _open_plain_tsv(path: Path) -> Iterator[Any]:
    csv.field_size_limit(sys.maxsize)
    with path.open(encoding="utf-8-sig", newline="") as file:
        yield csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)


def read_plain_tsv(path: Path, names: Sequence[str] = (), gaps: bool = False) -> Iterator[Row]:
    """Yield the rows of a tab-separated file in which quotation marks are ordinary characters.

    Args:
        path: the data file.
        names: column names for a file without a header. A first line that contains any of them is a header.
        gaps: whether rows may have too few fields. The missing values are None.

    Raises:
        DataError: a row does not fit the header.
    """
    with _open_plain_tsv(path) as reader:
        has_no_header = bool(names) and not {*names} & {*next(reader, names)}
    with _open_plain_tsv(path) as reader:
        yield from _table_rows(path, reader, names if has_no_header else None, gaps)


def _read_table(path: Path) -> Iterator[Row]:
    with _TABLES[path.suffix.lower()](path) as reader:
        yield from _table_rows(path, reader)


def _table_rows(path: Path, reader: Any, names: Sequence[str] | None = None, gaps: bool = False) -> Iterator[Row]:
    """Yield the rows of an open table. `names` are its columns; None: the first line is the header."""
    csv.field_size_limit(sys.maxsize)
    number = 0
    try:
        names = names or _read_header(path, reader)
        for fields in reader:
            if not fields:
                continue
            number += 1
            if len(fields) != len(names) and not (gaps and len(fields) < len(names)):
                unquoted = reader.dialect.quoting == csv.QUOTE_NONE
                raise DataError(
                    f"data file '{path}', row {number} (line {reader.line_num}): {len(fields)} fields, but the "
                    f"header has {len(names)} ({', '.join(names)}); "
                    + ("remove tabs from fields" if unquoted else "put fields with separators in quotation marks")
                )
            yield dict(zip_longest(names, fields))
    except csv.Error as err:
        raise DataError(f"data file '{path}', row {number + 1} (line {reader.line_num}): {err}") from err


def _read_header(path: Path, reader: Any) -> list[str]:
    header = next(reader, None)
    if not header or not any(name.strip() for name in header):
        raise DataError(f"data file '{path}' is empty; its first line must name the columns")
    names = [name.strip() for name in header]
    if len(set(names)) < len(names):
        raise DataError(f"data file '{path}': a column name occurs twice in the header: {', '.join(names)}")
    return names


def _read_json_lines(path: Path) -> Iterator[Row]:
    number = 0
    with path.open(encoding="utf-8-sig") as file:
        for line in file:
            if line.strip():
                number += 1
                yield _json_object(path, number, line)


def _json_object(path: Path, number: int, line: str) -> Row:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as err:
        raise DataError(f"data file '{path}', row {number}: not JSON: {err}") from err
    if not isinstance(row, dict):
        raise DataError(
            f"data file '{path}', row {number}: expected an object like {{\"text\": ...}}, got {line.strip()[:40]}"
        )
    return row


def _read_json(path: Path) -> Iterator[Row]:
    text = path.read_text(encoding="utf-8-sig")
    if not text.lstrip().startswith("["):  # many .json files are in fact JSON Lines
        yield from _read_json_lines(path)
        return
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as err:
        raise DataError(f"data file '{path}': not JSON: {err}") from err
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise DataError(f"data file '{path}', row {number}: expected an object like {{\"text\": ...}}")
        yield row


def _read_parquet(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                yield from batch.to_pylist()
    except pyarrow.ArrowException as err:
        raise DataError(f"data file '{path}' is not a complete Parquet file: {str(err).splitlines()[0]}") from err


def _read_text(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as file:
        for line in file:
            yield {"text": line.rstrip("\r\n")}


def _place_of_bad_byte(path: Path) -> str:
    """Return the line and the byte of the first thing that is not UTF-8.

    The file is read again for this, because the decoder knows the position only within its buffer.
    """
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as err:
                return f"line {number}, byte {offset + err.start + 1} of the file"
            offset += len(line)
    return "in the middle of a character"


_TABLES = {".csv": _open_csv, ".tsv": _open_tsv}
_READERS = {
    ".csv": _read_table,
    ".tsv": _read_table,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".json": _read_json,
    ".parquet": _read_parquet,
    ".txt": _read_text,
}
