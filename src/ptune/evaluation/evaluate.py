"""Measure a classifier on labelled data. The result is plain data."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ptune.adapter.layout import Record
from ptune.data.columns import check_pairs
from ptune.data.flaws import OnEmpty
from ptune.data.load import load_data
from ptune.data.splits import TextData
from ptune.data.targets import MULTI, SINGLE, ProblemType, default_labels
from ptune.errors import DataError
from ptune.evaluation.metrics import by_label, confusion, evaluate_logits
from ptune.evaluation.own_metrics import OwnMetrics, check_metrics, own_metrics
from ptune.inference.answers import probabilities
from ptune.inference.classifier import TextClassifier
from ptune.model.checks import check_task
from ptune.model.objective import Objective

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RowScores:
    """Outputs and losses of every row, in the split's order.

    Attributes:
        outputs: probabilities [N, C] in the labels' order; for a regression, numbers [N, 1].
        losses: [N], cross-entropy in nats; for a regression, squared errors.
    """

    outputs: list[list[float]]
    losses: list[float]


@dataclass(frozen=True)
class Evaluation:
    """The performance of a classifier on one split.

    Attributes:
        metrics: by name; `ptune.evaluation.metrics.evaluate_logits` explains them.
        split: name of the split.
        problem_type: single-label, multi-label or regression.
        labels: label names in index order.
        confusion_matrix: [C, C], rows are true classes and columns predicted ones; None unless the task is
            single-label.
        by_label: precision, recall, f1 and support (rows that have the label) of each label; None for a regression.
        rows: outputs and losses of every row; None unless `per_row` was given.
    """

    metrics: dict[str, float]
    split: str
    problem_type: ProblemType
    labels: list[str]
    confusion_matrix: list[list[int]] | None = None
    by_label: dict[str, dict[str, float]] | None = None
    rows: RowScores | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return everything in types of JSON, with the metrics at the top level and without fields that are None."""
        rest = {name: value for name, value in asdict(self).items() if name != "metrics" and value is not None}
        return {**self.metrics, **rest}


def data_for(classifier: TextClassifier, data: Any, split: str) -> TextData:
    """Return data, read with the columns and the labels of a classifier if they are not yet read.

    Args:
        classifier: what the data are for.
        data: from `ptune.load_data`, or anything that it takes.
        split: the split that is needed.

    Raises:
        DataError: the data cannot be read.
    """
    if isinstance(data, TextData):
        return data
    return load_data(
        data,
        labels=classifier.labels,
        problem_type=classifier.model.problem_type,
        label_separator=classifier.task.label_separator,
        only=split,
        trained=classifier.task.columns,
    )


def evaluate(
    classifier: TextClassifier,
    data: Any,
    split: str = "validation",
    batch_size: int | None = None,
    *,
    per_row: bool = False,
    metrics: OwnMetrics | None = None,
    logits: Tensor | None = None,
) -> Evaluation:
    """Measure a classifier on a labelled split.

    Args:
        classifier: from `ptune.load` or `TrainResult.classifier`.
        data: from `ptune.load_data`, with the classifier's labels in the same order. Or anything that `load_data`
            takes, such as a DataFrame; it is then read with the columns and the labels of the classifier.
        split: train, validation or test. Data without splits, such as a DataFrame, are measured as a whole.
        batch_size: rows per forward pass. Default: as many as suit the device.
        per_row: also return the outputs and the loss of every row.
        metrics: more metrics by name, as functions (truth, predicted) that return a number, such as those of
            scikit-learn; see `train`.
        logits: those of the rows [N, C], if they are known already. Default: they are computed.

    Raises:
        DataError: the data cannot be read, there is no such split, its rows have no labels, or it holds pairs but the
            classifier takes single texts (or the other way round).
        ConfigError: the classifier has another problem type or other labels, or one of `metrics` cannot be used.
    """
    check_metrics(metrics or {}, classifier.model.problem_type)
    data = data_for(classifier, data, split)
    rows = data.split(split)
    # PEFT does not store label names, so placeholders match any labels.
    has_placeholders = classifier.labels == default_labels(len(data.labels))
    if has_placeholders and list(data.labels) != classifier.labels:
        logger.warning(
            "the adapter has no names for its labels; its outputs are taken for %s, in this order. If that is wrong, "
            "name them with `ptune.load(..., labels=[...])`",
            ", ".join(data.labels[:10]) + (", ..." if len(data.labels) > 10 else ""),
        )
    check_task(classifier.model.problem_type, data.labels if has_placeholders else classifier.labels, data)
    targets = data.targets(split)
    if logits is None:
        logits = classifier.split_logits(rows, batch_size)
    problem_type, labels, decision = data.problem_type, classifier.labels, classifier.task.decision
    details: dict[str, Any] = {}
    if problem_type == SINGLE:
        details["confusion_matrix"] = confusion(logits, targets)
    if problem_type in (SINGLE, MULTI):
        details["by_label"] = dict(zip(labels, by_label(logits, targets, decision), strict=True))
    if per_row:
        outputs = logits
        if problem_type in (SINGLE, MULTI):
            outputs = probabilities(logits.double(), problem_type, classifier.temperature)
        losses = Objective(problem_type).row_losses(
            logits.double(), targets if problem_type == SINGLE else targets.double()
        )
        details["rows"] = RowScores(outputs.tolist(), losses.tolist())
    rule = (problem_type, classifier.temperature, decision)
    values = evaluate_logits(logits, targets, *rule) | own_metrics(metrics or {}, logits, targets, *rule)
    return Evaluation(values, split, problem_type, list(labels), **details)


def load_evaluation_data(
    record: Record,
    source: str | Path,
    split: str = "validation",
    *,
    labels: Sequence[str] | None = None,
    text: str | None = None,
    text_pair: str | None = None,
    label: str | Sequence[str] | None = None,
    label_separator: str | None = None,
    revision: str | None = None,
    on_empty: OnEmpty = "error",
) -> TextData:
    """Read one split with the columns, the labels in order and the problem type of an adapter.

    Args:
        record: the adapter's record.
        source: see `load_data`.
        split: the split to read.
        labels: label names in index order, if the record has none, e.g. for an adapter of PEFT.
        text, text_pair, label, label_separator: see `load_data`. Default: as in training.
        revision, on_empty: see `load_data`.

    Raises:
        DataError: the data cannot be read, the rows have no labels, or they are pairs but the adapter was trained on
            single texts (or the other way round).
    """
    data = load_data(
        source,
        text=text,
        text_pair=text_pair,
        label=label,
        labels=record.labels or labels,
        problem_type=record.problem_type,
        label_separator=label_separator or record.label_separator,
        only=split,
        trained=record.columns,
        revision=revision,
        on_empty=on_empty,
    )
    check_pairs(data.columns.text_pair is not None, record.columns, f"data '{source}', {data.columns}: ")
    if data.split(split).labels is None:
        raise DataError(
            f"data '{source}': the rows of {split} have no labels to compare with; choose a split that has "
            "labels with `split`"
        )
    return data
