"""How good predictions are: the metrics that training and evaluation report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.nn.functional import one_hot

from ptune.data.targets import MULTI, REGRESSION, SINGLE, ProblemType
from ptune.evaluation.calibration import expected_calibration_error
from ptune.inference.answers import applies
from ptune.model.objective import Objective


def evaluate_logits(
    logits: Tensor, labels: Tensor, problem_type: ProblemType = SINGLE, temperature: float = 1.0
) -> dict[str, float]:
    """Figures of one split.

    Args:
        logits: [N, C]; of a regression [N, 1], in the targets' unit
        labels: [N], class indices; multi-label [N, C], 0 or 1; regression [N], numbers
        temperature: of a single label, what the adapter divides logits by before it takes probabilities

    Returns:
        Single label: accuracy, f1 (binary with two classes, class 1 the positive one; else macro), f1_macro,
        matthews (from -1 to 1), ece (expected calibration error of the probabilities, from 0 to 1), ece_raw (the same
        at temperature 1). Multi-label, a label applying where its probability is over 0.5: accuracy (share of
        rows with all labels right), f1 (micro), f1_macro. Regression: mse, mae, pearson and spearman (0 where
        predictions or targets are all the same), r2. And always: loss (mean cross-entropy in nats, or squared error),
        count.
    """
    metrics = {SINGLE: _single_label, MULTI: _multi_label, REGRESSION: _regression}[problem_type](logits, labels)
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
        # scikit-learn's value where there is nothing to correlate, without its warning.
        "matthews": float(matthews_corrcoef(truth, predicted)) if len({*truth, *predicted}) > 1 else 0.0,
    }


def _multi_label(logits: Tensor, labels: Tensor) -> dict[str, float]:
    # By hand: scikit-learn takes a single column for two classes, not for one label that applies or not.
    right, named, there = _counts(applies(logits), labels == 1)
    return {
        "accuracy": float((applies(logits) == (labels == 1)).all(dim=1).double().mean()),
        "f1": float(_share(2 * right.sum(), named.sum() + there.sum())),
        "f1_macro": float(_share(2 * right, named + there).mean()),
    }


def _counts(named: Tensor, there: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return for each label, [C], the rows where it is rightly named, where it is named, and where it applies.

    named, there: bool [N, C].
    """
    return (named & there).sum(dim=0), named.sum(dim=0), there.sum(dim=0)


def _share(part: Tensor, whole: Tensor) -> Tensor:
    """part / whole; 0 of nothing."""
    return part.double() / whole.clamp_min(1)


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
    """Pearson's, from -1 to 1; 0 where one of them does not vary, as then nothing goes along with anything."""
    one, other = one - one.mean(), other - other.mean()
    norm = one.norm() * other.norm()
    return float((one @ other / norm).clamp(-1, 1)) if norm else 0.0


def _ranks(values: Tensor) -> Tensor:
    """Ranks from 1; equal values share the mean of theirs."""
    _, place, counts = values.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    return (last - (counts - 1) / 2)[place]


def confusion(logits: Tensor, labels: Tensor) -> list[list[int]]:
    """Confusion matrix [C, C]: rows are true classes, columns predicted ones."""
    from sklearn.metrics import confusion_matrix

    matrix: Any = confusion_matrix(labels, logits.argmax(dim=1), labels=range(logits.shape[1]))
    return matrix.tolist()


def by_label(logits: Tensor, labels: Tensor) -> list[dict[str, float]]:
    """Return precision, recall, f1 and support (rows that have it) of each label.

    labels: [N], class indices; of a multi-label task [N, C], 0 or 1.
    """
    if labels.dim() == 1:
        classes = logits.shape[1]
        named, there = one_hot(logits.argmax(dim=1), classes).bool(), one_hot(labels, classes).bool()
    else:
        named, there = applies(logits), labels == 1
    right, answered, true = _counts(named, there)
    columns = (_share(right, answered), _share(right, true), _share(2 * right, answered + true), true)
    names = ("precision", "recall", "f1", "support")
    return [dict(zip(names, row, strict=True)) for row in zip(*(c.tolist() for c in columns), strict=True)]


def collapsed(logits: Tensor, labels: Tensor) -> int | None:
    """The one class that every prediction names though the truth has several, or None."""
    predicted = logits.argmax(dim=1).unique()
    if len(predicted) == 1 and len(labels.unique()) > 1:
        return int(predicted)
    return None


def describe_collapse(logits: Tensor, labels: Tensor, names: Sequence[str], problem_type: ProblemType) -> str | None:
    """In words, that every prediction is the same though the truth is not; None where they differ."""
    if problem_type == SINGLE:
        only = collapsed(logits, labels)
        return None if only is None else f"every prediction is '{names[only]}'"
    if len(labels.unique(dim=0)) == 1:
        return None
    if problem_type == MULTI:
        found = applies(logits)
        given = ", ".join(f"'{name}'" for name, given in zip(names, found[0].tolist(), strict=True) if given)
        return None if (found != found[0]).any() else f"every prediction is {given or 'that no label applies'}"
    # A thousandth of the truth's deviation is nothing that anyone would call an answer.
    constant = float(logits.std()) < 1e-3 * float(labels.std())
    return f"every prediction is {float(logits[0, 0]):.4g}" if constant else None
