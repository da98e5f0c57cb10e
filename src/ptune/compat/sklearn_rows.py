"""Turn the X, y and weights of scikit-learn into rows of `TextData`. N is the number of rows, C of classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, assert_all_finite, column_or_1d

from ptune.data.columns import Columns
from ptune.data.splits import Split, TextData
from ptune.data.texts import Text, unzip
from ptune.errors import DataError

_FORMS = "a list, array or Series of texts, or a list of pairs, or an array or DataFrame of one or two columns"


def text_table(X: Any) -> NDArray[Any]:
    """Return the rows of X as an array of objects: [N, 1] for texts, [N, 2] for pairs. Cells are not checked.

    Raises:
        DataError: X has another form, or no rows.
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
    return table


def indexed(y: Any) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the sorted classes [C], and for each row the index of its class [N].

    Raises:
        ValueError: y is not a column of labels of one type, or a label is missing.
    """
    labels = column_or_1d(y, warn=True)
    assert_all_finite(labels, input_name="y")
    try:
        check_classification_targets(labels)
        return np.unique(labels, return_inverse=True)
    except TypeError as err:
        types = sorted({type(label).__name__ for label in labels.tolist()})
        raise DataError(f"y holds labels of several types ({', '.join(types)}); give labels of one type") from err


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
        DataError: a text is empty, a class has only one row, or there are fewer than two classes.
    """
    first, second = unzip(list(texts), 0)
    split = Split(first, second, targets.tolist())
    if weights is not None:
        used = np.flatnonzero(weights)
        split = Split(first, second, targets.tolist(), (weights / weights[used].mean()).tolist())
        split, targets = split.select(used.tolist()), targets[used]
    labels = [str(label) for label in classes.tolist()]
    counts = np.bincount(targets, minlength=len(labels))
    if (counts > 0).sum() < 2:
        raise DataError(f"y has one class only in {len(targets)} rows; a classifier needs at least two")
    if (counts == 1).any():
        rare = labels[int(np.flatnonzero(counts == 1)[0])]
        raise DataError(f"class '{rare}' of y has one row; at least two are needed, to learn from and to check with")
    columns = Columns("text", None if second is None else "text_pair", "label")
    return TextData({"train": split}, labels, columns, "X")
