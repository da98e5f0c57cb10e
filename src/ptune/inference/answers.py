"""Logits to answers: labels with probabilities, sets of labels, or numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from ptune.data.targets import MULTI, REGRESSION, SINGLE, ProblemType

# {"label": str, "score": float, "scores": {label: probability}}; where several labels may apply,
# {"labels": [str], "scores": {label: probability}}; of a regression {"value": float}
Prediction = dict[str, Any]
PREDICTION_KEYS: dict[ProblemType, tuple[str, ...]] = {
    SINGLE: ("label", "score", "scores"),
    MULTI: ("labels", "scores"),
    REGRESSION: ("value",),
}


def answers(
    logits: Tensor, labels: Sequence[str], problem_type: ProblemType, temperature: float = 1.0
) -> Iterator[Prediction]:
    """Yield the prediction of each row of logits [N, C].

    temperature: what logits of a single label are divided by, see `ptune.evaluation.calibration`.
    """
    if problem_type == REGRESSION:
        yield from ({"value": value} for value in logits[:, 0].tolist())
    elif problem_type == MULTI:
        for row, given in zip(probabilities(logits, MULTI).tolist(), applies(logits).tolist(), strict=True):
            named = [label for label, applied in zip(labels, given, strict=True) if applied]
            yield {"labels": named, "scores": dict(zip(labels, row, strict=True))}
    else:
        for row in probabilities(logits, SINGLE, temperature).tolist():
            best = max(range(len(row)), key=row.__getitem__)
            yield {"label": labels[best], "score": row[best], "scores": dict(zip(labels, row, strict=True))}


def probabilities(logits: Tensor, problem_type: ProblemType, temperature: float = 1.0) -> Tensor:
    """Logits [N, C] as probabilities; those of a single label are divided by the temperature."""
    return logits.sigmoid() if problem_type == MULTI else (logits / temperature).softmax(dim=1)


def applies(logits: Tensor) -> Tensor:
    """Return which labels of a multi-label task apply, bool [N, C]: those with a probability over 0.5."""
    return logits.sigmoid() > 0.5
