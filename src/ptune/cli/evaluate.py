"""ptune evaluate"""

from __future__ import annotations

from ptune.cli.options import BatchSize, ColumnOptions, Columns, Device, DeviceOptions, Json
from ptune.cli.terminal import Terminal

_LARGEST_MATRIX = 20  # classes up to which the confusion matrix fits a terminal


def evaluate(
    adapter: str,
    /,
    *,
    data: str,
    split: str = "validation",
    backbone: str | None = None,
    batch_size: BatchSize = 32,
    json: Json = False,
    columns: Columns = None,
    device: Device = None,
) -> None:
    """Measure an adapter on labelled data.

    Prints accuracy, F1 (binary and macro), Matthews correlation, loss, expected calibration error (of the calibrated
    probabilities and of the raw ones), count, and the confusion matrix.

    Examples:
      ptune evaluate mrpc --data glue/mrpc
      ptune evaluate reviews --data reviews-test.csv
      ptune evaluate reviews --data folder/ --split test --json
      ptune evaluate from-peft --data folder/ --backbone roberta-large

    Parameters
    ----------
    adapter
        Folder of an adapter, ptune's or PEFT's.
    data
        A folder with files of the split, one file (read whole), or a Hub id.
    split
        Which split of a folder or a Hub data set.
    backbone
        The backbone, where the adapter's own note of it does not lead to one.
    """
    import torch

    from ptune.data.sources import load_data
    from ptune.errors import DataError
    from ptune.metrics import confusion, evaluate_logits
    from ptune.predict import load

    terminal = Terminal(json)
    columns = columns or ColumnOptions()
    options = device or DeviceOptions()
    classifier = load(adapter, backbone, device=options.device, dtype=options.dtype)
    rows = load_data(
        data,
        text=columns.text,
        text_pair=columns.text_pair,
        label=columns.label,
        labels=classifier.labels,
        only=split,
    )
    part = rows.split(split)
    if part.labels is None:
        raise DataError(f"data '{data}': the rows of {split} have no labels, so there is nothing to compare with")
    terminal.say(rows.notes[0])
    truth = torch.tensor(part.labels)
    logits = classifier.split_logits(part, batch_size)
    metrics = evaluate_logits(logits, truth, classifier.temperature)
    matrix = confusion(logits, truth)
    terminal.table([(name, f"{value:.4f}" if name != "count" else str(value)) for name, value in metrics.items()])
    _print_matrix(terminal, classifier.labels, matrix)
    answer = {**metrics, "split": split, "labels": classifier.labels, "confusion_matrix": matrix}
    terminal.answer(answer)


def _print_matrix(terminal: Terminal, labels: list[str], matrix: list[list[int]]) -> None:
    if len(labels) > _LARGEST_MATRIX:
        terminal.say(f"confusion matrix of {len(labels)} classes: see --json")
        return
    terminal.say("confusion matrix (rows: true, columns: predicted)")
    terminal.table([("", *labels), *((label, *map(str, row)) for label, row in zip(labels, matrix, strict=True))])
