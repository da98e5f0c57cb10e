"""Calibration of probabilities: measure it with the expected calibration error, improve it with a temperature.

After "On Calibration of Modern Neural Networks" (arXiv 1706.04599).
"""

from __future__ import annotations

import torch
from torch import Tensor

BINS = 15
# With at least this many rows, a fitted temperature lowers the mean loss of other rows; see docs/log.md.
FEWEST_ROWS = 50
# Lowest and highest temperature that a fit may give.
COLDEST, HOTTEST = 0.1, 10.0


def expected_calibration_error(probabilities: Tensor, labels: Tensor, bins: int = BINS) -> float:
    """Return the expected calibration error, from 0 to 1.

    It is the mean distance between confidence and accuracy over bins of equal width, weighted by their rows.

    Args:
        probabilities: [N, C].
        labels: [N], class indices.
        bins: number of bins.
    """
    confidence, predicted = probabilities.double().max(dim=1)
    correct = (predicted == labels).double()
    index = (confidence * bins).ceil().long().clamp(1, bins) - 1
    gaps = torch.zeros(bins, dtype=torch.double).index_add_(0, index, confidence - correct)
    return float(gaps.abs().sum() / len(labels))


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Return the temperature T for which logits / T have the lowest cross-entropy.

    Returns 1 if there are fewer than FEWEST_ROWS rows, because a fit would only follow chance.

    As in Platt scaling, each row's target gives 1 / (N + 2) to the other classes. Otherwise N rows that are all
    correct would be fitted with probabilities of 1, for which N rows are not enough evidence.

    T is found by bisection. The loss is convex in 1 / T, and its slope is the mean of (expected logit - true logit)
    over the rows.

    Args:
        logits: [N, C].
        labels: [N], class indices.
    """
    if len(labels) < FEWEST_ROWS:
        return 1.0
    logits = logits.double()
    share = 1 / (len(labels) + 2)
    labelled = logits.gather(1, labels[:, None])[:, 0]
    others = (logits.sum(dim=1) - labelled) / max(1, logits.shape[1] - 1)
    true_logit = (1 - share) * labelled + share * others

    def slope(inverse: float) -> float:
        expected = ((logits * inverse).softmax(dim=1) * logits).sum(dim=1)
        return float((expected - true_logit).mean())

    low, high = 1 / HOTTEST, 1 / COLDEST
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) <= 0 else (low, middle)
    return 2 / (low + high)
