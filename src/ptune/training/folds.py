"""Cross-validation: measure a recipe on every training row, without keeping rows from the training that counts."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from ptune.data.splits import Split, TextData, fold
from ptune.training.checkpoint import FoldResult, forget_run, load_folds, save_folds
from ptune.training.run import Run
from ptune.training.steps import Rows
from ptune.training.validation import Measured, Validation

logger = logging.getLogger(__name__)

# Returns the run of a fold, given its data and its number, from 0. The run has not begun and writes nothing.
NewRun = Callable[[TextData, int], Run]


def measured_rows(data: TextData, folds: int, seed: int) -> Split:
    """Return the rows in the order in which `cross_validate` measures them."""
    parts = [fold(data, number, folds, seed).validation for number in range(folds)]
    first = parts[0]
    return Split(
        [text for part in parts for text in part.texts],
        None if first.pairs is None else [pair for part in parts for pair in part.pairs or []],
        [label for part in parts for label in part.labels or []],
    )


def cross_validate(
    data: TextData,
    folds: int,
    seed: int,
    new_run: NewRun,
    folder: Path,
    *,
    time_limit: float | None = None,
    resume: bool = False,
) -> Measured:
    """Train once for each fold, on the rows of the others, and measure the last epochs' logits for all rows together.

    Args:
        data: the training rows are divided into folds that have the classes in the same proportions.
        folds: number of folds.
        seed: of the division.
        new_run: makes the run of a fold.
        folder: where the results of finished folds are kept, for a run that goes on later.
        time_limit: seconds for all folds and the training afterwards, in equal shares; None: there is no limit.
        resume: take the results of finished folds from the folder.

    Raises:
        ConfigError: the results in the folder belong to another run.
        AdapterError: they are damaged.
        OutputError: the results cannot be written.
    """
    started = time.perf_counter()
    share = None if time_limit is None else time_limit / (folds + 1)
    runs = [new_run(fold(data, number, folds, seed), number) for number in range(folds)]
    first = runs[0]
    first.check_processes()
    results = load_folds(folder, first.identity) if resume else []
    if results:
        logger.info("%d of %d folds were measured before the run was stopped", len(results), folds)
    if not resume:
        forget_run(folder, first.processes)
    if not results:
        save_folds(folder, [], first.identity, first.processes)
    for run in runs[len(results) :]:
        measured = run.measure(share)
        now = time.perf_counter()
        results.append(FoldResult(measured.logits, now - started))
        started = now
        save_folds(folder, results, first.identity, first.processes)
    logits = torch.cat([result.logits for result in results], dim=1)
    rows = Rows(
        [row for run in runs for row in run.validation_rows.encoded],
        torch.cat([run.validation_rows.labels for run in runs]),
    )
    joined = Validation(
        first.validation.models, rows, first.classifier.pad_id, first.config, rows, first.validation.metrics
    )
    return replace(joined.measure_logits(logits), seconds=sum(result.seconds for result in results))
