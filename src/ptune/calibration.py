"""Whether probabilities mean what they say: expected calibration error, and a temperature that mends it.

After "On Calibration of Modern Neural Networks" (arXiv 1706.04599).
"""

from __future__ import annotations

import torch
from torch import Tensor

BINS = 15
# Temperatures that a fit may give: on few rows, or rows all of them right, the likelihood asks for one without end.
COLDEST, HOTTEST = 0.1, 10.0


def expected_calibration_error(probabilities: Tensor, labels: Tensor, bins: int = BINS) -> float:
    """Mean distance between confidence and accuracy, from 0 to 1, over bins of equal width weighted by their rows.

    Args:
        probabilities: [N, C]
        labels: [N], class indices
    """
    confidence, predicted = probabilities.double().max(dim=1)
    right = (predicted == labels).double()
    place = (confidence * bins).ceil().long().clamp(1, bins) - 1
    gaps = torch.zeros(bins, dtype=torch.double).index_add_(0, place, confidence - right)
    return float(gaps.abs().sum() / len(labels))


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature T, by which logits [N, C] are divided, with the lowest cross-entropy of labels [N].

    Found by bisection: the loss is convex in 1 / T, and its slope there is the mean over rows of
    (expected logit - true logit).
    """
    logits = logits.double()
    truth = logits.gather(1, labels[:, None])[:, 0]

    def slope(inverse: float) -> float:
        expected = ((logits * inverse).softmax(dim=1) * logits).sum(dim=1)
        return float((expected - truth).mean())

    low, high = 1 / HOTTEST, 1 / COLDEST
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) <= 0 else (low, middle)
    return 2 / (low + high)
