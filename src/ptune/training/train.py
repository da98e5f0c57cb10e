"""`train`: data and a model in, an adapter on disk and the best epoch's metrics out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ptune.adapter.layout import TaskInfo
from ptune.atomic import make_folder
from ptune.data.encode import warn_of_cuts
from ptune.data.splits import TextData
from ptune.inference.classifier import TextClassifier
from ptune.model.checks import check_task
from ptune.model.classifier import PromptClassifier
from ptune.model.ensemble import PromptEnsemble
from ptune.training.callbacks import TrainerCallbacks
from ptune.training.config import SettledConfig, Task, TrainConfig
from ptune.training.events import Events, OnEpoch, OnStep
from ptune.training.run import Run
from ptune.training.steps import Rows

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainResult:
    """What a run gave. metrics are the best epoch's on validation; seconds are of training and evaluation.

    majority: accuracy of always giving the commonest answer; None of a regression.
    """

    metrics: dict[str, float]
    best_epoch: int
    epochs: int
    trainable_params: int
    all_params: int
    seconds: float
    examples_per_second: float
    adapter: str
    majority: float | None
    history: list[dict[str, Any]]
    classifier: TextClassifier


def train(
    model: PromptClassifier,
    data: TextData,
    config: TrainConfig | None = None,
    *,
    output: str | Path,
    max_length: int | None = None,
    resume: bool = False,
    on_step: OnStep | None = None,
    on_epoch: OnEpoch | None = None,
    callbacks: Sequence[Any] = (),
) -> TrainResult:
    """Train a prompt and its head; write the best epoch's adapter to `output`.

    The model holds the best epoch's state when this returns, exactly: evaluating it gives the recorded
    metrics to the last digit. With `config.seeds` further models are trained beside it and the best state of all
    ends up in it, with metrics that were measured beside the others and hold to rounding; with `config.ensemble`,
    `result.classifier.model` is the ensemble of all.

    Args:
        model: what to train; only its prompt encoder and head change.
        data: with the splits train and validation.
        config: settings; those left None follow from the method and the task.
        output: folder of the adapter, its metrics.jsonl and its checkpoint.
        max_length: tokens to cut texts to; at most, and by default, what the backbone holds beside the prompt.
        resume: go on from the checkpoint in `output`, if there is one, as if never stopped.
        on_step, on_epoch: called along the way.
        callbacks: transformers' TrainerCallbacks, such as EarlyStoppingCallback; see `ptune.training.callbacks`.

    Raises:
        TrainingError: the loss is no longer a number. The last good state is in the checkpoint.
        ConfigError: model and data are of different problem types; a setting does not suit them; `resume` finds a
            checkpoint of another run; a callback is none.
        DataError: validation has no labels. OutputError: `output` cannot be written.
    """
    events = TrainerCallbacks(callbacks) if callbacks else Events()
    check_task(model.problem_type, model.labels, data)
    for sentence in model.config.unused():
        logger.warning("%s", sentence)
    config = settle(config or TrainConfig(), model, data)
    folder = Path(output).expanduser()
    make_folder(folder)
    models = [model, *(_another(model, config.seed + number) for number in range(1, config.seeds))]
    task = TaskInfo(asdict(data.columns), data.label_separator, data.origin)
    classifier = TextClassifier.around(PromptEnsemble(models) if config.ensemble else model, max_length, task=task)
    rows, held_back = (_encode(classifier, data, name) for name in ("train", "validation"))
    encoded = [*rows.encoded, *held_back.encoded]
    warn_of_cuts(sum(row.cut for row in encoded), len(encoded), classifier.encoder.max_length)
    run = Run(classifier, models, rows, held_back, config, folder, on_step, on_epoch, events)
    if resume:
        run.resume()
    return _result(run, run.go(), data)


def settle(config: TrainConfig, model: PromptClassifier, data: TextData) -> SettledConfig:
    """Fill in what was left open, for what is trained and the rows that there are; see `TrainConfig.settle`."""
    task = Task(
        rows=len(data.train),
        validation_rows=len(data.validation),
        classes=len(model.labels),
        width=model.backbone.output_width,
        problem_type=model.problem_type,
        pairs=data.train.pairs is not None,
        metrics=data.metrics,
        norm_first=model.backbone.norm_first,
        gpu=model.backbone.device.type == "cuda",
    )
    return config.settle(model.config, task)


def _another(model: PromptClassifier, seed: int) -> PromptClassifier:
    """A fresh model over the same backbone."""
    return PromptClassifier.from_backbone(
        model.backbone, model.config, labels=model.labels, seed=seed, problem_type=model.problem_type
    )


def _encode(classifier: TextClassifier, data: TextData, name: str) -> Rows:
    targets, split = data.targets(name), data.split(name)
    weights = None if split.weights is None else torch.tensor(split.weights)
    return Rows(classifier.encoder.encode(split.texts, split.pairs), targets, weights)


def _result(run: Run, classifier: TextClassifier, data: TextData) -> TrainResult:
    trained, total = run.kept.trainable_parameters()
    progress = run.progress
    return TrainResult(
        metrics=progress.best_metrics,
        best_epoch=progress.best_epoch,
        epochs=len(progress.history),
        trainable_params=trained,
        all_params=total,
        seconds=progress.seconds,
        examples_per_second=progress.rows_seen / progress.seconds if progress.seconds else 0.0,
        adapter=str(run.folder),
        majority=data.majority_share("validation"),
        history=progress.history,
        classifier=classifier,
    )
