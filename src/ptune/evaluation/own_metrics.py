"""Metrics that the user brings as functions, beside those of `ptune.evaluation.metrics`.

A function is called like those of scikit-learn, `function(truth, predicted)`,
with arrays of N rows, and returns a number. Higher is better.

    single label   class indices [N] in the order of the labels
    multi-label    [N, C], 0 or 1
    regression     numbers [N]

If it has a parameter `probabilities`, it also gets the probabilities [N, C].
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.nn.functional import one_hot

from ptune.data.metric_table import METRICS, NOT_METRICS
from ptune.data.targets import MULTI, REGRESSION, SINGLE, ProblemType
from ptune.errors import ConfigError
from ptune.inference.answers import probabilities
from ptune.model.decision import Decision

CERTAIN = 10.0  # a logit whose probability is nearly 1
OwnMetrics = Mapping[str, Callable[..., float]]

# Names that stand for something else in a run's results.
_TAKEN = {metric.name for metric in METRICS} | {"ece_raw", "count", "last", *NOT_METRICS}


def check_metrics(metrics: OwnMetrics, problem_type: ProblemType) -> None:
    """Check the names and the parameters of functions, before they are needed.

    Raises:
        ConfigError: `metrics` does not map names to functions, a name is taken, or a function wants probabilities,
            which a regression does not have.
    """
    if not isinstance(metrics, Mapping):
        raise ConfigError(
            f"`metrics` is a {type(metrics).__name__}; a dict of functions by name is expected, such as "
            '{"kappa": cohen_kappa_score}',
            field="metrics",
            value=metrics,
            expected="a dict of functions by name",
        )
    for name, function in metrics.items():
        if not isinstance(name, str) or not name.isidentifier() or name in _TAKEN:
            reason = "is the name of one of ptune's" if name in _TAKEN else "is not a name of letters, digits and _"
            raise ConfigError(
                f"`metrics` has {name!r}, which {reason}; choose another name", field="metrics", value=name
            )
        if not callable(function):
            raise ConfigError(
                f"`metrics` has a {type(function).__name__} as '{name}'; a function (truth, predicted) is expected",
                field="metrics",
                value=function,
                expected="a function (truth, predicted)",
            )
        if problem_type == REGRESSION and _wants_probabilities(function):
            raise ConfigError(
                f"metric '{name}' has a parameter `probabilities`, but a regression has none; leave the parameter out",
                field="metrics",
                value=name,
            )


def own_metrics(
    metrics: OwnMetrics,
    logits: Tensor,
    labels: Tensor,
    problem_type: ProblemType,
    temperature: float = 1.0,
    decision: Decision | None = None,
) -> dict[str, float]:
    """Return the values of functions by name. The other arguments are those of `evaluate_logits`.

    Raises:
        ConfigError: a function fails, or returns something else than a finite number.
    """
    if not metrics:
        return {}
    predicted: Tensor
    if problem_type == SINGLE:
        predicted = logits.argmax(dim=1)
    elif problem_type == MULTI:
        predicted, labels = (decision or Decision()).applies(logits).int(), labels.int()
    else:
        predicted = logits[:, 0]
    values = {}
    for name, function in metrics.items():
        extra: dict[str, Any] = {}
        if _wants_probabilities(function):
            extra["probabilities"] = probabilities(logits.double(), problem_type, temperature).numpy()
        values[name] = _number(name, function, labels.numpy(), predicted.numpy(), extra)
    return values


def try_metrics(metrics: OwnMetrics, labels: Tensor, classes: int, problem_type: ProblemType) -> None:
    """Call the functions with predictions that are all right, so that one that fails does so before training.

    Args:
        metrics: functions by name.
        labels: see `evaluate_logits`.
        classes: C, number of classes or labels.
        problem_type: single-label, multi-label or regression.

    Raises:
        ConfigError: see `own_metrics`.
    """
    if problem_type == SINGLE:
        logits = one_hot(labels, classes) * CERTAIN
    else:
        logits = labels[:, None] if problem_type == REGRESSION else (2 * labels - 1) * CERTAIN
    own_metrics(metrics, logits, labels, problem_type)


def _number(name: str, function: Callable[..., Any], truth: Any, predicted: Any, extra: dict[str, Any]) -> float:
    try:
        value = function(truth.copy(), predicted.copy(), **extra)
    except Exception as err:  # whatever the user's function raises
        raise ConfigError(
            f"metric '{name}' failed with {type(err).__name__}: {' '.join(str(err).split())[:200]}; it is called as "
            f"{name}(truth, predicted{', probabilities=...' if extra else ''}) with arrays of {len(truth)} rows",
            field="metrics",
            value=name,
        ) from err
    try:
        number = float(value)
    except (TypeError, ValueError) as err:
        raise ConfigError(
            f"metric '{name}' returned a {type(value).__name__}; a number is expected", field="metrics", value=value
        ) from err
    if not math.isfinite(number):
        raise ConfigError(
            f"metric '{name}' returned {number}; return a number in every epoch, such as 0.0 where it is not defined",
            field="metrics",
            value=number,
            expected="a finite number",
        )
    return number


def _wants_probabilities(function: Callable[..., Any]) -> bool:
    try:
        return "probabilities" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # some functions written in C have no signature
        return False
