"""How good predictions are: the figures that training and evaluation report."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ptune.calibration import expected_calibration_error


def evaluate_logits(logits: Tensor, labels: Tensor, temperature: float = 1.0) -> dict[str, float]:
    """Figures of one split.

    Args:
        logits: [N, C]
        labels: [N], class indices
        temperature: what the adapter divides logits by before it takes probabilities

    Returns:
        accuracy, f1 (binary with two classes, class 1 the positive one; else macro), f1_macro,
        matthews (from -1 to 1), loss (mean cross-entropy of the logits as they are, nats), ece (expected
        calibration error of the probabilities, from 0 to 1), ece_raw (the same at temperature 1), count.
    """
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

    truth, predicted = labels.tolist(), logits.argmax(dim=1).tolist()
    classes = list(range(logits.shape[1]))
    macro = float(f1_score(truth, predicted, labels=classes, average="macro", zero_division=0))
    binary = len(classes) == 2
    return {
        "accuracy": float(accuracy_score(truth, predicted)),
        "f1": float(f1_score(truth, predicted, zero_division=0)) if binary else macro,
        "f1_macro": macro,
        "matthews": float(matthews_corrcoef(truth, predicted)),
        "loss": float(torch.nn.functional.cross_entropy(logits.double(), labels)),
        "ece": expected_calibration_error((logits / temperature).softmax(dim=1), labels),
        "ece_raw": expected_calibration_error(logits.softmax(dim=1), labels),
        "count": len(truth),
    }


def confusion(logits: Tensor, labels: Tensor) -> list[list[int]]:
    """Confusion matrix [C, C]: rows are true classes, columns predicted ones."""
    from sklearn.metrics import confusion_matrix

    matrix: Any = confusion_matrix(labels, logits.argmax(dim=1), labels=range(logits.shape[1]))
    return matrix.tolist()


def collapsed(logits: Tensor, labels: Tensor) -> int | None:
    """The one class that every prediction names though the truth has several, or None."""
    predicted = logits.argmax(dim=1).unique()
    if len(predicted) == 1 and len(labels.unique()) > 1:
        return int(predicted)
    return None
