"""`train`: takes a model and data, writes an adapter and returns the metrics of the best epoch."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ptune.adapter.layout import RECORD_FILE, TaskInfo
from ptune.adapter.target import REPLACE, check_target
from ptune.atomic import try_folder
from ptune.data.encode import warn_of_cuts
from ptune.data.load import load_data
from ptune.data.metric_table import choices
from ptune.data.splits import Split, TextData, give_back
from ptune.data.targets import ProblemType
from ptune.errors import ConfigError
from ptune.evaluation.chance import describe_interval, is_chance
from ptune.evaluation.own_metrics import OwnMetrics, check_metrics, try_metrics
from ptune.inference.classifier import TextClassifier
from ptune.model.checks import check_pooling, check_task
from ptune.model.classifier import PromptClassifier
from ptune.model.ensemble import PromptEnsemble
from ptune.model.locate import Location
from ptune.places import RemotePath, as_place
from ptune.processes import Processes
from ptune.training.callbacks import TrainerCallbacks
from ptune.training.checkpoint import CHECKPOINT_FILE, forget_run, has_run
from ptune.training.config import SettledConfig, TrainConfig
from ptune.training.events import Events, Listeners, OnEpoch, OnFold, OnStep
from ptune.training.folds import cross_validate, measured_rows
from ptune.training.run import Run
from ptune.training.settle import settle
from ptune.training.steps import Rows
from ptune.training.validation import Measured

logger = logging.getLogger(__name__)

# With fewer validation rows even a good prompt may look like chance, if it is better than the majority class.
ENOUGH_ROWS = 20


@dataclass(frozen=True)
class TrainResult:
    """The result of a run.

    metrics: validation metrics of the best epoch.
    best_epoch: its number, from 1.
    epochs: number of epochs that were run.
    trainable_params: number of trained parameters.
    all_params: these and the parameters of the frozen backbone.
    seconds: time of training and evaluation, cross-validation included.
    examples_per_second: training rows per second, without cross-validation.
    adapter: folder of the adapter.
    majority: accuracy of always predicting the most frequent answer; None for a regression.
    chance: True if the metrics of the best epoch are no better than chance.
    history: the lines of the metrics file, one per epoch.
    classifier: the trained classifier, as loading the adapter would give it.
    measured: the rows that the metrics are of: the validation rows, or with `folds` all rows.
    logits: [N, C], of these rows in the best epoch; None if they were measured before the run was resumed.
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
    measured: Split
    logits: Tensor | None


def train(
    model: PromptClassifier,
    data: Any,
    config: TrainConfig | None = None,
    *,
    output: str | Path,
    max_length: int | None = None,
    resume: bool = False,
    overwrite: bool = True,
    on_step: OnStep | None = None,
    on_epoch: OnEpoch | None = None,
    on_fold: OnFold | None = None,
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
        overwrite: whether an adapter in `output` may be replaced. To `resume` the run that left it needs no permission.
        on_step: called after each step; see `ptune.training.events`.
        on_epoch: called after each epoch with its line of metrics.jsonl.
        on_fold: called after steps of a cross-validation, of which the other functions hear nothing.
        metrics: more metrics to measure after each epoch, by name. They are functions (truth, predicted) that return a
            number, higher being better, such as those of scikit-learn; see `ptune.evaluation.own_metrics` for what they
            are called with.
        best: the metric that picks the best epoch: one of `metrics`, or what `config.best` may be. None: `config.best`.
        callbacks: TrainerCallbacks of transformers, such as EarlyStoppingCallback; see `ptune.training.callbacks`.

    Raises:
        TrainingError: the loss is not a finite number. The last good state is in the checkpoint.
        TrainingError: the device has no memory for a single row, or for the optimizer.
        ConfigError: model and data have different problem types or labels.
        ConfigError: the head compares the two texts of a pair, but the rows are single texts.
        ConfigError: `config` is something else than a TrainConfig, or a setting does not apply to the task.
        ConfigError: `output` is a URL.
        ConfigError: `output` is the backbone's folder or inside it, or holds an adapter that is not to be replaced.
        ConfigError: `resume` finds a checkpoint of another run.
        ConfigError: `callbacks` holds something other than callbacks.
        ConfigError: `best` is not a metric, or one of `metrics` fails or gives no number.
        AdapterError: `resume` finds a damaged checkpoint.
        DataError: the data cannot be read, or validation has no labels.
        OutputError: `output` cannot be written.
    """
    events = TrainerCallbacks(callbacks) if callbacks else Events()
    config = config or TrainConfig()
    if not isinstance(config, TrainConfig):
        raise ConfigError(
            f"`config` is a {type(config).__name__}; give the settings as `ptune.TrainConfig(...)`, for example "
            "ptune.TrainConfig(epochs=5)",
            field="config",
            value=config,
        )
    if not isinstance(data, TextData):
        data = load_data(data, labels=model.labels, problem_type=model.problem_type, seed=config.seed)
    check_task(model.problem_type, model.labels, data)
    check_pooling(model.config, data)
    for message in model.config.unused():
        logger.warning("%s", message)
    metrics = dict(metrics or {})
    check_metrics(metrics, model.problem_type)
    if best is not None and config.objective is None:  # there are epochs to choose from
        config = config.model_copy(update={"objective": "labels"})
    folder = _run_folder(output)
    if resume and not has_run(folder):
        logger.warning(
            "nothing to resume in '%s': there is no %s; training starts from the beginning", folder, CHECKPOINT_FILE
        )
    config = _with_best(settle(config, model, data, folder if resume else None), best, metrics, model.problem_type)
    processes = Processes.launched()
    # Rates are measured on the backbone, and other machines may round otherwise.
    config = SettledConfig.model_validate_json(processes.text_of_first(config.model_dump_json()))
    if processes.first:
        check_output(folder, model.backbone.location, overwrite, resume)
    known = None
    if folds := config.folds:
        data = give_back(data)

        def fold_run(part: TextData, number: int) -> Run:
            listeners = Listeners(_fold_steps(on_fold, number + 1, config.epochs) if on_fold else None)
            return _new_run(_new_model_like(model, config.seed), part, config, None, max_length, metrics, listeners)

        known = cross_validate(data, folds, config.seed, fold_run, folder, time_limit=config.time_limit, resume=resume)
    run = _new_run(model, data, config, folder, max_length, metrics, Listeners(on_step, on_epoch, events), known)
    encoded = [*run.train_rows.encoded, *run.validation_rows.encoded]
    warn_of_cuts(sum(row.cut for row in encoded), len(encoded), run.classifier.encoder.max_length)
    run.check_processes()
    if resume:
        run.resume()
    elif not folds:  # the cross-validation has done it
        forget_run(folder, processes)
    result = _result(run, run.go(), data)
    if result.chance and (result.metrics["count"] >= ENOUGH_ROWS or _below_majority(result)):
        logger.warning(
            "the prompt is no better than chance on the %d %s: %s. Try another `lr` (now %g), more training rows, or "
            "another backbone",
            result.metrics["count"],
            "rows of the cross-validation" if config.folds else "validation rows",
            _describe_chance(result),
            config.lr,
        )
    return result


def _run_folder(output: str | Path) -> Path:
    """Return the folder of a run, which has to be on this machine, because a run reads its checkpoint again.

    Raises:
        ConfigError: it is a URL.
    """
    folder = as_place(output)
    if isinstance(folder, RemotePath):
        raise ConfigError(
            f"`output='{output}'` is a URL, but a run keeps its checkpoint in its folder; train into a folder on this "
            f"machine and write the adapter afterwards: result.classifier.save('{output}')",
            field="output",
            value=str(output),
            expected="a folder on this machine",
        )
    return folder


def check_output(
    folder: Path, backbone: str | Location, overwrite: bool, resume: bool, *, can_resume: bool = True
) -> None:
    """Check that a run may write to a folder, and can.

    Args:
        folder: it need not exist.
        backbone: the backbone or its name. One that is not found is not checked.
        overwrite: whether an adapter in the folder may be replaced.
        resume: whether the run in the folder is to go on. If there is none, a new run begins.
        can_resume: whether the caller has `resume`, which the message may name then.

    Raises:
        ConfigError: the folder is that of a model, or holds an adapter that is not to be replaced.
        OutputError: the folder cannot be written to.
    """
    started = has_run(folder)
    if resume and not started and not overwrite and (folder / RECORD_FILE).exists():
        raise ConfigError(
            f"folder '{folder}' holds an adapter, but no {CHECKPOINT_FILE}, so there is no run to resume; give another "
            "folder, or `overwrite=True` without `resume` to train anew",
            field="output",
            value=str(folder),
        )
    instead = [REPLACE, "`resume=True` to go on with its run"] if started and can_resume else [REPLACE]
    check_target(folder, overwrite or (resume and started), backbone, instead)
    try_folder(folder)


def _new_run(
    model: PromptClassifier,
    data: TextData,
    config: SettledConfig,
    folder: Path | None,
    max_length: int | None,
    metrics: OwnMetrics,
    listeners: Listeners = Listeners(),  # noqa: B008 (it is immutable)
    known: Measured | None = None,
) -> Run:
    """Return a run that has not begun."""
    models = [model, *(_new_model_like(model, config.seed + number) for number in range(1, config.seeds))]
    task = TaskInfo(asdict(data.columns), data.label_separator, data.origin)
    classifier = TextClassifier.around(PromptEnsemble(models) if config.ensemble else model, max_length, task=task)
    train_rows, validation_rows = (_encode(classifier, data, name) for name in ("train", "validation"))
    try_metrics(metrics, validation_rows.labels, len(model.labels), model.problem_type)
    return Run(classifier, models, train_rows, validation_rows, config, folder, listeners, metrics, known)


def _fold_steps(on_fold: OnFold, number: int, epochs: int) -> OnStep:
    """Return the function that hears of the steps of a fold and tells `on_fold` what share of them is done."""

    def on_step(done: int, total: int, epoch: int, _loss: float) -> None:
        on_fold(number, (epoch - 1 + done / total) / epochs)

    return on_step


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


def _below_majority(result: TrainResult) -> bool:
    """Return whether always giving the most frequent answer would have been as good."""
    accuracy = result.metrics.get("accuracy")
    return accuracy is not None and result.majority is not None and accuracy <= result.majority


def _describe_chance(result: TrainResult) -> str:
    metrics = result.metrics
    if "pearson" in metrics:
        return f"the correlation with the targets is {metrics['pearson']:.3f}"
    if "matthews" not in metrics:
        return "no label is predicted correctly"
    around = describe_interval(metrics["accuracy"], int(metrics["count"]))
    return f"accuracy {metrics['accuracy']:.4f} ({around}), majority class {result.majority:.4f}"


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
        seconds=progress.seconds + (run.known.seconds if run.known else 0.0),
        examples_per_second=progress.rows_seen / progress.seconds if progress.seconds else 0.0,
        adapter=str(run.folder),
        majority=data.majority_share("train" if run.known else "validation"),
        chance=is_chance(progress.best_metrics, run.kept.problem_type),
        history=progress.history,
        classifier=classifier,
        measured=measured_rows(data, run.config.folds, run.config.seed) if run.config.folds else data.validation,
        logits=run.best_logits,
    )
