"""The loss of each problem type, and the weights that make rare labels count.

    single label    cross-entropy              logits [B, C], targets [B], class indices
    multi-label     binary cross-entropy       logits [B, C], targets [B, C], 0 or 1; a row's loss is its labels' mean
    regression      mean squared error         logits [B, 1], targets [B]

Without options these are the losses of transformers' classifiers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ptune.data.targets import MULTI, REGRESSION, SINGLE, ProblemType

# Of a label's positive weight. At a label of 3 in 40,000 rows the plain ratio would be 13,000: the one row of a batch
# that has it would be all of the gradient, and the label's threshold of 0.5 would be crossed almost everywhere.
LARGEST_WEIGHT = 10.0


@dataclass(frozen=True)
class Objective:
    """The loss of a batch: the sum over its rows, weighted, divided by the number of rows.

    Not divided by the sum of weights, as torch does it: so the losses of several batches, taken by their share of
    the rows, add up to the loss of one large batch.

    weights: [C]; of a row's class, or of a label where it applies. focal: gamma of arXiv 1708.02002, by which
    answers that are right and sure count less. label_smoothing: share of a row that is spread over all classes.
    scale: unit in which a regression's errors are measured.
    """

    problem_type: ProblemType = SINGLE
    weights: Tensor | None = None
    focal: float = 0.0
    label_smoothing: float = 0.0
    scale: float = 1.0

    def __call__(self, logits: Tensor, targets: Tensor, row_weights: Tensor | None = None) -> Tensor:
        """row_weights: [B], by which rows count beside the rest; None: all alike."""
        losses = self.row_losses(logits, targets)
        return (losses if row_weights is None else losses * row_weights).mean()

    def row_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each row, [B]."""
        return _ROW_LOSSES[self.problem_type](self, logits, targets)


def balanced_weights(problem_type: ProblemType, targets: Tensor, classes: int) -> Tensor:
    """Weights [C] by which all labels count alike, counted on the given targets.

    Single label: rows / (classes that occur * rows of the class), scikit-learn's rule; the mean over the rows is 1.
    Multi-label: rows without the label / rows with it, at most LARGEST_WEIGHT.
    """
    if problem_type == MULTI:
        positives = targets.sum(dim=0)
        return ((len(targets) - positives) / positives.clamp_min(1)).clamp_max(LARGEST_WEIGHT)
    counts = torch.bincount(targets, minlength=classes)
    return len(targets) / ((counts > 0).sum() * counts.clamp_min(1)).float()


def _single_label(objective: Objective, logits: Tensor, targets: Tensor) -> Tensor:
    losses = functional.cross_entropy(logits, targets, label_smoothing=objective.label_smoothing, reduction="none")
    if objective.focal:
        sure = logits.log_softmax(dim=1).gather(1, targets[:, None])[:, 0]
        losses = losses * _focus(-sure.expm1(), objective.focal)
    return losses if objective.weights is None else losses * objective.weights[targets]


def _multi_label(objective: Objective, logits: Tensor, targets: Tensor) -> Tensor:
    losses = functional.binary_cross_entropy_with_logits(
        logits, targets, pos_weight=objective.weights, reduction="none"
    )
    if objective.focal:
        wrong = torch.sigmoid(logits * (1 - 2 * targets))
        losses = losses * _focus(wrong, objective.focal)
    return losses.mean(dim=1)


def _regression(objective: Objective, logits: Tensor, targets: Tensor) -> Tensor:
    return ((logits[:, 0] - targets) / objective.scale).square()


def _focus(wrong: Tensor, gamma: float) -> Tensor:
    """(1 - p) ** gamma; kept off 0, where the gradient of a gamma below 1 is infinite."""
    return wrong.clamp_min(1e-6) ** gamma


_ROW_LOSSES: dict[ProblemType, Callable[[Objective, Tensor, Tensor], Tensor]] = {
    SINGLE: _single_label,
    MULTI: _multi_label,
    REGRESSION: _regression,
}
