"""Whether probabilities mean what they say: expected calibration error, and a temperature that mends it.

After "On Calibration of Modern Neural Networks" (arXiv 1706.04599).
"""

from __future__ import annotations

import torch
from torch import Tensor

BINS = 15
# Rows from which on a fit lowers the loss of other rows on the mean; see docs/log.md.
FEWEST_ROWS = 50
# Temperatures that a fit may give.
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

    1 where rows are fewer than FEWEST_ROWS, on which it would be fitted to chance.

    A share of 1 / (N + 2) of each row goes to the other classes, as in Platt's scaling: rows that are all right would
    otherwise ask for certainty, which N of them do not show. Found by bisection: the loss is convex in 1 / T, and its
    slope there is the mean over rows of (expected logit - true logit).
    """
    if len(labels) < FEWEST_ROWS:
        return 1.0
    logits = logits.double()
    share = 1 / (len(labels) + 2)
    own = logits.gather(1, labels[:, None])[:, 0]
    others = (logits.sum(dim=1) - own) / max(1, logits.shape[1] - 1)
    truth = (1 - share) * own + share * others

    def slope(inverse: float) -> float:
        expected = ((logits * inverse).softmax(dim=1) * logits).sum(dim=1)
        return float((expected - truth).mean())

    low, high = 1 / HOTTEST, 1 / COLDEST
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) <= 0 else (low, middle)
    return 2 / (low + high)
