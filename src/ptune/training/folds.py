"""Cross-validation: measure a recipe on every training row, without keeping rows from the training that counts."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import torch

from ptune.data.splits import Split, TextData, fold
from ptune.training.run import Run
from ptune.training.steps import Rows
from ptune.training.validation import Measured, Validation

# Returns a run on some data, which has not begun and writes nothing.
NewRun = Callable[[TextData], Run]


def measured_rows(data: TextData, folds: int, seed: int) -> Split:
    """Return the rows in the order in which `cross_validate` measures them."""
    parts = [fold(data, number, folds, seed).validation for number in range(folds)]
    first = parts[0]
    return Split(
        [text for part in parts for text in part.texts],
        None if first.pairs is None else [pair for part in parts for pair in part.pairs or []],
        [label for part in parts for label in part.labels or []],
    )


def cross_validate(data: TextData, folds: int, seed: int, new_run: NewRun, time_limit: float | None = None) -> Measured:
    """Train once for each fold, on the rows of the others, and measure the last epochs' logits for all rows together.

    Args:
        data: the training rows are divided into folds that have the classes in the same proportions.
        folds: number of folds.
        seed: of the division.
        new_run: makes the run of a fold.
        time_limit: seconds for all folds and the training afterwards, in equal shares; None: there is no limit.
    """
    started = time.perf_counter()
    share = None if time_limit is None else time_limit / (folds + 1)
    runs = [new_run(fold(data, number, folds, seed)) for number in range(folds)]
    logits = torch.cat([run.measure(share).logits for run in runs], dim=1)
    first = runs[0]
    rows = Rows(
        [row for run in runs for row in run.validation_rows.encoded],
        torch.cat([run.validation_rows.labels for run in runs]),
    )
    joined = Validation(
        first.validation.models, rows, first.classifier.pad_id, first.config, rows, first.validation.metrics
    )
    return replace(joined.measure_logits(logits), seconds=time.perf_counter() - started)
