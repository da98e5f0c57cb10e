"""Read rows from data files, one at a time: CSV, TSV, JSON Lines, JSON, Parquet, spreadsheets and plain text.

Files are streamed, so they may be larger than memory; only .json files and
spreadsheets are read at once. Rows are counted from 1, without the header, and
every error names the file and the row.
"""

from __future__ import annotations

import json
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from ptune.data.excel import read_sheet, read_sheet_header
from ptune.data.files import SUFFIXES, DataFile, as_file
from ptune.data.json_rows import read_json, read_json_lines
from ptune.data.tables import Row, read_header, read_plain_tsv, read_table
from ptune.errors import DataError
from ptune.places import Place

__all__ = ["SUFFIXES", "Row", "parse_rows", "read_class_names", "read_columns", "read_plain_tsv", "read_rows"]

Source = str | Place | DataFile
Parsed = Row | DataError
Reader = Callable[[DataFile], Iterator[Parsed]]


def read_rows(source: Source, reader: Reader | None = None) -> Iterator[Row]:
    """Yield the rows of a file as dictionaries, in order.

    Args:
        source: the data file.
        reader: the function that reads the file, such as `read_plain_tsv`; None: chosen by the file's ending.

    Raises:
        DataError: the file does not exist or cannot be read.
        DataError: the file's ending is unknown.
        DataError: the file's encoding cannot be told.
        DataError: a row cannot be parsed, or it does not fit the header.
    """
    for row in parse_rows(source, reader):
        if isinstance(row, DataError):
            raise row
        yield row


def parse_rows(source: Source, reader: Reader | None = None) -> Iterator[Parsed]:
    """Yield the rows of a file, and an error in the place of a row that cannot be parsed.

    Arguments and errors are those of `read_rows`, except for errors of single rows.
    """
    file = as_file(source)
    file.check()
    try:
        yield from (reader or _READERS[file.ending])(file)
    except (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile) as err:
        raise DataError(f"{file.where} is not a complete {file.compression} file: {err}") from err
    except NotImplementedError as err:  # of zipfile
        raise DataError(f"{file.where} is compressed in a way that Python cannot read; unpack it") from err
    except OSError as err:
        reason = " ".join(str(err.strerror or err).split())
        raise DataError(f"{file.where} cannot be read: {reason}") from err
    except UnicodeError as err:
        raise DataError(f"{file.where} is not {file.encoding.upper()} throughout: {err}") from err


def read_columns(source: Source) -> list[str]:
    """Return the column names of a data file, even if it has no rows.

    JSON Lines and JSON have column names only in their rows, so the list is empty for them.
    """
    file = as_file(source)
    if file.ending == ".parquet":
        import pyarrow.parquet as parquet

        with file.open() as content:
            return list(parquet.read_schema(content).names)
    return _COLUMNS[file.ending](file) if file.ending in _COLUMNS else []


def read_class_names(source: Source) -> dict[str, list[str]]:
    """Return the label names in a Parquet file's Hugging Face metadata, in index order, by column."""
    file = as_file(source)
    if file.ending != ".parquet":
        return {}
    import pyarrow.parquet as parquet

    try:
        with file.open() as content:
            metadata = parquet.read_schema(content).metadata or {}
        features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    except (OSError, EOFError, ValueError, AttributeError):
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


def _read_parquet(file: DataFile) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        with file.open() as content, parquet.ParquetFile(content) as table:
            for batch in table.iter_batches(batch_size=1024):
                yield from batch.to_pylist()
    except pyarrow.ArrowException as err:
        raise DataError(f"{file.where} is not a complete Parquet file: {str(err).splitlines()[0]}") from err


def _read_text(file: DataFile) -> Iterator[Row]:
    with file.open_text() as content:
        for line in content:
            yield {"text": line.rstrip("\r\n")}


_READERS: dict[str, Reader] = {
    ".csv": read_table,
    ".tsv": read_table,
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".json": read_json,
    ".parquet": _read_parquet,
    ".txt": _read_text,
    ".xlsx": read_sheet,
    ".xls": read_sheet,
    ".ods": read_sheet,
}
_COLUMNS: dict[str, Callable[[DataFile], list[str]]] = {
    ".csv": read_header,
    ".tsv": read_header,
    ".txt": lambda _: ["text"],
    ".xlsx": read_sheet_header,
    ".xls": read_sheet_header,
    ".ods": read_sheet_header,
}
