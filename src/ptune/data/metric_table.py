"""The metrics that ptune reports, in one table: names, titles and problem types.

`ptune.evaluation.metrics` defines and computes them. This module does not import torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ptune.data.targets import MULTI, REGRESSION, SINGLE, ProblemType

MetricName = Literal["accuracy", "f1", "f1_macro", "matthews", "mse", "mae", "pearson", "spearman", "r2", "loss"]


@dataclass(frozen=True)
class Metric:
    """One row of the table.

    name: the metric's name in results and files.
    title: its name for people, as it appears in the middle of a sentence.
    hub_name: its name in the metadata of a model card.
    problem_types: the problem types that have the metric.
    less_is_better: whether smaller values are better, down to 0.
    picks: whether the metric may pick the best epoch.
    shown: the problem types for which it is shown after every epoch.
    """

    name: str
    title: str
    hub_name: str
    problem_types: tuple[ProblemType, ...]
    less_is_better: bool = False
    picks: bool = True
    shown: tuple[ProblemType, ...] = ()


# The first metric of a problem type picks its best epoch by default.
METRICS = (
    Metric("accuracy", "accuracy", "accuracy", (SINGLE,), shown=(SINGLE,)),
    Metric("f1", "F1", "f1", (SINGLE, MULTI), shown=(SINGLE, MULTI)),
    Metric("f1_macro", "macro F1", "f1", (SINGLE, MULTI), shown=(MULTI,)),
    Metric("accuracy", "rows with all labels right", "accuracy", (MULTI,), shown=(MULTI,)),
    Metric("matthews", "Matthews correlation", "matthews_correlation", (SINGLE,)),
    Metric("pearson", "Pearson correlation", "pearsonr", (REGRESSION,), shown=(REGRESSION,)),
    Metric("spearman", "Spearman correlation", "spearmanr", (REGRESSION,), shown=(REGRESSION,)),
    Metric("r2", "R2", "r_squared", (REGRESSION,)),
    Metric("mse", "mean squared error", "mse", (REGRESSION,), less_is_better=True),
    Metric("mae", "mean absolute error", "mae", (REGRESSION,), less_is_better=True, shown=(REGRESSION,)),
    Metric(
        "ece", "expected calibration error", "expected_calibration_error", (SINGLE,), less_is_better=True, picks=False
    ),
    Metric("loss", "loss", "loss", (SINGLE, MULTI, REGRESSION), less_is_better=True),
)


# What a line of the metrics file has beside the metrics of its epoch.
NOT_METRICS = ("epoch", "step", "train_loss", "chance", "best", "lost", "seconds", "by_seed")


def metrics_of(problem_type: ProblemType) -> dict[str, Metric]:
    """Return the metrics of a problem type by name. The first one picks the best epoch by default."""
    return {metric.name: metric for metric in METRICS if problem_type in metric.problem_types}


def choices(problem_type: ProblemType) -> tuple[MetricName, ...]:
    """Return the names of the metrics that may pick the best epoch."""
    return tuple(name for name, metric in metrics_of(problem_type).items() if metric.picks)  # type: ignore[misc]


def shown(problem_type: ProblemType) -> tuple[str, ...]:
    """Return the names of the metrics that are shown after every epoch."""
    return tuple(name for name, metric in metrics_of(problem_type).items() if problem_type in metric.shown)


def less_is_better(name: str) -> bool:
    """Return whether smaller values of a metric are better."""
    return any(metric.less_is_better for metric in METRICS if metric.name == name)
