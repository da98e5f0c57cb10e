"""Metrics of many samples of the same rows, for intervals by the paired bootstrap (Efron and Tibshirani, 1993).

A sample is drawn with replacement, and every model is measured on the same samples. What differs between two models
in nearly all samples is more than chance.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptune.data.targets import MULTI, SINGLE, ProblemType

SAMPLES = 2000
Floats = NDArray[np.float64]


def samples(rows: int) -> Iterator[Floats]:
    """Yield for each sample how often each of the rows is in it, [N]."""
    generator = np.random.default_rng(0)
    for _ in range(SAMPLES):
        yield np.bincount(generator.integers(rows, size=rows), minlength=rows).astype(float)


def sampled_metrics(
    problem_type: ProblemType, truth: NDArray[np.generic], predicted: NDArray[np.generic], losses: Floats, classes: int
) -> dict[str, Floats]:
    """Return the metrics of all samples by name, each [SAMPLES]. They are those of `ptune.evaluation.metrics` that
    weighted rows give, so not spearman and ece.

    Args:
        problem_type: the kind of the targets.
        truth: [N] class indices, [N, C] booleans for several labels, or [N] numbers.
        predicted: the same of a model.
        losses: [N], the loss of each row.
        classes: number of labels C.
    """
    measure = {SINGLE: _single, MULTI: _multi}.get(problem_type, _numbers)
    lines = [
        {**measure(truth, predicted, weights, classes), "loss": float(weights @ losses / weights.sum())}
        for weights in samples(len(truth))
    ]
    return {name: np.array([line[name] for line in lines]) for name in lines[0]}


def _single(truth: NDArray[Any], predicted: NDArray[Any], weights: Floats, classes: int) -> dict[str, float]:
    matrix = np.bincount(truth * classes + predicted, weights, classes * classes).reshape(classes, classes)
    right, true, given = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
    total = matrix.sum()
    f1 = 2 * right / np.maximum(true + given, 1)
    spread = np.sqrt((total**2 - given @ given) * (total**2 - true @ true))
    return {
        "accuracy": float(right.sum() / total),
        "f1": float(f1[1] if classes == 2 else f1.mean()),
        "f1_macro": float(f1.mean()),
        "matthews": float((right.sum() * total - true @ given) / spread) if spread else 0.0,
    }


def _multi(truth: NDArray[Any], predicted: NDArray[Any], weights: Floats, classes: int) -> dict[str, float]:  # noqa: ARG001
    right, true, given = weights @ (truth & predicted), weights @ truth, weights @ predicted
    return {
        "accuracy": float(weights @ (truth == predicted).all(axis=1) / weights.sum()),
        "f1": float(2 * right.sum() / max(1.0, (true + given).sum())),
        "f1_macro": float((2 * right / np.maximum(true + given, 1)).mean()),
    }


def _numbers(truth: NDArray[Any], predicted: NDArray[Any], weights: Floats, classes: int) -> dict[str, float]:  # noqa: ARG001
    total, errors = weights.sum(), predicted - truth
    deviations = [values - weights @ values / total for values in (truth, predicted)]
    squares = [float(weights @ values**2) for values in deviations]
    wrong = float(weights @ errors**2)
    norm = (squares[0] * squares[1]) ** 0.5
    return {
        "mse": wrong / total,
        "mae": float(weights @ np.abs(errors)) / total,
        "pearson": float(weights @ (deviations[0] * deviations[1]) / norm) if norm else 0.0,
        "r2": 1 - wrong / squares[0] if squares[0] else float(wrong == 0),
    }
