"""`train`: data and a model in, an adapter on disk and the best epoch's figures out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ptune.atomic import make_folder
from ptune.data.splits import TextData
from ptune.data.targets import REGRESSION
from ptune.errors import ConfigError
from ptune.model.classifier import PromptClassifier
from ptune.model.ensemble import PromptEnsemble
from ptune.predict import TextClassifier
from ptune.training.callbacks import Callbacks, TrainerCallbacks
from ptune.training.config import SettledConfig, Task, TrainConfig
from ptune.training.run import OnEpoch, OnStep, Run
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
    figures to the last digit. With `config.seeds` further models are trained beside it and the best state of all
    ends up in it, with figures that were measured beside the others and hold to rounding; with `config.ensemble`,
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
    told = TrainerCallbacks(callbacks) if callbacks else Callbacks()
    _check_fit(model, data)
    for sentence in model.config.unused():
        logger.warning("%s", sentence)
    config = settle(config or TrainConfig(), model, data)
    folder = Path(output).expanduser()
    make_folder(folder)
    models = [model, *(_another(model, config.seed + number) for number in range(1, config.seeds))]
    classifier = TextClassifier.around(PromptEnsemble(models) if config.ensemble else model, max_length)
    classifier.columns = asdict(data.columns)
    classifier.label_separator, classifier.origin = data.label_separator, data.origin
    rows, held_back = (_encode(classifier, data, name) for name in ("train", "validation"))
    classifier.encoder.warn_of_cuts(len(rows.labels) + len(held_back.labels))
    run = Run(classifier, models, rows, held_back, config, folder, on_step, on_epoch, told)
    if resume:
        run.resume()
    run.go()
    return _result(run, data)


def settle(config: TrainConfig, model: PromptClassifier, data: TextData) -> SettledConfig:
    """Fill in what was left open, for what is trained and the rows that there are; see `TrainConfig.settle`."""
    task = Task(
        rows=len(data.train),
        validation_rows=len(data.validation),
        classes=len(model.labels),
        width=model.backbone.output_width,
        problem_type=model.problem_type,
        pairs=data.train.pairs is not None,
        figures=data.figures,
        norm_first=model.backbone.norm_first,
        gpu=model.backbone.device.type == "cuda",
    )
    return config.settle(model.config, task)


def _another(model: PromptClassifier, seed: int) -> PromptClassifier:
    """A fresh model over the same backbone."""
    return PromptClassifier.from_backbone(
        model.backbone, model.config, labels=model.labels, seed=seed, problem_type=model.problem_type
    )


def _check_fit(model: PromptClassifier, data: TextData) -> None:
    if model.problem_type != data.problem_type:
        raise ConfigError(
            f"data '{data.source}' are {data.problem_type}, but the model was made for {model.problem_type}; make it "
            "with problem_type=data.problem_type, or read the data with another problem_type"
        )
    if model.problem_type != REGRESSION and model.labels != data.labels:
        raise ConfigError(
            f"data '{data.source}' have the labels {_shown(data.labels)} in this order, but the model was made for "
            f"{_shown(model.labels)}; make it with labels=data.labels"
        )


def _shown(labels: Sequence[str]) -> str:
    """Their number, and the first of them."""
    return f"({len(labels)}) {', '.join(labels[:5])}{', …' if len(labels) > 5 else ''}"


def _encode(classifier: TextClassifier, data: TextData, name: str) -> Rows:
    targets, split = data.targets(name), data.split(name)
    weights = None if split.weights is None else torch.tensor(split.weights)
    return Rows(classifier.encoder.encode(split.texts, split.pairs), targets, weights)


def _result(run: Run, data: TextData) -> TrainResult:
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
        classifier=run.classifier,
    )
