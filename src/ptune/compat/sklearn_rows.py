"""X, y and weights as scikit-learn has them, as rows of `TextData`. N rows, C classes."""

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
    """Rows of X as an array of objects [N, 1], of pairs [N, 2]. What is in them is not looked at.

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
    """The classes [C], sorted, and each row's index among them [N].

    Raises:
        ValueError: y is no column of labels of one type, or some are missing.
    """
    labels = column_or_1d(y, warn=True)
    assert_all_finite(labels, input_name="y")
    try:
        check_classification_targets(labels)
        return np.unique(labels, return_inverse=True)
    except TypeError as err:
        kinds = sorted({type(label).__name__ for label in labels.tolist()})
        raise DataError(f"y holds labels of several types ({', '.join(kinds)}); give labels of one type") from err


def row_weights(
    labels: NDArray[Any], class_weight: dict[Any, float] | str | None, sample_weight: Any
) -> NDArray[np.float64] | None:
    """Weights [N] of rows with these labels [N]: their own times their class's; None where all count alike.

    Raises:
        ValueError: a weight is negative, all are 0, there are not N; no such class weight.
    """
    if sample_weight is None and class_weight is None:
        return None
    weights = _check_sample_weight(sample_weight, labels, dtype=np.float64, ensure_non_negative=True)
    return weights * compute_sample_weight(class_weight, labels)


def text_data(
    texts: Sequence[Text], classes: NDArray[Any], targets: NDArray[np.int64], weights: NDArray[np.float64] | None
) -> TextData:
    """Rows to train on, without those of weight 0.

    Args:
        classes: [C], of which some may have no row.
        targets: [N], indices of the classes.
        weights: [N]; their mean does not matter.

    Raises:
        DataError: an empty text; a class of one row; fewer than two classes.
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
