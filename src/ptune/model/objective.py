"""The loss of each problem type, and weights that balance frequent and rare labels.

    single label    cross-entropy           logits [B, C], targets [B], class indices
    multi-label     binary cross-entropy    logits [B, C], targets [B, C], 0 or 1; the loss of a row is the mean over
                                            its labels
    regression      mean squared error      logits [B, 1], targets [B]

Without options these are the losses of transformers' classifiers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ptune.data.targets import MULTI, REGRESSION, SINGLE, ProblemType

# Largest positive weight of a label. For a label that 3 of 40,000 rows have, the plain ratio would be 13,000. A single
# row with the label would then dominate the gradient of its batch, and the model would predict the label for almost
# every text.
LARGEST_WEIGHT = 10.0


@dataclass(frozen=True)
class Objective:
    """The loss of a batch: the weighted sum over its rows, divided by the number of rows.

    torch divides by the sum of the weights instead. Dividing by the number of rows makes the losses of parts of a
    batch, each multiplied by its share of the rows, add up to the loss of the whole batch.

    problem_type: which of the three losses to use.
    weights: [C], the weight of each class, or for multi-label of each label that applies; None: all count equally.
    focal: gamma of the focal loss (arXiv 1708.02002), which gives less weight to correct and confident predictions.
    label_smoothing: share of each target that is spread evenly over all classes; for single label only.
    scale: the unit in which the errors of a regression are measured.
    """

    problem_type: ProblemType = SINGLE
    weights: Tensor | None = None
    focal: float = 0.0
    label_smoothing: float = 0.0
    scale: float = 1.0

    def __call__(self, logits: Tensor, targets: Tensor, row_weights: Tensor | None = None) -> Tensor:
        """Return the loss of a batch, [].

        Args:
            logits: output of the model; the module's docstring gives the shape for each problem type.
            targets: the correct answers, in the shape given there.
            row_weights: [B], the weight of each row; None: all rows count equally.
        """
        losses = self.row_losses(logits, targets)
        return (losses if row_weights is None else losses * row_weights).mean()

    def row_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each row, [B]."""
        return _ROW_LOSSES[self.problem_type](self, logits, targets)


def balanced_weights(problem_type: ProblemType, targets: Tensor, classes: int) -> Tensor:
    """Return weights [C] that give all labels the same influence on the loss.

    Single label: rows / (classes that occur * rows of the class), as in scikit-learn. The mean over the rows is 1.
    Multi-label: rows without the label / rows with it, at most LARGEST_WEIGHT.

    Args:
        problem_type: single-label or multi-label classification.
        targets: the targets of the training rows, [N] or [N, C].
        classes: number of classes C.
    """
    if problem_type == MULTI:
        positives = targets.sum(dim=0)
        return ((len(targets) - positives) / positives.clamp_min(1)).clamp_max(LARGEST_WEIGHT)
    counts = torch.bincount(targets, minlength=classes)
    return len(targets) / ((counts > 0).sum() * counts.clamp_min(1)).float()


def _single_label(objective: Objective, logits: Tensor, targets: Tensor) -> Tensor:
    losses = functional.cross_entropy(logits, targets, label_smoothing=objective.label_smoothing, reduction="none")
    if objective.focal:
        log_correct = logits.log_softmax(dim=1).gather(1, targets[:, None])[:, 0]
        losses = losses * _focal_factor(-log_correct.expm1(), objective.focal)
    return losses if objective.weights is None else losses * objective.weights[targets]


def _multi_label(objective: Objective, logits: Tensor, targets: Tensor) -> Tensor:
    losses = functional.binary_cross_entropy_with_logits(
        logits, targets, pos_weight=objective.weights, reduction="none"
    )
    if objective.focal:
        error = torch.sigmoid(logits * (1 - 2 * targets))
        losses = losses * _focal_factor(error, objective.focal)
    return losses.mean(dim=1)


def _regression(objective: Objective, logits: Tensor, targets: Tensor) -> Tensor:
    return ((logits[:, 0] - targets) / objective.scale).square()


def _focal_factor(error: Tensor, gamma: float) -> Tensor:
    """Return the factor (1 - p) ** gamma of the focal loss.

    Args:
        error: 1 - p, where p is the probability of the correct answer. It is kept away from 0, where the gradient is
            infinite for a gamma below 1.
        gamma: the exponent.
    """
    return error.clamp_min(1e-6) ** gamma


_ROW_LOSSES: dict[ProblemType, Callable[[Objective, Tensor, Tensor], Tensor]] = {
    SINGLE: _single_label,
    MULTI: _multi_label,
    REGRESSION: _regression,
}
