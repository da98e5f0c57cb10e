"""`train`: takes a model and data, writes an adapter and returns the metrics of the best epoch."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ptune.adapter.layout import TaskInfo
from ptune.atomic import make_folder
from ptune.data.batch import collate, pack
from ptune.data.encode import warn_of_cuts
from ptune.data.metric_table import choices
from ptune.data.splits import TextData, give_back
from ptune.evaluation.chance import interval, is_chance
from ptune.inference.classifier import TextClassifier
from ptune.inference.engine import run_logits
from ptune.model.checks import check_task
from ptune.model.classifier import PromptClassifier
from ptune.model.ensemble import PromptEnsemble
from ptune.model.gain import measure_gain
from ptune.model.memory import memory_errors
from ptune.training.callbacks import TrainerCallbacks
from ptune.training.config import SettledConfig, Task, TrainConfig
from ptune.training.events import Events, OnEpoch, OnStep
from ptune.training.folds import cross_validate
from ptune.training.run import Run
from ptune.training.steps import Rows
from ptune.training.validation import Measured

logger = logging.getLogger(__name__)

# The gain of a backbone is measured on so many training rows, or fewer if they have more tokens than this.
GAIN_ROWS, FEWEST_GAIN_ROWS, GAIN_TOKENS = 32, 4, 2048
# With fewer validation rows even a good prompt may look like chance.
ENOUGH_ROWS = 20


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
    chance: True if the metrics of the best epoch could come from answers that have nothing to do with the texts.
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
    chance: bool
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
    """Train a prompt and its head, and write the adapter of the best epoch to `output`.

    When this returns, the model holds exactly the state of the best epoch: evaluating it gives the recorded metrics to
    the last digit. With `config.seeds`, more models are trained in parallel, and the model receives the best state of
    all. Its metrics were then measured in batches shared with the other models, and agree up to rounding. With
    `config.ensemble`, `result.classifier.model` is the ensemble of all models.

    Args:
        model: the model to train; only its prompt encoder and head change.
        data: has the splits train and validation.
        config: settings; those left None follow from the method and the task.
        output: folder for the adapter, metrics.jsonl and the checkpoint.
        max_length: tokens to cut texts to. The default is also the maximum: as many as fit into the backbone together
            with the prompt.
        resume: continue from the checkpoint in `output`, if there is one, as if the run had never stopped.
        on_step: called after each step; see `ptune.training.events`.
        on_epoch: called after each epoch with its line of metrics.jsonl.
        callbacks: TrainerCallbacks of transformers, such as EarlyStoppingCallback; see `ptune.training.callbacks`.

    Raises:
        TrainingError: the loss is not a finite number. The last good state is in the checkpoint.
        TrainingError: the device has no memory for a single row, or for the optimizer.
        ConfigError: model and data have different problem types or labels.
        ConfigError: a setting does not apply to the task.
        ConfigError: `resume` finds a checkpoint of another run.
        ConfigError: `callbacks` holds something other than callbacks.
        AdapterError: `resume` finds a damaged checkpoint.
        DataError: validation has no labels.
        OutputError: `output` cannot be written.
    """
    events = TrainerCallbacks(callbacks) if callbacks else Events()
    check_task(model.problem_type, model.labels, data)
    for message in model.config.unused():
        logger.warning("%s", message)
    config = settle(config or TrainConfig(), model, data)
    folder = Path(output).expanduser()
    make_folder(folder)
    known = None
    if config.folds:
        data = give_back(data)
        known = _cross_validate(model, data, config, max_length)
    run = _new_run(model, data, config, folder, max_length, on_step, on_epoch, events, known)
    if resume:
        run.resume()
    result = _result(run, run.go(), data)
    if result.chance and result.metrics["count"] >= ENOUGH_ROWS:
        logger.warning(
            "the prompt has learned nothing that shows on the %d validation rows: %s. Try another `lr` (now %g), more "
            "training rows, or another backbone",
            result.metrics["count"],
            _describe_chance(result),
            config.lr,
        )
    return result


def _new_run(
    model: PromptClassifier,
    data: TextData,
    config: SettledConfig,
    folder: Path,
    max_length: int | None,
    on_step: OnStep | None = None,
    on_epoch: OnEpoch | None = None,
    events: Events | None = None,
    known: Measured | None = None,
) -> Run:
    """Return a run that has not begun."""
    models = [model, *(_new_model_like(model, config.seed + number) for number in range(1, config.seeds))]
    task = TaskInfo(asdict(data.columns), data.label_separator, data.origin)
    classifier = TextClassifier.around(PromptEnsemble(models) if config.ensemble else model, max_length, task=task)
    train_rows, validation_rows = (_encode(classifier, data, name) for name in ("train", "validation"))
    encoded = [*train_rows.encoded, *validation_rows.encoded]
    warn_of_cuts(sum(row.cut for row in encoded), len(encoded), classifier.encoder.max_length)
    return Run(classifier, models, train_rows, validation_rows, config, folder, on_step, on_epoch, events, known)


def _cross_validate(model: PromptClassifier, data: TextData, config: SettledConfig, max_length: int | None) -> Measured:
    """Measure the settings of a run by cross-validation. The model itself is not changed."""

    def train_and_predict(part: TextData) -> Tensor:
        with tempfile.TemporaryDirectory() as folder:
            run = _new_run(_new_model_like(model, config.seed), part, config, Path(folder), max_length)
            trained = run.go()
        return run_logits(trained.model, run.validation_rows.encoded, trained.pad_id)

    assert config.folds is not None
    main = choices(data.problem_type)[0] if config.best == "last" else config.best
    return cross_validate(data, config.folds, config.seed, main, train_and_predict)


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
        encoder=not model.backbone.family.decoder,
        held_back=data.held_back,
        gain=_gain(model, data) if config.lr is None and model.config.softmax == "separate" else None,
    )
    return config.settle(model.config, task)


def _gain(model: PromptClassifier, data: TextData) -> float | None:
    """Return how strongly the backbone answers to a deep prompt, measured on the first training rows."""
    classifier, split = TextClassifier.around(model), data.train
    pairs = None if split.pairs is None else split.pairs[: 2 * GAIN_ROWS]
    encoded = sorted(classifier.encoder.encode(split.texts[: 2 * GAIN_ROWS], pairs), key=len)
    middle = encoded[len(encoded) // 4 :][:GAIN_ROWS]  # rows of usual lengths
    rows = middle[: max(FEWEST_GAIN_ROWS, GAIN_TOKENS // max(map(len, middle)))]
    while rows:
        try:
            with memory_errors():
                inputs = collate(pack(rows), range(len(rows)), classifier.pad_id)
                return measure_gain(model, inputs.to(model.backbone.device))
        except torch.OutOfMemoryError:
            rows = rows[: len(rows) // 2]
    return None


def _describe_chance(result: TrainResult) -> str:
    metrics = result.metrics
    if "pearson" in metrics:
        return f"the correlation with the targets is {metrics['pearson']:.3f}"
    if "matthews" not in metrics:
        return "no label is predicted correctly"
    low, high = interval(metrics["accuracy"], int(metrics["count"]))
    return (
        f"accuracy {metrics['accuracy']:.4f} (95 % interval {low:.3f} to {high:.3f}), majority class "
        f"{result.majority:.4f}"
    )


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
        majority=data.majority_share("train" if run.known else "validation"),
        chance=is_chance(progress.best_metrics, run.kept.problem_type),
        history=progress.history,
        classifier=classifier,
    )
