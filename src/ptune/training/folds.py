"""Cross-validation: measure a recipe on every training row, without keeping rows from the training that counts."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ptune.data.splits import TextData, fold
from ptune.data.targets import SINGLE
from ptune.evaluation.calibration import fit_temperature
from ptune.evaluation.metrics import describe_collapse, evaluate_logits
from ptune.training.validation import Measured

# Trains on the training rows of some data and returns the logits [N, C] of their validation rows.
TrainAndPredict = Callable[[TextData], Tensor]


def cross_validate(data: TextData, folds: int, seed: int, main: str, train: TrainAndPredict) -> Measured:
    """Train once for each fold, on the rows of the others, and measure the predictions for all rows together.

    Args:
        data: the training rows are divided into folds that have the classes in the same proportions.
        folds: number of folds.
        seed: of the division.
        main: name of the metric that is also reported for each fold.
        train: trains and predicts.
    """
    logits, targets, by_fold = [], [], []
    for number in range(folds):
        part = fold(data, number, folds, seed)
        logits.append(train(part))
        targets.append(part.targets("validation"))
        by_fold.append(evaluate_logits(logits[-1], targets[-1], data.problem_type)[main])
    joined, truth = torch.cat(logits), torch.cat(targets)
    temperature = fit_temperature(joined, truth) if data.problem_type == SINGLE else 1.0
    metrics = evaluate_logits(joined, truth, data.problem_type, temperature)
    collapse = describe_collapse(joined, truth, data.labels, data.problem_type)
    return Measured(metrics, temperature, 0, by_fold, collapse)
