"""Turn logits into predictions: labels with probabilities, sets of labels, or numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from ptune.data.targets import MULTI, REGRESSION, SINGLE, ProblemType
from ptune.model.decision import Decision

# Single label: {"label": str, "score": float, "scores": {label: probability}}.
# Multi-label: {"labels": [str], "scores": {label: probability}}. Regression: {"value": float}.
Prediction = dict[str, Any]
PREDICTION_KEYS: dict[ProblemType, tuple[str, ...]] = {
    SINGLE: ("label", "score", "scores"),
    MULTI: ("labels", "scores"),
    REGRESSION: ("value",),
}


def answers(
    logits: Tensor,
    labels: Sequence[str],
    problem_type: ProblemType,
    temperature: float = 1.0,
    decision: Decision | None = None,
) -> Iterator[Prediction]:
    """Yield one prediction per row of logits.

    Args:
        logits: [N, C]; for a regression [N, 1].
        labels: label names in index order.
        problem_type: single-label, multi-label or regression.
        temperature: divisor of the logits before the softmax (single label only), see `ptune.evaluation.calibration`.
        decision: which labels apply (multi-label only); None: those with a probability above 0.5.
    """
    if problem_type == REGRESSION:
        yield from ({"value": value} for value in logits[:, 0].tolist())
    elif problem_type == MULTI:
        applying = (decision or Decision()).applies(logits).tolist()
        for row, applied in zip(probabilities(logits, MULTI).tolist(), applying, strict=True):
            chosen = [label for label, applies_here in zip(labels, applied, strict=True) if applies_here]
            yield {"labels": chosen, "scores": dict(zip(labels, row, strict=True))}
    else:
        for row in probabilities(logits, SINGLE, temperature).tolist():
            best = max(range(len(row)), key=row.__getitem__)
            yield {"label": labels[best], "score": row[best], "scores": dict(zip(labels, row, strict=True))}


def probabilities(logits: Tensor, problem_type: ProblemType, temperature: float = 1.0) -> Tensor:
    """Return the probabilities [N, C] of logits [N, C]. Only single-label logits are divided by the temperature."""
    return logits.sigmoid() if problem_type == MULTI else (logits / temperature).softmax(dim=1)
