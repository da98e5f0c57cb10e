"""Fit the thresholds above which the labels of a multi-label task apply.

A model that was trained on few rows gives rare labels probabilities far below
0.5, so that with a threshold of 0.5 it would answer nothing at all.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Rows with the label that the common threshold counts as much as. With fewer, labels that few validation rows have get
# thresholds that follow chance; see docs/log.md.
EVIDENCE = 100.0


def fit_thresholds(logits: Tensor, labels: Tensor) -> tuple[float, ...]:
    """Return for each label the threshold with the highest F1 on these rows, between 0 and 1.

    The counts of a label are added to those of all labels together, which weigh as much as EVIDENCE rows with the
    label. So a label with few rows gets about the threshold that suits all labels (the highest micro F1), and one with
    many rows its own. Without any labels, all thresholds are 0.5.

    Args:
        logits: [N, C].
        labels: [N, C], 0 or 1.
    """
    total = float(labels.sum())
    if not total:
        return (0.5,) * labels.shape[1]
    probabilities, truth = logits.double().sigmoid(), labels.double()
    ranked, order = probabilities.sort(dim=0, descending=True)
    below = torch.cat([ranked[1:], torch.zeros_like(ranked[:1])])
    thresholds = (ranked + below) / 2  # [N, C]: row k is the threshold that gives the label to k + 1 rows
    correct = truth.gather(0, order).cumsum(dim=0)
    predicted = torch.arange(1, len(ranked) + 1, dtype=torch.double)[:, None]
    all_correct, all_predicted = _counts_of_all(probabilities, truth, thresholds)
    weight = EVIDENCE / total
    f1 = 2 * (correct + weight * all_correct) / (predicted + truth.sum(dim=0) + weight * (all_predicted + total))
    f1[ranked == below] = -1  # no threshold lies between equal probabilities
    best = thresholds.gather(0, f1.argmax(dim=0)[None])[0]
    return tuple(float(f"{value:.6g}") for value in best.clamp(1e-6, 1 - 1e-6).tolist())


def _counts_of_all(probabilities: Tensor, truth: Tensor, thresholds: Tensor) -> tuple[Tensor, Tensor]:
    """Count the correct and all predictions of all labels together, for each threshold.

    Args:
        probabilities, truth, thresholds: [N, C].

    Returns:
        Two tensors [N, C].
    """
    values, order = probabilities.flatten().sort()
    below = torch.cat([torch.zeros(1, dtype=torch.double), truth.flatten()[order].cumsum(dim=0)])
    position = torch.searchsorted(values, thresholds.contiguous(), right=True)  # how many are not above the threshold
    return below[-1] - below[position], (len(values) - position).double()
