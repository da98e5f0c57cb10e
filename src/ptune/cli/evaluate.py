"""ptune evaluate"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ptune.cli.options import BatchSize, ColumnOptions, Columns, Json, Place, Prediction, PredictionOptions
from ptune.cli.terminal import Terminal

if TYPE_CHECKING:
    from ptune.evaluation.evaluate import Evaluation

_ALWAYS = ("ece", "ece_raw", "loss", "count")  # printed beside the metrics that a benchmark judges by
_LARGEST_MATRIX = 20  # classes up to which the confusion matrix fits a terminal


def evaluate(
    adapter: Place,
    /,
    *,
    data: Place,
    split: str = "validation",
    data_revision: str | None = None,
    backbone: Place | None = None,
    batch_size: BatchSize = None,
    json: Json = False,
    columns: Columns = None,
    device: Prediction = None,
) -> None:
    """Measure an adapter on labelled data.

    Prints accuracy, F1 (binary and macro), Matthews correlation, loss, expected calibration error (of the calibrated
    probabilities and of the raw ones), count, and the confusion matrix. Where rows may have several labels: the share
    of rows with all labels right, F1 (micro and macro), and precision, recall and F1 of each label. Of a regression:
    errors (mse, mae), correlations (pearson, spearman) and r2. Of a task of GLUE or SuperGLUE: what it is judged by.

    With --precision the metrics stand beside those of PyTorch in float32, with the difference.

    Examples:
      ptune evaluate mrpc --data glue/mrpc
      ptune evaluate reviews --data reviews-test.csv
      ptune evaluate reviews --data folder/ --split test --json
      ptune evaluate my-name/mrpc@v2 --data glue/mrpc
      ptune evaluate from-peft --data folder/ --backbone roberta-large
      ptune evaluate mrpc --data glue/mrpc --precision int8

    Parameters
    ----------
    adapter
        Folder of an adapter, ptune's or PEFT's; or a Hub id, OWNER/NAME or OWNER/NAME@REVISION.
    data
        A folder with files of the split, one file (read whole), or a Hub id.
    split
        Which split of a folder or a Hub data set.
    data_revision
        Branch, tag or commit of a Hub data set.
    backbone
        The backbone, where the adapter's own note of it does not lead to one.
    """
    from ptune.adapter.folder import read_adapter
    from ptune.backends.openvino.backbone import CompiledBackbone
    from ptune.evaluation.evaluate import evaluate, load_evaluation_data
    from ptune.inference.classifier import load

    terminal = Terminal(json)
    options = device or PredictionOptions()
    file = read_adapter(adapter)
    wanted = {**(columns or ColumnOptions()).model_dump(), "revision": data_revision}
    rows = load_evaluation_data(file.record, data, split, **wanted)  # first, as a backbone takes long to load
    classifier = load(file, backbone, **options.model_dump())
    if file.record.labels is None:  # PEFT's own adapters leave them to the backbone
        rows = load_evaluation_data(file.record, data, split, labels=classifier.labels, **wanted)
    terminal.say(rows.notes[0])
    evaluation = evaluate(classifier, rows, split, batch_size)
    shown = [name for name in evaluation.metrics if not rows.metrics or name in (*rows.metrics, *_ALWAYS)]
    compared: dict[str, Any] = {}
    if isinstance(classifier.model.backbone, CompiledBackbone):
        plain = evaluate(load(file, classifier.model.backbone.original), rows, split, batch_size).metrics
        _print_beside(terminal, shown, evaluation.metrics, plain, str(options.precision))
        compared = {"precision": options.precision, "fp32": plain}
    else:
        terminal.table([(name, _shown(name, evaluation.metrics)) for name in shown])
    _print_details(terminal, evaluation)
    terminal.answer({**evaluation.to_dict(), **compared})


def _shown(name: str, metrics: dict[str, float]) -> str:
    return str(metrics[name]) if name == "count" else f"{metrics[name]:.4f}"


def _print_beside(
    terminal: Terminal, names: list[str], metrics: dict[str, float], plain: dict[str, float], precision: str
) -> None:
    """Print the metrics beside those of PyTorch in float32, and what the precision costs or gains."""
    lines = [
        (
            name,
            _shown(name, metrics),
            _shown(name, plain),
            "" if name == "count" else f"{metrics[name] - plain[name]:+.4f}",
        )
        for name in names
    ]
    terminal.table([("", precision, "PyTorch fp32", "difference"), *lines])


def _print_details(terminal: Terminal, evaluation: Evaluation) -> None:
    """Print the confusion matrix; of a multi-label task the metrics of each label."""
    if evaluation.confusion_matrix is not None:
        _print_matrix(terminal, evaluation.labels, evaluation.confusion_matrix)
    elif evaluation.by_label is not None:
        heads = ("precision", "recall", "f1")
        lines = [
            (label, *(f"{metrics[head]:.4f}" for head in heads), str(metrics["support"]))
            for label, metrics in evaluation.by_label.items()
        ]
        terminal.table([("label", *heads, "support"), *lines])


def _print_matrix(terminal: Terminal, labels: list[str], matrix: list[list[int]]) -> None:
    if len(labels) > _LARGEST_MATRIX:
        terminal.say(f"confusion matrix of {len(labels)} classes: see --json")
        return
    terminal.say("confusion matrix (rows: true, columns: predicted)")
    terminal.table([("", *labels), *((label, *map(str, row)) for label, row in zip(labels, matrix, strict=True))])
