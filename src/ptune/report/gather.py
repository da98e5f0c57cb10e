"""Gather what a report says, from a classifier and labelled rows."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ptune.adapter.folder import read_adapter
from ptune.adapter.layout import Record
from ptune.data.encode import TextEncoder
from ptune.data.metric_table import shown
from ptune.data.splits import Split, TextData
from ptune.data.targets import REGRESSION, SINGLE, ProblemType
from ptune.durations import in_words
from ptune.evaluation.chance import describe_interval, is_chance
from ptune.evaluation.evaluate import Evaluation, data_for, evaluate
from ptune.evaluation.metrics import describe_collapse
from ptune.inference.classifier import TextClassifier
from ptune.report import measure
from ptune.report.contents import Lengths, Numbers, PromptContent, Report
from ptune.report.prompt import MOST_ROWS, prompt_content
from ptune.version import __version__

PROMPT_SECONDS = 10.0  # for how important each virtual token is
MOST_LENGTHS = 2000  # rows whose lengths are looked at
MOST_NUMBERS = 2000  # rows of a regression that are shown
FEW_ROWS = 200  # with fewer, the page says how uncertain the figures are
# Settings that say nothing about how the model was trained.
_NOT_SETTINGS = {"best_epoch", "best_seed", "train_rows", "validation_rows", "dtype"}


def gather_report(
    classifier: TextClassifier,
    data: TextData,
    split: str = "validation",
    *,
    logits: Tensor | None = None,
    history: Sequence[Mapping[str, Any]] = (),
    name: str | None = None,
    notices: Sequence[str] = (),
    batch_size: int | None = None,
    prompt_seconds: float = PROMPT_SECONDS,
) -> Report:
    """Measure a classifier on labelled rows, and gather everything that a report says.

    Args:
        classifier: from `ptune.load` or `TrainResult.classifier`.
        data: from `load_data`, with the classifier's labels in the same order, or anything that `load_data` takes.
        split: the split to measure on.
        logits: those of the rows [N, C], if they are known already.
        history: the lines of metrics.jsonl.
        name: what the classifier is called. Default: its folder's name.
        notices: sentences that a reader has to see first.
        batch_size: rows per forward pass. Default: as many as suit the device.
        prompt_seconds: time for measuring how important each virtual token is; 0: this is not measured.

    Raises:
        DataError: there is no such split, or its rows have no labels.
        ConfigError: the data have other labels or another problem type.
    """
    data = data_for(classifier, data, split)
    rows, targets = data.split(split), data.targets(split)
    if logits is None:
        logits = classifier.split_logits(rows, batch_size)
    evaluation = evaluate(classifier, data, split, logits=logits)
    problem_type, decision, labels = data.problem_type, classifier.task.decision, list(classifier.labels)
    temperature = classifier.temperature
    record = None if classifier.folder is None else read_adapter(classifier.folder).record
    training = record.training if record is not None else {}
    mistakes, uncertain = measure.telling_rows(rows, logits, targets, labels, problem_type, temperature, decision)
    report = Report(
        name=name or (classifier.folder.resolve().name if classifier.folder else "classifier"),
        data=f"{data.origin.name if data.origin else data.source}, {split}",
        rows=len(rows),
        problem_type=problem_type,
        labels=labels,
        metrics=evaluation.metrics,
        majority=data.majority_share(split),
        history=[dict(line) for line in history],
        best_epoch=_best_epoch(training, history),
        best_metric=_best_metric(training, history, problem_type),
        matrix=evaluation.confusion_matrix,
        pairs=measure.confused_pairs(logits, targets, labels, problem_type, decision),
        by_label=measure.label_scores(evaluation.by_label, problem_type, decision),
        calibration=measure.calibration(logits, targets, problem_type, temperature),
        mistakes=mistakes,
        uncertain=uncertain,
        lengths=text_lengths(classifier, rows),
        prompt=_prompt(classifier, rows, targets, prompt_seconds),
        facts=_facts(classifier, data, record, history),
        notices=[*notices, *_notices(evaluation, logits, targets, classifier)],
    )
    if problem_type == REGRESSION:
        chosen = _evenly(len(rows), MOST_NUMBERS)
        return replace(report, numbers=Numbers(targets[chosen].double().tolist(), logits[chosen, 0].double().tolist()))
    certain = measure.certainty(logits, problem_type, temperature, decision)
    right = measure.correct(logits, targets, problem_type, decision)
    return replace(report, coverage=measure.coverage(certain, right))


def text_lengths(classifier: TextClassifier, rows: Split) -> Lengths:
    """Return the lengths of texts in tokens, special tokens and a template's words included, before they are cut."""
    encoder = classifier.encoder
    template = encoder.template.text if encoder.template is not None else None
    uncut = TextEncoder(encoder.tokenizer, 2**30, encoder.pair_separator, template)
    sample = rows.select(_evenly(len(rows), MOST_LENGTHS))
    lengths = [len(row) for row in uncut.encode(sample.texts, sample.pairs)]
    cut = sum(length > encoder.max_length for length in lengths)
    return Lengths(lengths, encoder.max_length, cut, len(sample) < len(rows))


def _prompt(classifier: TextClassifier, rows: Split, targets: Tensor, seconds: float) -> PromptContent | None:
    chosen = _evenly(len(rows), MOST_ROWS)
    sample = rows.select(chosen)
    return prompt_content(classifier, classifier.encode(sample.texts, sample.pairs), targets[chosen], seconds)


def _evenly(count: int, most: int) -> list[int]:
    """Return the numbers of at most `most` of `count` rows, from all over them."""
    return [number * count // min(count, most) for number in range(min(count, most))]


def _best_epoch(training: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> int | None:
    """Return the number of the epoch that was kept, if it is in the history."""
    epoch = training.get("best_epoch")
    return epoch if any(line.get("epoch") == epoch for line in history) else None


def _best_metric(training: Mapping[str, Any], history: Sequence[Mapping[str, Any]], problem_type: ProblemType) -> str:
    """Return the metric to draw: the one that picked the epoch, or the first that is shown."""
    best = str(training.get("best"))
    usable = best != "loss" and all(isinstance(line.get(best), int | float) for line in history) and bool(history)
    return best if usable else shown(problem_type)[0]


def _notices(evaluation: Evaluation, logits: Tensor, targets: Tensor, classifier: TextClassifier) -> list[str]:
    problem_type, metrics = evaluation.problem_type, evaluation.metrics
    count, found = int(metrics["count"]), []
    collapse = describe_collapse(logits, targets, classifier.labels, problem_type, classifier.task.decision)
    if collapse is not None:
        found.append(f"{collapse[0].upper()}{collapse[1:]}: the model has learned nothing that shows on these rows.")
    elif is_chance(metrics, problem_type):
        found.append("These figures are no better than chance.")
    if count < FEW_ROWS:
        few = f": {describe_interval(metrics['accuracy'], count)} of the accuracy" if problem_type == SINGLE else ""
        found.append(f"There are only {count} rows, so all figures are uncertain{few}.")
    return found


def _facts(
    classifier: TextClassifier, data: TextData, record: Record | None, history: Sequence[Mapping[str, Any]]
) -> dict[str, list[tuple[str, str]]]:
    """Return names and values by section."""
    model, sections = classifier.model, {}
    backbone = model.backbone
    training = record.training if record is not None else {}
    settings = {**model.config.model_dump(exclude_none=True), **training}
    sections["Settings"] = [
        (_words(name), _value(value))
        for name, value in settings.items()
        if name not in _NOT_SETTINGS and value is not None and value != {}
    ]
    sizes = [(name, f"{len(split):,}") for name, split in data.splits.items()]
    recorded = [("train", "train_rows"), ("validation", "validation_rows")]
    sizes += [(name, f"{training[key]:,}") for name, key in recorded if name not in data.splits and key in training]
    columns = {name: column for name, column in vars(data.columns).items() if column}
    sections["Data"] = [
        ("source", data.origin.name if data.origin else data.source),
        *((f"rows of {name}", size) for name, size in sizes),
        ("labels", str(len(classifier.labels)) if data.problem_type != REGRESSION else classifier.labels[0]),
        *((f"column of {_words(name)}", _value(column)) for name, column in columns.items()),
    ]
    trained, total = model.trainable_parameters()
    sections["Model"] = [
        ("backbone", backbone.name),
        ("type", str(backbone.facts().get("model_type") or "unknown")),
        ("layers, width", f"{backbone.layers}, {backbone.facts().get('width')}"),
        ("number type, device", f"{backbone.dtype_name}, {backbone.device}"),
        ("parameters of the backbone", f"{total - trained:,}"),
        ("longest text", f"{classifier.encoder.max_length:,} tokens"),
    ]
    seconds = history[-1].get("seconds") if history else None
    now = datetime.datetime.now().astimezone()
    sections["Time"] = [
        *([("training", in_words(round(float(seconds), 1)))] if isinstance(seconds, int | float) else []),
        *([("epochs", str(len(history)))] if history else []),
        ("report", f"{now:%Y-%m-%d %H:%M %Z}".strip()),
    ]
    own = {"ptune": __version__, "torch": torch.__version__}
    versions = record.versions if record is not None and record.versions else own
    sections["Versions"] = [(name, version) for name, version in versions.items()]
    return sections


def _words(name: str) -> str:
    return name.replace("_", " ")


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
