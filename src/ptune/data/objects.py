"""Read data that are in memory: data frames, data sets, lists, dicts and arrays.

`find_in_memory` gives the splits of such an object, as `find_tables` does for
files. `as_texts` gives the texts to predict. pandas, Polars and datasets are
recognised without importing them: whoever has such an object has imported them.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import repeat
from typing import Any

import numpy as np

from ptune.data.columns import Columns
from ptune.data.folders import SPLIT_NAMES
from ptune.data.readers import Row
from ptune.data.sources import Found, Table, check_whole, feature_names, missing_split, split_named
from ptune.data.texts import Text
from ptune.errors import DataError

_FORMS = (
    "a file, a folder, a Hub id, a pandas or Polars DataFrame, a datasets.Dataset or DatasetDict, a list of dicts, "
    "a dict of lists, or a tuple (texts, labels)"
)
_TEXT_FORMS = "a text, a pair (text, text_pair), a list, array or Series of texts, or a table with a column of texts"


def is_place(source: Any) -> bool:
    """Return whether a source is a path or a Hub id, and not an object in memory."""
    return isinstance(source, (str, os.PathLike))


def name_of(source: Any) -> str:
    """Return the name of a source for messages: the path or the Hub id, or the type of an object."""
    return str(source) if is_place(source) else type(source).__name__


def find_in_memory(source: Any, only: str | None) -> Found:
    """Return the splits of an object.

    Args:
        source: a pandas or Polars DataFrame, or another table with Arrow's interface; a datasets.Dataset; a list of
            dicts; a dict of lists; a tuple (texts, labels) of two lists, arrays or Series; or a mapping of the splits
            train, validation and test to any of these, such as a DatasetDict.
        only: return only this split; None: all splits, which must include train. An object without splits is this one.

    Raises:
        DataError: the object is something else, or does not have the split.
    """
    name = name_of(source)
    if not _has_splits(source):
        check_whole(name, only)
        return Found({only or "train": _table(source, name)}, None, None)
    tables: dict[str, Table] = {}
    for key, rows in source.items():
        split = split_named(str(key)) or str(key)
        if split in tables:
            raise DataError(f"data '{name}' has several splits for {split}: {', '.join(map(str, source))}; keep one")
        if key == only or split in (("train", "validation", "test") if only is None else (only,)):
            tables[split] = _table(rows, f"{name}, split {key}")
    wanted = only or "train"
    if wanted not in tables:
        raise DataError(missing_split(name, wanted, map(str, source), only))
    names = [wanted] if only else sorted(tables, key=lambda split: split != "train")
    return Found({split: tables[split] for split in names}, None, None)


def _has_splits(source: Any) -> bool:
    """Return whether an object maps names of splits to tables."""
    if _is(source, "datasets", "DatasetDict", "IterableDatasetDict"):
        return True
    return (
        isinstance(source, Mapping)
        and bool(source)
        and all(isinstance(key, str) and split_named(key) for key in source)
        and all(map(_is_split, source.values()))
    )


def _is_split(rows: Any) -> bool:
    """Return whether a value of a mapping can be the rows of a split."""
    return is_table(rows) or isinstance(rows, tuple)


def _table(source: Any, where: str) -> Table:
    """Return the rows of an object that has no splits."""
    class_names: dict[str, list[str]] = {}
    if _is(source, "datasets", "Dataset", "IterableDataset"):
        features = source.features or {}
        class_names = {column: names for column, feature in features.items() if (names := feature_names(feature))}
    if isinstance(source, tuple):
        rows: Iterable[Row] = _rows_of_columns(_labelled(source, where), where)
    elif is_table(source):
        rows = rows_of(source, where)
    else:
        raise DataError(_refusal(source, where))
    return Table(where, zip(repeat(where), rows, strict=False), class_names)


def _refusal(source: Any, where: str) -> str:
    """Say in one line why an object cannot be read, and what to give."""
    if isinstance(source, Iterator):
        return f"data '{where}' can be read only once; give a list: list(rows)"
    if _is_column(source) or isinstance(source, list):
        first = next(iter(source), None)
        if isinstance(first, (tuple, list)) and len(first) == 2:
            return f"data '{where}' holds rows without column names; give a tuple (texts, labels): tuple(zip(*rows))"
        return f"data '{where}' has no labels; give a tuple (texts, labels), or a table with a column for each"
    if isinstance(source, Mapping) and source and all(_is_split(rows) for rows in source.values()):
        wrong = next(str(key) for key in source if not split_named(str(key)))
        near = difflib.get_close_matches(wrong, SPLIT_NAMES, n=1)
        return (
            f"data '{where}' has splits, but '{wrong}' is not the name of one"
            + (f" (did you mean '{near[0]}'?)" if near else "")
            + "; use train, validation and test"
        )
    if isinstance(source, Mapping):
        return f"data '{where}' is not a dict of columns: every value has to be a list, an array or a Series of cells"
    return f"data of type '{where}' cannot be read; give {_FORMS}"


def _labelled(source: tuple[Any, ...], where: str) -> dict[str, Any]:
    """Return the columns of a tuple (texts, labels)."""
    if len(source) != 2 or not all(_is_column(part) or isinstance(part, (list, tuple)) for part in source):
        kinds = ", ".join(type(part).__name__ for part in source)
        raise DataError(
            f"data '{where}' is ({kinds}); a tuple (texts, labels) of two lists, arrays or Series is expected"
        )
    texts, labels = (_cells(part) for part in source)
    if len(texts) != len(labels):
        raise DataError(f"data '{where}' has {len(texts)} texts and {len(labels)} labels; give one label for each text")
    if not texts or not isinstance(texts[0], (tuple, list)):
        return {"text": texts, "label": labels}
    for number, pair in enumerate(texts, 1):
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise DataError(
                f"{where}, row {number}: a pair of two texts is expected, as in the first row, not {pair!r:.60}"
            )
    return {"text": [pair[0] for pair in texts], "text_pair": [pair[1] for pair in texts], "label": labels}


def rows_of(source: Any, where: str) -> Iterable[Row]:
    """Return the rows of a table as dicts of plain Python values. Missing values are None.

    Raises:
        DataError: columns are not of the same length, or two of them have the same name.
    """
    if _is(source, "datasets", "Dataset", "IterableDataset"):
        return source.with_format(None)
    if _is(source, "pandas", "DataFrame"):
        names = [str(name) for name in source.columns]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise DataError(f"{where}: column '{twice}' occurs twice; rename one of them")
        return _rows_of_columns({name: source.iloc[:, index] for index, name in enumerate(names)}, where)
    if isinstance(source, Mapping):
        return _rows_of_columns(source, where)
    if isinstance(source, list):
        return _checked_rows(source, where)
    if _is(source, "polars", "LazyFrame"):
        source = source.collect()
    if _is(source, "polars", "DataFrame"):
        return source.iter_rows(named=True)
    import pyarrow

    return pyarrow.table(source).to_pylist()


def _checked_rows(rows: list[Any], where: str) -> Iterator[Row]:
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Mapping):
            raise DataError(
                f"{where}, row {number}: a {type(row).__name__}, where a dict is expected as in the first row"
            )
        yield {str(name): plain_value(value) for name, value in row.items()}


def _rows_of_columns(columns: Mapping[Any, Any], where: str) -> Iterator[Row]:
    cells = {str(name): _cells(column) for name, column in columns.items()}
    if len({len(column) for column in cells.values()}) > 1:
        sizes = ", ".join(f"{name} {len(column)}" for name, column in cells.items())
        raise DataError(f"{where}: the columns are not of the same length ({sizes}); give one value for each row")
    return (dict(zip(cells, row, strict=True)) for row in zip(*cells.values(), strict=True))


def _cells(column: Any) -> list[Any]:
    """Return the cells of a list, an array or a Series as plain Python values."""
    for convert in ("tolist", "to_list", "to_pylist"):
        if hasattr(column, convert):
            return [plain_value(value) for value in getattr(column, convert)()]
    return [plain_value(value) for value in column]


def plain_value(value: Any) -> Any:
    """Return a cell as a plain Python value: no scalar or array of NumPy, and None for every kind of missing value."""
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    if isinstance(value, (set, frozenset)):  # its order would differ from process to process
        value = sorted(value, key=str)
    not_a_number = isinstance(value, float) and value != value
    return None if not_a_number or type(value).__name__ in ("NAType", "NaTType") else value


def is_table(source: Any) -> bool:
    """Return whether an object consists of rows with named columns."""
    if _is(source, "pandas", "DataFrame") or _is(source, "datasets", "Dataset", "IterableDataset"):
        return True
    if isinstance(source, Mapping):
        return bool(source) and all(
            isinstance(column, (list, tuple)) or _is_column(column) for column in source.values()
        )
    if isinstance(source, list):
        return not source or isinstance(source[0], Mapping)
    if _is(source, "polars", "LazyFrame"):  # asking it for its columns would read the data
        return True
    # A Series has Arrow's interface too, but no columns.
    return hasattr(source, "__arrow_c_stream__") and (hasattr(source, "columns") or hasattr(source, "column_names"))


def _is_column(source: Any) -> bool:
    """Return whether an object is an array or a Series, or a column of a data set or of an Arrow table."""
    return (
        isinstance(source, np.ndarray)
        or _is(source, "pandas", "Series", "Index")
        or _is(source, "polars", "Series")
        or _is(source, "datasets", "Column")
        or _is(source, "pyarrow", "Array", "ChunkedArray")
        or _is(source, "pandas.api.extensions", "ExtensionArray")
    )


def _is(source: Any, module: str, *names: str) -> bool:
    """Return whether an object is of one of the classes of a library, without importing the library."""
    library = sys.modules.get(module)
    classes = tuple(kind for name in names if isinstance(kind := getattr(library, name, None), type))
    return isinstance(source, classes)


def as_texts(source: Any, choose: Callable[[list[str], str], Columns]) -> Iterable[Text]:
    """Return the texts or pairs of anything that holds texts. The texts themselves are not checked.

    Args:
        source: a text, a pair, an iterable of either, an array or Series of texts, an array of two columns for pairs,
            or a table: a DataFrame, a Dataset, a dict of lists, a list of dicts, or a single dict for one row.
        choose: returns the columns of text and pair, given the names of the columns and what the table is called.

    Raises:
        DataError: the object holds no texts; the message says what it is and what to give.
    """
    name = name_of(source)
    if isinstance(source, (str, tuple)):
        return [source]  # type: ignore[list-item]
    if _is(source, "datasets", "DatasetDict", "IterableDatasetDict"):
        splits = list(source)
        raise DataError(
            f"texts of type '{name}' have splits ({', '.join(splits)}); give one, such as data['{splits[0]}']"
        )
    if isinstance(source, Mapping) and source and all(isinstance(value, str) for value in source.values()):
        source = [source]
    if isinstance(source, list) and not source:
        return []
    if is_table(source):
        return _texts_of_rows(rows_of(source, name), choose, name)
    if _is_column(source):
        if getattr(source, "ndim", 1) > 2 or (getattr(source, "ndim", 1) == 2 and source.shape[1] != 2):
            raise DataError(f"texts of shape {source.shape} are not texts or pairs; give {_TEXT_FORMS}")
        source = _cells(source)
    if isinstance(source, (Mapping, bytes)) or not isinstance(source, Iterable):
        raise DataError(f"texts of type '{name}' cannot be read; give {_TEXT_FORMS}")
    # A pair may be a list, as in JSON and in arrays.
    return (tuple(text) if isinstance(text, list) else text for text in source)  # type: ignore[misc]


def _texts_of_rows(rows: Iterable[Row], choose: Callable[[list[str], str], Columns], where: str) -> Iterator[Text]:
    columns: Columns | None = None
    for row in rows:
        columns = columns or choose(list(row), where)
        first = _text(row.get(columns.text))
        yield first if columns.text_pair is None else (first, _text(row.get(columns.text_pair)))


def _text(value: Any) -> Any:
    """Return a number as text, as in files, and everything else as it is."""
    return str(value) if isinstance(value, (int, float)) and value == value else value
