"""`evaluate`: a classifier and labelled data in, metrics out, as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ptune.adapter.layout import Record
from ptune.data.columns import check_pairs
from ptune.data.load import load_data
from ptune.data.splits import TextData
from ptune.data.targets import MULTI, SINGLE, ProblemType, default_labels
from ptune.errors import DataError
from ptune.evaluation.metrics import by_label, confusion, evaluate_logits
from ptune.inference.answers import probabilities
from ptune.inference.classifier import TextClassifier
from ptune.model.checks import check_task
from ptune.model.objective import Objective


@dataclass(frozen=True)
class RowScores:
    """What is known of each row, in the split's order.

    outputs: probabilities [N, C] in the labels' order; of a regression numbers [N, 1]. losses: [N], in nats, or squared
    errors.
    """

    outputs: list[list[float]]
    losses: list[float]


@dataclass(frozen=True)
class Evaluation:
    """How well a classifier does on one split.

    metrics: by name; `ptune.evaluation.metrics.evaluate_logits` explains them.
    labels: names in index order.
    confusion_matrix: [C, C], rows are true classes and columns predicted ones; None unless every row has one label.
    by_label: precision, recall, f1 and support (rows that have the label) of each label; empty for a regression.
    rows: None unless `per_row` was asked for.
    """

    metrics: dict[str, float]
    split: str
    problem_type: ProblemType
    labels: list[str]
    confusion_matrix: list[list[int]] | None = None
    by_label: dict[str, dict[str, float]] | None = None
    rows: RowScores | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return everything in types of JSON, the metrics at the top; what is None is left out."""
        rest = {name: value for name, value in asdict(self).items() if name != "metrics" and value is not None}
        return {**self.metrics, **rest}


def evaluate(
    classifier: TextClassifier,
    data: TextData,
    split: str = "validation",
    batch_size: int | None = None,
    *,
    per_row: bool = False,
) -> Evaluation:
    """Measure a classifier on a labelled split.

    Args:
        classifier: from `ptune.load` or `TrainResult.classifier`.
        data: from `ptune.load_data`, with the classifier's labels in the same order.
        split: train, validation or test.
        batch_size: rows of a forward pass. Default: as many as suit the device.
        per_row: also give the probabilities and the loss of every row.

    Raises:
        DataError: there is no such split, its rows have no labels, or it holds pairs where the classifier takes single
            texts (or the other way round).
        ConfigError: the classifier answers another type of problem, or other labels.
    """
    rows = data.split(split)
    unnamed = classifier.labels == default_labels(len(data.labels))  # as those of PEFT's files may be
    check_task(classifier.model.problem_type, data.labels if unnamed else classifier.labels, data)
    targets = data.targets(split)
    logits = classifier.split_logits(rows, batch_size)
    problem_type, labels = data.problem_type, classifier.labels
    details: dict[str, Any] = {}
    if problem_type == SINGLE:
        details["confusion_matrix"] = confusion(logits, targets)
    if problem_type in (SINGLE, MULTI):
        details["by_label"] = dict(zip(labels, by_label(logits, targets), strict=True))
    if per_row:
        outputs = logits if problem_type not in (SINGLE, MULTI) else _probabilities(logits, classifier)
        losses = Objective(problem_type).row_losses(
            logits.double(), targets if problem_type == SINGLE else targets.double()
        )
        details["rows"] = RowScores(outputs.tolist(), losses.tolist())
    metrics = evaluate_logits(logits, targets, problem_type, classifier.temperature)
    return Evaluation(metrics, split, problem_type, list(labels), **details)


def _probabilities(logits: Any, classifier: TextClassifier) -> Any:
    return probabilities(logits.double(), classifier.model.problem_type, classifier.temperature)


def load_evaluation_data(
    record: Record,
    source: str | Path,
    split: str = "validation",
    *,
    labels: Sequence[str] | None = None,
    text: str | None = None,
    text_pair: str | None = None,
    label: str | None = None,
    label_separator: str | None = None,
    revision: str | None = None,
) -> TextData:
    """Read one split as an adapter needs it: its columns, its labels in its order, its type of problem.

    Args:
        record: of the adapter.
        source, text, text_pair, label, label_separator, revision: see `load_data`. Default: as in training.
        labels: names in index order, where the record has none, as those of PEFT's files.

    Raises:
        DataError: the data cannot be read, the rows have no labels, or they are pairs where the adapter was trained on
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
    )
    check_pairs(data.columns.text_pair is not None, record.columns, f"data '{source}', {data.columns}: ")
    if data.split(split).labels is None:
        raise DataError(
            f"data '{source}': the rows of {split} have no labels, so there is nothing to compare with; choose a split "
            "that has them with `split`"
        )
    return data
