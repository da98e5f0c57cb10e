"""Whether a model does better than chance, and how far chance may carry a figure."""

from __future__ import annotations

import math

from ptune.data.targets import MULTI, SINGLE, ProblemType

# Quantiles: of the normal distribution for intervals of 95 %, and of chi-square with one degree of freedom at 1 %.
_NORMAL, _CHI_SQUARE = 1.96, 6.63


def interval(share: float, rows: int) -> tuple[float, float]:
    """Return the 95 % interval (Wilson) of a share that was measured on so many rows, such as an accuracy."""
    centre = share + _NORMAL**2 / (2 * rows)
    spread = _NORMAL * math.sqrt(share * (1 - share) / rows + _NORMAL**2 / (4 * rows**2))
    factor = 1 / (1 + _NORMAL**2 / rows)
    return max(0.0, factor * (centre - spread)), min(1.0, factor * (centre + spread))


def describe_interval(share: float, rows: int) -> str:
    """Return the 95 % interval of a share in words."""
    low, high = interval(share, rows)
    return f"95 % interval {low:.3f} to {high:.3f}"


def is_chance(metrics: dict[str, float], problem_type: ProblemType) -> bool:
    """Return whether metrics of `evaluate_logits` are no better than chance.

    For single labels and regressions a correlation of r on N rows is chance if N r² is below the 1 % quantile of
    chi-square. Several labels per row are chance if no label is predicted correctly.
    """
    if problem_type == MULTI:
        return metrics["f1"] == 0
    correlation = metrics["matthews" if problem_type == SINGLE else "pearson"]
    return metrics["count"] * correlation * abs(correlation) < _CHI_SQUARE
