"""The metrics that training and evaluation report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.nn.functional import one_hot

from ptune.data.targets import MULTI, SINGLE, ProblemType
from ptune.evaluation.calibration import expected_calibration_error
from ptune.model.decision import Decision
from ptune.model.objective import Objective


def evaluate_logits(
    logits: Tensor,
    labels: Tensor,
    problem_type: ProblemType = SINGLE,
    temperature: float = 1.0,
    decision: Decision | None = None,
) -> dict[str, float]:
    """Return the metrics of one split, by name.

    Args:
        logits: [N, C]; for a regression [N, 1], in the targets' unit.
        labels: [N], class indices; multi-label [N, C], 0 or 1; regression [N], numbers.
        problem_type: single-label, multi-label or regression.
        temperature: divisor of the logits before the softmax (single label only).
        decision: which labels apply (multi-label only); None: those with a probability above 0.5.

    Returns:
        Single label: accuracy, f1 (with two classes binary, class 1 being positive; otherwise macro), f1_macro,
        matthews (from -1 to 1), ece (expected calibration error of the probabilities, from 0 to 1) and ece_raw (the
        same at temperature 1).
        Multi-label: accuracy (share of rows with all
        labels correct), f1 (micro) and f1_macro.
        Regression: mse, mae, pearson and spearman (0 if all predictions or all targets are equal) and r2.
        Always: loss (mean cross-entropy in nats, or mean squared error) and count (rows).
    """
    if problem_type == MULTI:
        metrics = _multi_label((decision or Decision()).applies(logits), labels == 1)
    else:
        metrics = (_single_label if problem_type == SINGLE else _regression)(logits, labels)
    if problem_type == SINGLE:
        metrics["ece"] = expected_calibration_error((logits / temperature).softmax(dim=1), labels)
        metrics["ece_raw"] = expected_calibration_error(logits.softmax(dim=1), labels)
    objective = Objective(problem_type)
    targets = labels if problem_type == SINGLE else labels.double()
    return {**metrics, "loss": float(objective(logits.double(), targets)), "count": len(labels)}


def _single_label(logits: Tensor, labels: Tensor) -> dict[str, float]:
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

    truth, predicted = labels.tolist(), logits.argmax(dim=1).tolist()
    classes = list(range(logits.shape[1]))
    macro = float(f1_score(truth, predicted, labels=classes, average="macro", zero_division=0))
    binary = len(classes) == 2
    return {
        "accuracy": float(accuracy_score(truth, predicted)),
        "f1": float(f1_score(truth, predicted, zero_division=0)) if binary else macro,
        "f1_macro": macro,
        # Without variation there is nothing to correlate: scikit-learn gives 0 as well, but with a warning.
        "matthews": float(matthews_corrcoef(truth, predicted)) if len({*truth, *predicted}) > 1 else 0.0,
    }


def _multi_label(applied: Tensor, truth: Tensor) -> dict[str, float]:
    # Not computed by scikit-learn, which takes a single column for two classes instead of one label.
    correct, predicted, true = _counts(applied, truth)
    return {
        "accuracy": float((applied == truth).all(dim=1).double().mean()),
        "f1": float(_ratio(2 * correct.sum(), predicted.sum() + true.sum())),
        "f1_macro": float(_ratio(2 * correct, predicted + true).mean()),
    }


def _counts(predicted: Tensor, true: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Count the rows of each label: where it is predicted correctly, where it is predicted, and where it is true.

    Args:
        predicted: bool [N, C].
        true: bool [N, C].

    Returns:
        Three tensors [C].
    """
    return (predicted & true).sum(dim=0), predicted.sum(dim=0), true.sum(dim=0)


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Return numerator / denominator of counts, and 0 for 0 / 0."""
    return numerator.double() / denominator.clamp_min(1)


def _regression(logits: Tensor, labels: Tensor) -> dict[str, float]:
    predicted, truth = logits[:, 0].double(), labels.double()
    errors = predicted - truth
    spread = float((truth - truth.mean()).square().sum())
    squares = float(errors.square().sum())
    return {
        "mse": squares / len(truth),
        "mae": float(errors.abs().mean()),
        "pearson": _correlation(predicted, truth),
        "spearman": _correlation(_ranks(predicted), _ranks(truth)),
        "r2": 1 - squares / spread if spread else float(squares == 0),
    }


def _correlation(one: Tensor, other: Tensor) -> float:
    """Return Pearson's correlation, from -1 to 1, or 0 if one of the tensors is constant."""
    one, other = one - one.mean(), other - other.mean()
    norm = one.norm() * other.norm()
    return float((one @ other / norm).clamp(-1, 1)) if norm else 0.0


def _ranks(values: Tensor) -> Tensor:
    """Return ranks, counted from 1. Equal values get the mean of their ranks."""
    _, index, counts = values.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    return (last - (counts - 1) / 2)[index]


def confusion(logits: Tensor, labels: Tensor) -> list[list[int]]:
    """Return the confusion matrix [C, C]: rows are true classes, columns predicted ones."""
    from sklearn.metrics import confusion_matrix

    matrix: Any = confusion_matrix(labels, logits.argmax(dim=1), labels=range(logits.shape[1]))
    return matrix.tolist()


def by_label(logits: Tensor, labels: Tensor, decision: Decision | None = None) -> list[dict[str, float]]:
    """Return precision, recall, f1 and support (rows that have it) of each label.

    Args:
        logits: [N, C].
        labels: [N], class indices; multi-label [N, C], 0 or 1.
        decision: see `evaluate_logits`.
    """
    if labels.dim() == 1:
        classes = logits.shape[1]
        counts = _counts(one_hot(logits.argmax(dim=1), classes).bool(), one_hot(labels, classes).bool())
    else:
        counts = _counts((decision or Decision()).applies(logits), labels == 1)
    correct, predicted, true = counts
    columns = (_ratio(correct, predicted), _ratio(correct, true), _ratio(2 * correct, predicted + true), true)
    names = ("precision", "recall", "f1", "support")
    return [dict(zip(names, row, strict=True)) for row in zip(*(c.tolist() for c in columns), strict=True)]


def collapsed(logits: Tensor, labels: Tensor) -> int | None:
    """Return the class that is predicted for every row although the labels differ, or None if there is none."""
    predicted = logits.argmax(dim=1).unique()
    if len(predicted) == 1 and len(labels.unique()) > 1:
        return int(predicted)
    return None


def describe_collapse(
    logits: Tensor, labels: Tensor, names: Sequence[str], problem_type: ProblemType, decision: Decision | None = None
) -> str | None:
    """Say in words that all predictions are the same although the labels differ. Return None if that is not so.

    Args:
        logits: [N, C].
        labels: see `evaluate_logits`.
        names: label names in index order.
        problem_type: single-label, multi-label or regression.
        decision: see `evaluate_logits`.
    """
    if problem_type == SINGLE:
        predicted = collapsed(logits, labels)
        return None if predicted is None else f"every prediction is '{names[predicted]}'"
    if len(labels.unique(dim=0)) == 1:
        return None
    if problem_type == MULTI:
        applied = (decision or Decision()).applies(logits)
        listed = ", ".join(f"'{name}'" for name, is_set in zip(names, applied[0].tolist(), strict=True) if is_set)
        return None if (applied != applied[0]).any() else f"every prediction is {listed or 'that no label applies'}"
    # Predictions count as the same if they vary by less than a thousandth of the targets' standard deviation.
    constant = float(logits.std()) < 1e-3 * float(labels.std())
    return f"every prediction is {float(logits[0, 0]):.4g}" if constant else None
