"""Compare trained classifiers on the same rows: their metrics, whether differences are more than chance, and the rows
on which they disagree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ptune.analysis.resampling import sampled_metrics
from ptune.data.splits import Split, TextData
from ptune.data.targets import MULTI, REGRESSION, SINGLE, ProblemType
from ptune.errors import ConfigError
from ptune.evaluation.evaluate import data_for
from ptune.evaluation.metrics import evaluate_logits
from ptune.inference.answers import answers
from ptune.inference.classifier import TextClassifier, load
from ptune.model.checks import check_task
from ptune.model.decision import HALF, Decision
from ptune.model.objective import Objective

COVERED = 0.95  # share of the samples in an interval


@dataclass(frozen=True)
class Difference:
    """How much a metric of one run is above that of the first run.

    Attributes:
        value: the difference on all rows.
        low, high: the 95 % interval of the difference.
    """

    value: float
    low: float
    high: float

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out 0, so that the difference is more than chance."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class McNemar:
    """McNemar's exact test of two runs: on how many rows only one of them is right.

    Attributes:
        only_first, only_other: rows that only the first or only the other run gets right.
        p: the probability of a split at least as uneven if both are equally good.
    """

    only_first: int
    only_other: int
    p: float


@dataclass(frozen=True)
class Disagreement:
    """A row on which some runs are right and others wrong; in a regression, one that they see very differently.

    Attributes:
        row: the row's number in the split, from 1.
        texts: its text, or both texts.
        truth: its label, labels or number.
        answers: the answer of each run, in the same form.
        right: whether each run is right; in a regression, whether it is closest.
    """

    row: int
    texts: tuple[str, ...]
    truth: Any
    answers: list[Any]
    right: list[bool]


@dataclass(frozen=True)
class Comparison:
    """Several runs side by side.

    Attributes:
        names: what the runs are called.
        data: where the rows come from, and the name of the split.
        rows: number of rows.
        problem_type: the kind of the labels.
        labels: label names in index order.
        metrics: for each run its metrics by name.
        differences: for each run but the first, the difference of each metric from that of the first run.
        mcnemar: for each run but the first, McNemar's test against the first; empty for a regression.
        disagreements: rows on which the runs disagree, those with the fewest right runs first.
    """

    names: list[str]
    data: str
    rows: int
    problem_type: ProblemType
    labels: list[str]
    metrics: list[dict[str, float]]
    differences: list[dict[str, Difference]]
    mcnemar: list[McNemar]
    disagreements: list[Disagreement]

    def to_dict(self) -> dict[str, Any]:
        """Return everything in types of JSON."""
        return asdict(self)


@dataclass(frozen=True)
class _Outcome:
    """The outputs of one run for all rows."""

    logits: Tensor  # [N, C], columns in the order of the data's labels
    temperature: float
    decision: Decision
    predicted: np.ndarray  # in the form of the targets
    right: np.ndarray  # [N] booleans; for a regression absolute errors
    losses: np.ndarray  # [N]


def compare(
    runs: Sequence[TextClassifier | str | Path],
    data: Any,
    split: str = "validation",
    *,
    names: Sequence[str] | None = None,
    batch_size: int | None = None,
) -> Comparison:
    """Measure several classifiers on the same rows.

    Args:
        runs: at least two classifiers, or the folders or Hub ids of adapters. The first is what others are compared
            with. Their labels may be in different orders.
        data: from `ptune.load_data`, or anything that it takes; it is then read with the columns of the first run.
        split: the split to measure on.
        names: what the runs are called. Default: their folders' names.
        batch_size: rows per forward pass. Default: as many as suit the device.

    Raises:
        ConfigError: there are fewer than two runs, not as many names as runs, or the runs have different problem types
            or labels.
        DataError: the data cannot be read, or the rows have no labels.
        AdapterError, BackboneError: an adapter or its backbone cannot be loaded.
    """
    if len(runs) < 2:
        raise ConfigError("a comparison needs at least two runs; name another one")
    names = [*(names or unique_names(runs))]
    if len(names) != len(runs):
        raise ConfigError(
            f"`names` has {len(names)} names for {len(runs)} runs; give one for each", field="names", value=names
        )
    classifiers = [run if isinstance(run, TextClassifier) else load(run) for run in runs]
    _check_alike(classifiers, names)
    first = classifiers[0]
    data = data_for(first, data, split)
    # The runs may have the data's labels in another order.
    check_task(first.model.problem_type, data.labels if set(data.labels) == set(first.labels) else first.labels, data)
    rows, targets = data.split(split), data.targets(split)
    outcomes = [_run(classifier, data, rows, targets, batch_size) for classifier in classifiers]
    metrics = [
        evaluate_logits(outcome.logits, targets, data.problem_type, outcome.temperature, outcome.decision)
        for outcome in outcomes
    ]
    return Comparison(
        names,
        f"{data.source}, {split}",
        len(rows),
        data.problem_type,
        list(data.labels),
        metrics,
        _differences(data.problem_type, targets, outcomes, metrics, len(data.labels)),
        [_mcnemar(outcomes[0], other) for other in outcomes[1:]] if data.problem_type != REGRESSION else [],
        _disagreements(data, rows, outcomes),
    )


def unique_names(runs: Sequence[Any]) -> list[str]:
    """Return names for runs that tell them apart: the last part of their paths, or as much of them as is needed."""
    places = [run.folder if isinstance(run, TextClassifier) else run for run in runs]
    paths = [Path(str(place)) if place is not None else Path(f"run {n}") for n, place in enumerate(places, 1)]
    for length in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-length:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [f"{path} ({number})" for number, path in enumerate(paths, 1)]


def _check_alike(classifiers: Sequence[TextClassifier], names: Sequence[str]) -> None:
    first = classifiers[0]
    for name, other in zip(names[1:], classifiers[1:], strict=True):
        if other.model.problem_type != first.model.problem_type:
            raise ConfigError(
                f"'{names[0]}' is for {first.model.problem_type}, but '{name}' is for {other.model.problem_type}; "
                "compare runs of the same task"
            )
        if first.model.problem_type != REGRESSION and set(other.labels) != set(first.labels):
            only = ", ".join(sorted(set(first.labels) ^ set(other.labels))[:5])
            raise ConfigError(
                f"'{names[0]}' and '{name}' have different labels; only one of them has {only}; compare runs of the "
                "same task"
            )


def _run(classifier: TextClassifier, data: TextData, rows: Split, targets: Tensor, batch_size: int | None) -> _Outcome:
    logits, decision = classifier.split_logits(rows, batch_size), classifier.task.decision
    if data.problem_type != REGRESSION:
        order = [classifier.labels.index(label) for label in data.labels]
        logits = logits[:, order]
        thresholds = decision.thresholds or (HALF,) * len(order)
        decision = Decision(tuple(thresholds[place] for place in order), decision.at_least_one)
    if data.problem_type == SINGLE:
        predicted = logits.argmax(dim=1).numpy()
        right = predicted == targets.numpy()
    elif data.problem_type == MULTI:
        predicted = decision.applies(logits).numpy()
        right = (predicted == (targets.numpy() == 1)).all(axis=1)
    else:
        predicted = logits[:, 0].double().numpy()
        right = np.abs(predicted - targets.double().numpy())
    losses = Objective(data.problem_type).row_losses(
        logits.double(), targets if data.problem_type == SINGLE else targets.double()
    )
    return _Outcome(logits, classifier.temperature, decision, predicted, right, losses.double().numpy())


def _differences(
    problem_type: ProblemType,
    targets: Tensor,
    outcomes: Sequence[_Outcome],
    metrics: Sequence[dict[str, float]],
    classes: int,
) -> list[dict[str, Difference]]:
    truth = targets.numpy() == 1 if problem_type == MULTI else targets.double().numpy()
    truth = truth.astype(int) if problem_type == SINGLE else truth
    sampled = [sampled_metrics(problem_type, truth, run.predicted, run.losses, classes) for run in outcomes]
    margin = 50 * (1 - COVERED)
    differences = []
    for values, own in zip(sampled[1:], metrics[1:], strict=True):
        line = {}
        for name in values:
            low, high = np.percentile(values[name] - sampled[0][name], [margin, 100 - margin])
            line[name] = Difference(own[name] - metrics[0][name], float(low), float(high))
        differences.append(line)
    return differences


def _mcnemar(first: _Outcome, other: _Outcome) -> McNemar:
    from scipy.stats import binomtest

    only_first, only_other = int((first.right & ~other.right).sum()), int((~first.right & other.right).sum())
    total = only_first + only_other
    return McNemar(only_first, only_other, float(binomtest(only_first, total).pvalue) if total else 1.0)


def _disagreements(data: TextData, rows: Split, outcomes: Sequence[_Outcome]) -> list[Disagreement]:
    given = [
        list(answers(run.logits, data.labels, data.problem_type, run.temperature, run.decision)) for run in outcomes
    ]
    scores = np.stack([run.right for run in outcomes], axis=1)
    if data.problem_type == REGRESSION:
        spread = scores.max(axis=1) - scores.min(axis=1)
        order = [int(row) for row in np.argsort(-spread, kind="stable")[:100] if spread[row] > 0]
        right = scores == scores.min(axis=1, keepdims=True)
    else:
        right = scores
        number = right.sum(axis=1)
        order = [int(row) for row in np.argsort(number, kind="stable") if 0 < number[row] < len(outcomes)]
    key = {SINGLE: "label", MULTI: "labels", REGRESSION: "value"}[data.problem_type]
    return [
        Disagreement(
            row + 1,
            (rows.texts[row],) if rows.pairs is None else (rows.texts[row], rows.pairs[row]),
            _named((rows.labels or [])[row], data),
            [answer[row][key] for answer in given],
            [bool(value) for value in right[row]],
        )
        for row in order
    ]


def _named(target: Any, data: TextData) -> Any:
    if data.problem_type == REGRESSION:
        return target
    return [data.labels[label] for label in target] if data.problem_type == MULTI else data.labels[target]
