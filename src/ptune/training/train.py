"""`train`: takes a model and data, writes an adapter and returns the metrics of the best epoch."""

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
from ptune.data.load import load_data
from ptune.data.metric_table import choices
from ptune.data.splits import TextData
from ptune.data.targets import ProblemType
from ptune.errors import ConfigError
from ptune.evaluation.own_metrics import OwnMetrics, check_metrics, try_metrics
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
    """The result of a run.

    metrics: validation metrics of the best epoch.
    best_epoch: its number, from 1.
    epochs: number of epochs that were run.
    trainable_params: number of trained parameters.
    all_params: these and the parameters of the frozen backbone.
    seconds: time of training and evaluation.
    examples_per_second: training rows per second of that time.
    adapter: folder of the adapter.
    majority: accuracy of always predicting the most frequent answer; None for a regression.
    history: the lines of the metrics file, one per epoch.
    classifier: the trained classifier, as loading the adapter would give it.
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
    data: Any,
    config: TrainConfig | None = None,
    *,
    output: str | Path,
    max_length: int | None = None,
    resume: bool = False,
    on_step: OnStep | None = None,
    on_epoch: OnEpoch | None = None,
    callbacks: Sequence[Any] = (),
    metrics: OwnMetrics | None = None,
    best: str | None = None,
) -> TrainResult:
    """Train a prompt and its head, and write the adapter of the best epoch to `output`.

    When this returns, the model holds exactly the state of the best epoch: evaluating it gives the recorded metrics to
    the last digit. With `config.seeds`, more models are trained in parallel, and the model receives the best state of
    all. Its metrics were then measured in batches shared with the other models, and agree up to rounding. With
    `config.ensemble`, `result.classifier.model` is the ensemble of all models.

    Args:
        model: the model to train; only its prompt encoder and head change.
        data: from `ptune.load_data`, with the splits train and validation. Or anything that `load_data` takes, such
            as a DataFrame; it is then read with the labels of the model.
        config: settings; those left None follow from the method and the task.
        output: folder for the adapter, metrics.jsonl and the checkpoint.
        max_length: tokens to cut texts to. The default is also the maximum: as many as fit into the backbone together
            with the prompt.
        resume: continue from the checkpoint in `output`, if there is one, as if the run had never stopped.
        on_step: called after each step; see `ptune.training.events`.
        on_epoch: called after each epoch with its line of metrics.jsonl.
        metrics: more metrics to measure after each epoch, by name. They are functions (truth, predicted) that return a
            number, higher being better, such as those of scikit-learn; see `ptune.evaluation.own_metrics` for what they
            are called with.
        best: the metric that picks the best epoch: one of `metrics`, or what `config.best` may be. None: `config.best`.
        callbacks: TrainerCallbacks of transformers, such as EarlyStoppingCallback; see `ptune.training.callbacks`.

    Raises:
        TrainingError: the loss is not a finite number. The last good state is in the checkpoint.
        TrainingError: the device has no memory for a single row, or for the optimizer.
        ConfigError: model and data have different problem types or labels.
        ConfigError: a setting does not apply to the task.
        ConfigError: `resume` finds a checkpoint of another run.
        ConfigError: `callbacks` holds something other than callbacks.
        ConfigError: `best` is not a metric, or one of `metrics` fails or gives no number.
        AdapterError: `resume` finds a damaged checkpoint.
        DataError: the data cannot be read, or validation has no labels.
        OutputError: `output` cannot be written.
    """
    events = TrainerCallbacks(callbacks) if callbacks else Events()
    config = config or TrainConfig()
    if not isinstance(data, TextData):
        data = load_data(data, labels=model.labels, problem_type=model.problem_type, seed=config.seed)
    check_task(model.problem_type, model.labels, data)
    for message in model.config.unused():
        logger.warning("%s", message)
    metrics = dict(metrics or {})
    check_metrics(metrics, model.problem_type)
    config = _with_best(settle(config, model, data), best, metrics, model.problem_type)
    folder = Path(output).expanduser()
    make_folder(folder)
    models = [model, *(_new_model_like(model, config.seed + number) for number in range(1, config.seeds))]
    task = TaskInfo(asdict(data.columns), data.label_separator, data.origin)
    classifier = TextClassifier.around(PromptEnsemble(models) if config.ensemble else model, max_length, task=task)
    train_rows, validation_rows = (_encode(classifier, data, name) for name in ("train", "validation"))
    encoded = [*train_rows.encoded, *validation_rows.encoded]
    warn_of_cuts(sum(row.cut for row in encoded), len(encoded), classifier.encoder.max_length)
    try_metrics(metrics, validation_rows.labels, len(model.labels), model.problem_type)
    run = Run(classifier, models, train_rows, validation_rows, config, folder, on_step, on_epoch, events, metrics)
    if resume:
        run.resume()
    return _result(run, run.go(), data)


def settle(config: TrainConfig, model: PromptClassifier, data: TextData) -> SettledConfig:
    """Return the settings with every default filled in for a model and its data; see `TrainConfig.settle`."""
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


def _with_best(
    config: SettledConfig, best: str | None, metrics: OwnMetrics, problem_type: ProblemType
) -> SettledConfig:
    """Return settings in which `best`, which may be one of the user's metrics, picks the best epoch."""
    if best is None:
        return config
    names = (*metrics, *choices(problem_type), "last")
    if best not in names:
        raise ConfigError(
            f"`best` '{best}' is not a metric of this run; use one of {', '.join(names)}",
            field="best",
            value=best,
            expected=", ".join(names),
        )
    return SettledConfig(**{**config.model_dump(), "best": best})  # checked again, as with `patience`


def _new_model_like(model: PromptClassifier, seed: int) -> PromptClassifier:
    """Return an untrained model with the same backbone and configuration."""
    return PromptClassifier.from_backbone(
        model.backbone, model.config, labels=model.labels, seed=seed, problem_type=model.problem_type
    )


def _encode(classifier: TextClassifier, data: TextData, name: str) -> Rows:
    """Return the encoded rows of a split."""
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
