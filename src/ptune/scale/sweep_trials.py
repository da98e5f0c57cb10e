"""A trial of a sweep: its record on disk, and its training by `ptune.train`."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ptune.atomic import write_files
from ptune.errors import ConfigError, PtuneError, cut, short
from ptune.scale.sweep_settings import configs

if TYPE_CHECKING:
    from ptune.data.splits import TextData
    from ptune.model.backbone import Backbone

TRIALS_FOLDER = "trials"
TRIAL_FILE = "trial.json"
State = Literal["waiting", "running", "finished", "stopped", "failed"]
# Called with a trial's number and its line of the metrics file after each epoch. True: stop the trial.
Report = Callable[[int, dict[str, Any]], bool]


@dataclass
class Trial:
    """One training of a sweep.

    number: its number, from 0.
    values: the settings that were chosen for it.
    state: where it stands. `stopped` is what early stopping ended.
    value: the metric of its best epoch.
    history: the metric after each epoch.
    best_epoch: the number of its best epoch, from 1.
    metrics: all validation metrics of its best epoch.
    seconds: time of training and evaluation.
    error: why it failed.
    worker: the name of the worker that runs it.
    losses: how often its worker was lost.
    """

    number: int
    values: dict[str, Any]
    state: State = "waiting"
    value: float | None = None
    history: list[float] = field(default_factory=list)
    best_epoch: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    error: str | None = None
    worker: str | None = None
    losses: int = 0

    @property
    def done(self) -> bool:
        """True if it will not go on."""
        return self.state in ("finished", "stopped", "failed")

    def folder(self, output: Path) -> Path:
        """Return the folder of its adapter and its metrics, in the folder of the sweep."""
        return output / TRIALS_FOLDER / f"{self.number:04d}"

    def write(self, output: Path) -> None:
        """Write its record.

        Raises:
            OutputError: the file cannot be written.
        """
        content = json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"
        write_files(self.folder(output), {TRIAL_FILE: content.encode()})


@dataclass(frozen=True)
class Task:
    """What all trials of a sweep share.

    backbone: the name of the pretrained model.
    loading: how it is loaded: the arguments of `load_backbone` after its name.
    base: settings of prompt and training by name, and `max_length`.
    metric: what is compared.
    output: the folder of the sweep.
    """

    backbone: str
    loading: Mapping[str, Any]
    base: Mapping[str, Any]
    metric: str
    output: Path

    def load_backbone(self) -> Backbone:
        """Load the pretrained model, once for all trials of a worker."""
        from ptune.model.loading import load_backbone

        return load_backbone(self.backbone, **self.loading)


class _Stopped(Exception):  # noqa: N818 (it is not an error)
    """Ends a training whose trial has fallen behind."""


def read_trials(output: Path) -> list[Trial]:
    """Return the trials that a sweep has left in its folder, in order. Those that were running wait again.

    Raises:
        ConfigError: a record is damaged.
    """
    trials = []
    for path in sorted((output / TRIALS_FOLDER).glob(f"*/{TRIAL_FILE}")):
        try:
            trial = Trial(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as err:
            raise ConfigError(f"'{path}' is not the record of a trial: {short(str(err))}; delete its folder") from err
        if not trial.done:
            trial.state, trial.worker = "waiting", None
        trials.append(trial)
    return trials


def run_trial(trial: Trial, task: Task, backbone: Backbone, data: TextData, report: Report) -> Trial:
    """Train with a trial's settings, and return the trial with what came of it.

    A trial that was interrupted goes on from its checkpoint. Whatever goes wrong is noted in the trial.
    """
    trial = dataclasses.replace(trial)
    started = time.perf_counter()
    try:
        with _quiet():
            try:
                _train(trial, task, backbone, data, report)
            except _Stopped:
                trial.state = "stopped"
        _read_best(trial, task)
    except PtuneError as err:
        trial.state, trial.error = "failed", str(err)
    except Exception as err:  # one trial that fails does not end the sweep
        trial.state, trial.error = "failed", cut(f"{type(err).__name__}: {err}", 1000)
    trial.seconds = round(trial.seconds + time.perf_counter() - started, 3)
    return trial


def _train(trial: Trial, task: Task, backbone: Backbone, data: TextData, report: Report) -> None:
    from ptune.model.classifier import PromptClassifier
    from ptune.training.checkpoint import has_run
    from ptune.training.settle import settle
    from ptune.training.train import train

    prompt, training, max_length = configs(task.base, trial.values)
    folder = trial.folder(task.output)
    resume = has_run(folder)
    model = PromptClassifier.for_data(backbone, data, prompt, seed=training.seed)
    config = settle(training, model, data, folder if resume else None)

    def on_epoch(line: dict[str, Any]) -> None:
        if report(trial.number, line) and line["epoch"] < config.epochs:
            raise _Stopped

    for line in _lines(folder) if resume else ():  # the search may not have heard of the last one
        on_epoch(line)
    train(model, data, config, output=folder, max_length=max_length, resume=resume, on_epoch=on_epoch)
    trial.state = "finished"


def _lines(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of a trial's metrics file."""
    from ptune.training.metrics_file import METRICS_FILE

    path = folder / METRICS_FILE
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def _read_best(trial: Trial, task: Task) -> None:
    """Note the metrics of a trial's best epoch, which are in the record of its adapter."""
    from ptune.adapter.folder import read_adapter
    from ptune.training.checkpoint import RUN_FILES

    folder = trial.folder(task.output)
    record = read_adapter(folder).record
    trial.metrics = dict(record.metrics)
    trial.best_epoch = record.training.get("best_epoch")
    trial.value = trial.metrics[task.metric]
    if not math.isfinite(trial.value):
        trial.state, trial.error, trial.value = "failed", f"{task.metric} is {trial.value}", None
    for name in RUN_FILES:  # nothing is left to resume
        (folder / name).unlink(missing_ok=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back the messages of single trainings, of which there are many."""
    logger = logging.getLogger("ptune")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
