"""ptune evaluate"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ptune.cli.options import (
    Adapter,
    BatchSize,
    ColumnOptions,
    Columns,
    Json,
    Labels,
    Place,
    Prediction,
    PredictionOptions,
    ProblemOfPeft,
    Source,
    Target,
    Threshold,
)
from ptune.cli.peft_task import read_labelled, read_with_task
from ptune.cli.progress import rows_progress
from ptune.cli.report import write
from ptune.cli.terminal import Terminal, type_and_device

if TYPE_CHECKING:
    from torch import Tensor

    from ptune.adapter.layout import Record
    from ptune.data.splits import Origin, TextData
    from ptune.evaluation.evaluate import Evaluation
    from ptune.inference.classifier import TextClassifier
    from ptune.model.backbone import Backbone

logger = logging.getLogger(__name__)

_ALWAYS = ("ece", "ece_raw", "loss", "count")  # printed in addition to the metrics of a benchmark's task
_LARGEST_MATRIX = 20  # most classes for which a confusion matrix is printed: more do not fit a terminal


def evaluate(
    adapter: Adapter,
    /,
    *,
    data: Source,
    split: str = "validation",
    data_revision: str | None = None,
    backbone: Place | None = None,
    batch_size: BatchSize = None,
    threshold: Threshold = None,
    report: Target | None = None,
    labels: Labels = None,
    problem_type: ProblemOfPeft = None,
    json: Json = False,
    columns: Columns = None,
    device: Prediction = None,
) -> None:
    """Measure an adapter on labelled data.

    The metrics depend on the kind of labels.

    One label per row: accuracy, F1 (binary for two classes, otherwise macro), macro F1, Matthews correlation, expected
    calibration error (ece; ece_raw is the error before calibration), loss, the number of rows, and the confusion
    matrix.

    Several labels per row: the share of rows with all labels right (accuracy), micro F1, macro F1, and precision,
    recall and F1 of each label.

    Regression: mean squared and mean absolute error (mse, mae), Pearson and Spearman correlation, and r2.

    A task of GLUE or SuperGLUE: the metrics of the benchmark.

    With --precision, the metrics of PyTorch in float32 and the differences are printed as well.

    Examples:
      ptune evaluate mrpc --data glue/mrpc
      ptune evaluate reviews --data reviews-test.csv
      ptune evaluate reviews --data folder/ --split test --json
      ptune evaluate reviews --data reviews-test.csv --report test.html
      ptune evaluate my-name/mrpc@v2 --data glue/mrpc
      ptune evaluate from-peft --data folder/ --backbone roberta-large
      ptune evaluate mrpc --data glue/mrpc --precision int8

    Parameters
    ----------
    data
        Labelled data: a folder with a file for the split, a single file, a URL, or a Hub id.
    split
        The split of a folder or a Hub data set. A single file is read as a whole.
    data_revision
        Branch, tag or commit of a Hub data set.
    backbone
        The backbone. Default: the one recorded in the adapter.
    report
        File for a page that shows the results, such as test.html; see ptune report.
    """
    from ptune.backends.openvino.backbone import CompiledBackbone
    from ptune.evaluation.evaluate import evaluate
    from ptune.inference.classifier import load

    terminal = Terminal(json)
    options = device or PredictionOptions()
    if report is not None:
        from ptune.pages.writing import check_page

        check_page(report, "report")
    file = read_with_task(adapter, backbone, labels, problem_type)
    source = {**(columns or ColumnOptions()).model_dump(), "revision": data_revision}
    # First, because loading a backbone takes longer.
    rows = read_labelled(file, data, split, source, named=labels is not None)
    classifier = load(file, backbone, **options.model_dump())
    if threshold is not None:
        classifier = classifier.with_threshold(threshold)
    terminal.say(rows.notes[0])
    measured = rows.split(split)
    _warn_of_trained_rows(file.record, rows.origin, split, len(measured))
    with rows_progress(lambda: len(measured), bar=True) as on_rows:
        logits = classifier.split_logits(measured, batch_size, on_rows)
    evaluation = evaluate(classifier, rows, split, logits=logits)
    shown = [name for name in evaluation.metrics if not rows.metrics or name in (*rows.metrics, *_ALWAYS)]
    compared: dict[str, Any] = {}
    if isinstance(classifier.model.backbone, CompiledBackbone):
        original = replace(load(file, classifier.model.backbone.original), task=classifier.task)
        plain = evaluate(original, rows, split, batch_size).metrics
        _print_comparison(terminal, shown, evaluation.metrics, plain, str(options.precision))
        compared = {"precision": options.precision, "fp32": plain}
    else:
        terminal.table([(name, _format(name, evaluation.metrics)) for name in shown])
        same_rows = split == "validation" and rows.origin == file.record.data
        _compare_types(terminal, shown, evaluation.metrics, file.record, classifier.model.backbone, same_rows)
    _print_details(terminal, evaluation)
    if report is not None:
        compared["report"] = _write_report(terminal, classifier, rows, split, logits, report)
    terminal.answer({**evaluation.to_dict(), **compared})


def _warn_of_trained_rows(record: Record, origin: Origin | None, split: str, count: int) -> None:
    """Log a warning if rows have the name and the number of those that the adapter was trained on."""
    trained, held = (record.training.get(name) or 0 for name in ("train_rows", "validation_rows"))
    folds = record.training.get("folds")
    whole = trained if folds else trained + held  # a cross-validation gives the rows back
    if record.data is None or origin != record.data or not trained:
        return
    if count == whole or (split == "train" and count == trained):
        logger.warning(
            "the adapter was trained on %s %d rows, so these figures are better than those for new rows; measure rows "
            "that it has not seen",
            "these" if count == trained else f"{trained} of these",
            count,
        )


def _write_report(
    terminal: Terminal, classifier: TextClassifier, data: TextData, split: str, logits: Tensor, page: Target
) -> str:
    """Write the results as a page, and return its name."""
    from ptune.backends.openvino.backbone import CompiledBackbone
    from ptune.report.gather import PROMPT_SECONDS, gather_report

    # Without a virtual token a compiled backbone would have to be compiled again.
    seconds = 0.0 if isinstance(classifier.model.backbone, CompiledBackbone) else PROMPT_SECONDS
    write(terminal, gather_report(classifier, data, split, logits=logits, prompt_seconds=seconds), page)
    return str(page)


def _format(name: str, metrics: dict[str, float]) -> str:
    return str(metrics[name]) if name == "count" else f"{metrics[name]:.4f}"


def _compare_types(
    terminal: Terminal,
    names: list[str],
    metrics: dict[str, float],
    record: Record,
    backbone: Backbone,
    same_rows: bool,
) -> None:
    """Say so if training used another number type, with its results if they differ on the same rows.

    Args:
        same_rows: whether the rows seem to be the validation rows of the training.
    """
    trained = record.training.get("dtype")
    if trained is None or trained == backbone.dtype_name:
        return
    if not same_rows or record.training.get("folds") or metrics.get("count") != record.training.get("validation_rows"):
        terminal.say(f"this is {type_and_device(backbone)}; the adapter was trained in {trained}")
        return
    differing = [
        f"{name} {_format(name, dict(record.metrics))}"
        for name in names
        if name in record.metrics and _format(name, dict(record.metrics)) != _format(name, metrics)
    ]
    if differing:
        terminal.say(f"this is {type_and_device(backbone)}; training measured {', '.join(differing)} in {trained}")


def _print_comparison(
    terminal: Terminal, names: list[str], metrics: dict[str, float], plain: dict[str, float], precision: str
) -> None:
    """Print the metrics in this precision, those of PyTorch in float32, and the differences."""
    lines = [
        (
            name,
            _format(name, metrics),
            _format(name, plain),
            "" if name == "count" else f"{metrics[name] - plain[name]:+.4f}",
        )
        for name in names
    ]
    terminal.table([("", precision, "PyTorch fp32", "difference"), *lines])


def _print_details(terminal: Terminal, evaluation: Evaluation) -> None:
    """Print the confusion matrix, or for several labels per row the metrics of each label."""
    if evaluation.confusion_matrix is not None:
        _print_matrix(terminal, evaluation.labels, evaluation.confusion_matrix)
    elif evaluation.by_label is not None:
        names = ("precision", "recall", "f1")
        lines = [
            (label, *(f"{metrics[name]:.4f}" for name in names), str(metrics["support"]))
            for label, metrics in evaluation.by_label.items()
        ]
        terminal.table([("label", *names, "support"), *lines])


def _print_matrix(terminal: Terminal, labels: list[str], matrix: list[list[int]]) -> None:
    if len(labels) > _LARGEST_MATRIX:
        terminal.say(f"the confusion matrix of {len(labels)} classes is too large to print; use --json to get it")
        return
    terminal.say("confusion matrix (rows: true, columns: predicted)")
    terminal.table([("", *labels), *((label, *map(str, row)) for label, row in zip(labels, matrix, strict=True))])
