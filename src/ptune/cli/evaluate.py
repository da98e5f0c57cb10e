"""ptune evaluate"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from ptune.cli.options import BatchSize, ColumnOptions, Columns, Json, Place, Prediction, PredictionOptions
from ptune.cli.terminal import Terminal
from ptune.data.targets import MULTI, SINGLE, ProblemType

if TYPE_CHECKING:
    from torch import Tensor

_ALWAYS = ("ece", "ece_raw", "loss", "count")  # printed beside the figures that a benchmark judges by
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

    With --precision the figures stand beside those of PyTorch in float32, with the difference.

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
    from ptune.adapter.files import read_adapter
    from ptune.data.columns import OPTIONS, check_pairs
    from ptune.data.sources import load_data
    from ptune.errors import DataError
    from ptune.metrics import evaluate_logits
    from ptune.model.openvino import CompiledBackbone
    from ptune.predict import load

    terminal = Terminal(json)
    columns = columns or ColumnOptions()
    options = device or PredictionOptions()
    file = read_adapter(adapter)
    read = partial(
        load_data,
        data,
        text=columns.text,
        text_pair=columns.text_pair,
        label=columns.label,
        problem_type=file.record.problem_type,
        label_separator=columns.label_separator or file.record.label_separator,
        only=split,
        trained=file.record.columns,
        revision=data_revision,
    )
    rows = read(labels=file.record.labels)  # first, as a backbone is long in loading
    check_pairs(rows.columns.text_pair is not None, file.record.columns, f"data '{data}', {rows.columns}: ", OPTIONS)
    if rows.split(split).labels is None:
        raise DataError(
            f"data '{data}': the rows of {split} have no labels, so there is nothing to compare with; measure on a "
            "split that has them (--split)"
        )
    classifier = load(file, backbone, **options.model_dump())
    if file.record.labels is None:  # PEFT's own adapters leave them to the backbone
        rows = read(labels=classifier.labels)
    terminal.say(rows.notes[0])
    truth = rows.targets(split)
    logits = classifier.split_logits(rows.split(split), batch_size)
    metrics = evaluate_logits(logits, truth, rows.problem_type, classifier.temperature)
    shown = {name: metrics[name] for name in metrics if not rows.figures or name in (*rows.figures, *_ALWAYS)}
    plain: dict[str, float] = {}
    if isinstance(classifier.model.backbone, CompiledBackbone):
        reference = load(file, classifier.model.backbone.original).split_logits(rows.split(split), batch_size)
        plain = evaluate_logits(reference, truth, rows.problem_type, classifier.temperature)
    if plain:
        _print_beside(terminal, shown, plain, str(options.precision))
    else:
        terminal.table([(name, f"{value:.4f}" if name != "count" else str(value)) for name, value in shown.items()])
    detail = _details(terminal, rows.problem_type, classifier.labels, logits, truth)
    compared = {"precision": options.precision, "fp32": plain} if plain else {}
    terminal.answer({**metrics, **compared, "split": split, "labels": classifier.labels, **detail})


def _print_beside(terminal: Terminal, metrics: dict[str, float], plain: dict[str, float], precision: str) -> None:
    """The figures beside those of PyTorch in float32, and what the precision costs or gains."""
    figures = [name for name in metrics if name != "count"]
    lines = [(n, f"{metrics[n]:.4f}", f"{plain[n]:.4f}", f"{metrics[n] - plain[n]:+.4f}") for n in figures]
    count = ("count", str(metrics["count"]), str(plain["count"]), "")
    terminal.table([("", precision, "PyTorch fp32", "difference"), *lines, count])


def _details(
    terminal: Terminal, problem_type: ProblemType, labels: list[str], logits: Tensor, truth: Tensor
) -> dict[str, Any]:
    """What there is beyond the figures: printed, and as a part of the JSON answer."""
    from ptune.metrics import by_label, confusion

    if problem_type == SINGLE:
        matrix = confusion(logits, truth)
        _print_matrix(terminal, labels, matrix)
        return {"confusion_matrix": matrix}
    if problem_type == MULTI:
        figures = dict(zip(labels, by_label(logits, truth), strict=True))
        heads = ("precision", "recall", "f1")
        lines = [(name, *(f"{own[head]:.4f}" for head in heads), str(own["support"])) for name, own in figures.items()]
        terminal.table([("label", *heads, "support"), *lines])
        return {"by_label": figures}
    return {}


def _print_matrix(terminal: Terminal, labels: list[str], matrix: list[list[int]]) -> None:
    if len(labels) > _LARGEST_MATRIX:
        terminal.say(f"confusion matrix of {len(labels)} classes: see --json")
        return
    terminal.say("confusion matrix (rows: true, columns: predicted)")
    terminal.table([("", *labels), *((label, *map(str, row)) for label, row in zip(labels, matrix, strict=True))])
