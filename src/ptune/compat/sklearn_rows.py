"""Turn the X, y and weights of scikit-learn into rows of `TextData`. N is the number of rows, C of classes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import _check_sample_weight, assert_all_finite, column_or_1d

from ptune.data.columns import LABELS, Columns, choose_columns
from ptune.data.objects import as_texts, is_table, name_of, plain_value
from ptune.data.splits import Split, TextData
from ptune.data.targets import LARGEST, MULTI, REGRESSION, SINGLE, ProblemType, Target
from ptune.data.texts import Text, unzip
from ptune.errors import DataError

logger = logging.getLogger(__name__)

_FORMS = "a list, array or Series of texts, or a list of pairs, or an array or DataFrame of one or two columns"


def text_columns(X: Any) -> Any:
    """Return X with its columns of text alone, if its columns have names. Everything else is returned as it is.

    A DataFrame stays one. Of other tables, such as a Dataset or a list of dicts, the texts are returned.

    Raises:
        DataError: the columns of text are not known by their names.
    """
    if issparse(X) or not is_table(X) or (isinstance(X, list) and not X):
        return X

    def choose(names: list[str], where: str) -> Columns:
        pair = len(names) == 2 and not {name.lower() for name in names} & {*LABELS}
        columns = Columns(*names) if pair else choose_columns(names, where=where, need_label=False)
        unread = [name for name in names if name not in (columns.text, columns.text_pair)]
        if unread:
            logger.warning("X: only %s is read; not read: %s", columns, ", ".join(unread))
        return columns

    is_frame = hasattr(X, "columns") and hasattr(X, "__array__") and not hasattr(X, "column_names")
    if not is_frame:  # of pandas or Polars; an Arrow table has the attributes of both
        texts = list(as_texts(X, choose))
        return [list(text) if isinstance(text, tuple) else text for text in texts]
    if len(X.columns) == 1:
        return X
    columns = choose([str(name) for name in X.columns], f"X ({name_of(X)})")
    wanted = [name for name in X.columns if str(name) in (columns.text, columns.text_pair)]
    if [str(name) for name in wanted] != [name for name in (columns.text, columns.text_pair) if name]:
        wanted.reverse()
    return X if wanted == list(X.columns) else X[wanted]


def text_table(X: Any) -> NDArray[Any]:
    """Return the rows of X as an array of objects: [N, 1] for texts, [N, 2] for pairs.

    Raises:
        DataError: X has another form or no rows, or a text is missing.
    """
    if issparse(X):
        raise DataError(f"X is a sparse matrix; {_FORMS} is expected")
    if isinstance(X, (str, bytes, dict, set)) or not (hasattr(X, "__iter__") or hasattr(X, "__array__")):
        raise DataError(f"X is a {type(X).__name__}; {_FORMS} is expected")
    table = np.asarray(X if hasattr(X, "__array__") else list(X), dtype=object)
    if table.ndim == 1:
        table = table[:, None]
    if table.ndim != 2 or table.shape[1] not in (1, 2):
        raise DataError(f"X is of shape {table.shape}; {_FORMS} is expected")
    if not len(table):
        raise DataError("X has 0 sample(s), while a minimum of 1 is required")
    _check_none_missing("X contains no text", [plain_value(cell) for cell in table.ravel()], table.shape[1])
    return table


def indexed(y: Any) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the sorted classes [C], and for each row the index of its class [N].

    Raises:
        ValueError: y is not a column of labels of one type, or a label is missing.
    """
    y = _only_column(y)
    _check_labels(y)
    labels = column_or_1d(_plain_numbers(y), warn=True)
    assert_all_finite(labels, input_name="y")
    try:
        check_classification_targets(labels)
        return np.unique(labels, return_inverse=True)
    except TypeError as err:
        types = sorted({type(label).__name__ for label in labels.tolist()})
        raise DataError(f"y holds labels of several types ({', '.join(types)}); give labels of one type") from err


def _only_column(y: Any) -> Any:
    """Return the column of a table of pandas, Polars or Arrow that has only one, and anything else unchanged."""
    names = getattr(y, "column_names", getattr(y, "columns", None))
    return y[names[0]] if names is not None and len(names) == 1 else y


def _cells(y: Any) -> Any:
    """Return the labels as a list, and what is not a column unchanged."""
    for name in ("tolist", "to_list", "to_pylist"):  # NumPy and pandas; Polars; Arrow
        if hasattr(y, name):
            return getattr(y, name)()
    return y


def _plain_numbers(y: Any) -> Any:
    """Return a column of pandas' nullable or Arrow's types as an array, if it holds whole numbers or booleans.

    scikit-learn would make fractions of them, in which large numbers become equal.
    """
    if isinstance(getattr(y, "dtype", np.dtype(object)), np.dtype):
        return y
    cells = _cells(y)
    return np.array(cells) if cells and all(isinstance(cell, int) for cell in cells) else y


def _check_labels(y: Any) -> None:
    """Check that no label is missing, before NumPy makes the text "nan" of it. NaN among numbers is scikit-learn's.

    Raises:
        DataError: a label is missing.
    """
    cells = _cells(y)
    if isinstance(cells, (list, tuple)) and not all(isinstance(cell, (int, float)) for cell in cells):
        _check_none_missing("y contains no label", [plain_value(cell) for cell in cells])


def _check_none_missing(lack: str, cells: Sequence[Any], width: int = 1) -> None:
    """Check that no cell is None. Every `width` cells are a row.

    Raises:
        DataError: some are. The message names their rows.
    """
    missing = sorted({place // width for place, cell in enumerate(cells) if cell is None})
    if missing:
        shown = ", ".join(map(str, missing[:5])) + (", …" if len(missing) > 5 else "")
        raise DataError(
            f"{lack} for {len(missing)} of {len(cells) // width} rows: {shown}, counted from 0; leave them out"
        )


def is_indicator(y: Any) -> bool:
    """Return whether y is a matrix of zeros and ones, with a column for each label.

    Raises:
        DataError: y holds several labels for each row in another form.
    """
    if isinstance(y, (list, tuple)) and any(isinstance(row, (list, tuple, set)) and len(row) != 1 for row in y):
        widths = {len(row) if isinstance(row, (list, tuple)) else None for row in y}
        if len(widths) > 1 or None in widths or type_of_target(y) != "multilabel-indicator":
            raise DataError(
                "y holds several labels in a row; a matrix of zeros and ones with a column for each label is expected, "
                "as sklearn.preprocessing.MultiLabelBinarizer().fit_transform(y) makes it"
            )
    shape = y.shape if issparse(y) else np.asarray(y).shape
    return len(shape) == 2 and shape[1] > 1 and type_of_target(y) == "multilabel-indicator"


def label_matrix(y: Any) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return the labels [C], which are the names of y's columns or their numbers, and which rows have them [N, C].

    Raises:
        DataError: y holds something else than zeros and ones.
    """
    names = [str(name) for name in y.columns] if hasattr(y, "columns") else None
    cells = y.toarray() if issparse(y) else np.asarray(y)
    matrix = cells.astype(bool)
    if (cells != matrix).any():
        raise DataError("y has several columns, which are labels, but holds something else than zeros and ones")
    return np.arange(matrix.shape[1]) if names is None else np.array(names), matrix


def numbers(y: Any) -> NDArray[np.float64]:
    """Return the targets of a regression [N].

    Raises:
        ValueError: y is not a column of finite numbers, or one is too large to learn.
    """
    targets = column_or_1d(y, dtype=np.float64, warn=True)
    assert_all_finite(targets, input_name="y")
    if (np.abs(targets) > LARGEST).any():
        raise DataError(f"y holds numbers beyond {LARGEST:g}; divide all of them by the same number")
    return targets


def row_weights(
    labels: NDArray[Any], class_weight: dict[Any, float] | str | None, sample_weight: Any
) -> NDArray[np.float64] | None:
    """Return the weights of rows [N]: each is the weight of the row times the weight of its class.

    Args:
        labels: [N].

    Returns:
        None if all rows have the same weight.

    Raises:
        ValueError: a weight is negative, all weights are 0, there are not N weights, or `class_weight` is invalid.
    """
    if sample_weight is None and class_weight is None:
        return None
    weights = _check_sample_weight(sample_weight, labels, dtype=np.float64, ensure_non_negative=True)
    return weights * compute_sample_weight(class_weight, labels)


def text_data(
    texts: Sequence[Text], classes: NDArray[Any], targets: NDArray[np.int64], weights: NDArray[np.float64] | None
) -> TextData:
    """Return training data without the rows of weight 0.

    Args:
        classes: [C]. A class may have no rows.
        targets: [N], class indices.
        weights: [N]. Only their ratios matter.

    Raises:
        DataError: a text is not a string, a class has only one row, or there are fewer than two classes.
    """
    split = _weighted(texts, targets.tolist(), weights)
    targets = np.array(split.labels)
    labels = [str(label) for label in classes.tolist()]
    counts = np.bincount(targets, minlength=len(labels))
    if (counts > 0).sum() < 2:
        raise DataError(f"y has one class only in {len(targets)} rows; a classifier needs at least two")
    if (counts == 1).any():
        rare = labels[int(np.flatnonzero(counts == 1)[0])]
        raise DataError(f"class '{rare}' of y has one row; at least two are needed, to learn from and to check with")
    return _training_data(split, labels, SINGLE)


def label_data(
    texts: Sequence[Text], classes: NDArray[Any], matrix: NDArray[np.bool_], weights: NDArray[np.float64] | None
) -> TextData:
    """Return training data with several labels per row, without the rows of weight 0.

    Args:
        classes: [C].
        matrix: [N, C], which labels the rows have.
        weights: [N]. Only their ratios matter.

    Raises:
        DataError: a text is missing, or all rows have the same labels.
    """
    targets = [tuple(np.flatnonzero(row).tolist()) for row in matrix]
    split = _weighted(texts, targets, weights)
    if len(set(split.labels or [])) < 2:
        raise DataError(f"all {len(split)} rows of y have the same labels; there is nothing to learn")
    return _training_data(split, [str(label) for label in classes.tolist()], MULTI)


def number_data(texts: Sequence[Text], targets: NDArray[np.float64], weights: NDArray[np.float64] | None) -> TextData:
    """Return training data of a regression, without the rows of weight 0.

    Args:
        targets: [N].
        weights: [N]. Only their ratios matter.

    Raises:
        DataError: a text is missing, or all rows have the same number.
    """
    split = _weighted(texts, targets.tolist(), weights)
    if len(set(split.labels or [])) < 2:
        raise DataError(f"all {len(split)} sample(s) of y are the same number; there is nothing to learn")
    return _training_data(split, ["y"], REGRESSION)


def _weighted(texts: Sequence[Text], targets: Sequence[Target], weights: NDArray[np.float64] | None) -> Split:
    """Return a split without the rows of weight 0, in which the other weights are 1 on average."""
    first, second = unzip(list(texts), 0)
    if weights is None:
        return Split(first, second, targets)
    used = np.flatnonzero(weights)
    return Split(first, second, targets, (weights / weights[used].mean()).tolist()).select(used.tolist())


def _training_data(train: Split, labels: list[str], problem_type: ProblemType) -> TextData:
    columns = Columns("text", None if train.pairs is None else "text_pair", "label")
    return TextData({"train": train}, labels, columns, "X", problem_type=problem_type)
