"""One training run: batches, steps, an evaluation each epoch, the best state put back at the end.

A run trains one prompt or, with `seeds`, several side by side: their rows share
each forward pass, and each becomes what it would have become alone.
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ptune.adapter.folder import save_adapter
from ptune.adapter.layout import Record
from ptune.data.batch import training_batches
from ptune.data.metric_table import MetricName, less_is_better
from ptune.data.targets import REGRESSION, SINGLE
from ptune.errors import TrainingError
from ptune.evaluation.calibration import fit_temperature
from ptune.evaluation.metrics import describe_collapse, evaluate_logits
from ptune.inference.classifier import TextClassifier
from ptune.inference.engine import compute_logits
from ptune.model.classifier import PromptClassifier
from ptune.model.ensemble import PromptEnsemble, combine
from ptune.model.objective import Objective, balanced_weights
from ptune.training.checkpoint import CHECKPOINT_FILE, CheckpointWriter, Progress, RunState, load_checkpoint
from ptune.training.config import SettledConfig
from ptune.training.events import Events, OnEpoch, OnStep, RunInfo
from ptune.training.member import Member, copy_state
from ptune.training.metrics_file import MetricsFile
from ptune.training.steps import Rows, Steps
from ptune.training.stop import StopSignal

logger = logging.getLogger(__name__)


class Run:
    """One training run: the state of `RunState` and the steps that change it.

    classifier: holds the model that is kept in the end: with `config.ensemble` the ensemble of `models`, else the
    first of them, whose state is then that of the best. `go` returns it as it was saved.
    """

    def __init__(
        self,
        classifier: TextClassifier,
        models: Sequence[PromptClassifier],
        train_rows: Rows,
        validation_rows: Rows,
        config: SettledConfig,
        folder: Path,
        on_step: OnStep | None = None,
        on_epoch: OnEpoch | None = None,
        events: Events | None = None,
    ) -> None:
        self.classifier = classifier
        self.kept = classifier.model
        self.train_rows = train_rows
        self.validation_rows = validation_rows
        self.config = config
        self.folder = folder
        self.on_step = on_step
        self.on_epoch = on_epoch
        self.events = events or Events()
        self.most_tokens: int | None = None  # of a pass in evaluation, once the device had no memory for more
        self.stop = StopSignal()
        self.checkpoints = CheckpointWriter(folder)
        self.between_steps = False  # whether the state at hand is one that a checkpoint may hold
        self.objective = self._objective(models)
        members = [Member(model, config.seed + number, config) for number, model in enumerate(models)]
        self.state = RunState(members, Progress(), {})
        self.ensemble = PromptEnsemble(models)
        batches = math.ceil(len(train_rows.labels) / config.batch_size)
        self.total = config.epochs * math.ceil(batches / config.accumulate)
        self.steps = Steps(members, train_rows, classifier.pad_id, self.objective, config, self.total)

    def _objective(self, models: Sequence[PromptClassifier]) -> Objective:
        """The loss, with weights and units counted on the training rows."""
        model, targets = models[0], self.train_rows.labels
        if model.problem_type == REGRESSION:
            for member in models:
                member.standardise(targets)
            return Objective(model.problem_type, scale=float(model.target_scale))
        weights = None
        if self.config.class_weights is not None:
            weights = balanced_weights(model.problem_type, targets, len(model.labels)).to(model.backbone.device)
        return Objective(model.problem_type, weights, self.config.focal, self.config.label_smoothing)

    @cached_property  # it reads all rows, and every checkpoint carries it
    def identity(self) -> dict[str, Any]:
        """What must be equal for a checkpoint to belong to this run."""
        content = hashlib.sha256()
        for rows in (self.train_rows, self.validation_rows):
            for row, label in zip(rows.encoded, rows.labels.tolist(), strict=True):
                content.update(f"{row.ids} {label}\n".encode())
            if rows.weights is not None:
                content.update(str(rows.weights.tolist()).encode())
        return {
            "prompt": self.kept.config.model_dump(),
            "training": self.config.model_dump(exclude={"checkpoint_steps"}),
            "labels": self.kept.labels,
            "problem_type": self.kept.problem_type,
            "backbone": self.kept.backbone.fingerprint(),
            "dtype": str(self.kept.backbone.dtype).removeprefix("torch."),
            "data": content.hexdigest()[:16],
        }

    def resume(self) -> None:
        """Go back to where the checkpoint in the folder was written, if there is one.

        Raises:
            ConfigError: it is of another run. AdapterError: it is damaged.
        """
        if not (self.folder / CHECKPOINT_FILE).exists():
            logger.warning("nothing to resume in '%s': there is no %s; starting anew", self.folder, CHECKPOINT_FILE)
            return
        load_checkpoint(self.folder, self.state, self.identity)
        if self.ended:
            logger.info("the run in '%s' had ended; nothing is left to train", self.folder)
        else:
            logger.info("resumed at epoch %d, batch %d", self.progress.epoch, self.progress.batch)

    @property
    def members(self) -> list[Member]:
        return self.state.members

    @property
    def progress(self) -> Progress:
        return self.state.progress

    @property
    def info(self) -> RunInfo:
        """What stays the same during the run."""
        encoder, optimizer = self.classifier.encoder, self.members[0].optimizer
        rows = len(self.train_rows.labels)
        return RunInfo(self.config, self.metric, self.folder, self.total, rows, self.kept, encoder, optimizer)

    def go(self) -> TextClassifier:
        """Run the epochs that are left, put the best state back, save it and return its classifier."""
        self.events.begin(self.info, self.progress)
        with self.checkpoints:
            self._run_epochs()
        self.kept.load_trainable_state(self.state.best)
        self.kept.eval()
        save_adapter(self.folder, self.kept, self.record())
        self.events.end(self.progress)
        return self.classifier.saved(self.folder, self.progress.best_temperature)

    def _run_epochs(self) -> None:
        log = MetricsFile(self.folder, self.progress.history)
        try:
            with self.stop:
                while not self.ended:
                    self._train_epoch()
                    self._end_epoch(log)
        except KeyboardInterrupt:
            if self.between_steps:  # else a second Ctrl-C came in the middle of something: the older checkpoint holds
                self._checkpoint()
            self.checkpoints.wait()
            logger.warning("stopped; go on with `resume=True`")
            raise

    def _train_epoch(self) -> None:
        lengths, size, epoch = self.train_rows.lengths, self.config.batch_size, self.progress.epoch
        orders = [training_batches(lengths, size, member.seed, epoch) for member in self.members]
        batches = list(zip(*orders, strict=True))  # each with the rows of every member, in batches of like length
        self.ensemble.train()
        self.events.begin_epoch()
        started = time.perf_counter()
        for start in range(self.progress.batch, len(batches), self.config.accumulate):
            group = batches[start : start + self.config.accumulate]
            self.between_steps = False
            self.steps.take(group, self.progress.step + self.steps.unread)
            last = start + len(group) == len(batches)
            due = (self.progress.step + self.steps.unread) % self.config.checkpoint_steps == 0 and not last
            if self.steps.full or last or due or self.stop.asked:
                self._read_steps()
                if self.events.stop:
                    break
            if self.stop.asked and self.between_steps:
                raise KeyboardInterrupt
            if due:
                self.progress.seconds += time.perf_counter() - started
                self._checkpoint()
                started = time.perf_counter()
        self.progress.seconds += time.perf_counter() - started

    def _read_steps(self) -> None:
        """Move the progress up to the steps that were taken."""
        for step in self.steps.read():
            if not step.finite:
                self._diverged(sum(step.losses), self.progress.step + 1)
            mean = sum(step.losses) / len(step.losses)
            mean *= self.objective.scale**2  # in the targets' own unit
            self.progress.loss_sum += mean * step.rows
            self.progress.rows += step.rows
            self.progress.rows_seen += step.rows * len(self.members)
            self.progress.batch += step.batches
            self.progress.step += 1
            self.events.end_step(self.progress, mean)
        self.between_steps = True
        if self.on_step is not None:
            mean = self.progress.loss_sum / self.progress.rows
            self.on_step(self.progress.rows, len(self.train_rows.labels), self.progress.epoch, mean)

    def _diverged(self, loss: float, step: int) -> None:
        """Save the state at hand, which such a step does not change, and the best epoch's adapter; then stop."""
        self._checkpoint()
        self.checkpoints.wait()
        if self.state.best:
            self.kept.load_trainable_state(self.state.best)
            save_adapter(self.folder, self.kept, self.record())
            kept = f"the adapter of epoch {self.progress.best_epoch} is saved in '{self.folder}'"
        else:
            kept = f"no epoch was finished; the last good state is in '{self.folder / CHECKPOINT_FILE}'"
        raise TrainingError(
            f"the loss or its gradient is not a finite number at step {step} (loss {loss}); {kept}. "
            f"Lower the rates: `lr={self.config.lr}` and `head_lr={self.config.head_lr}` are too high here"
        )

    def _end_epoch(self, log: MetricsFile) -> None:
        """Evaluate the averaged state, keep it if it is the best so far, and go on with the state as trained."""
        self.between_steps = False
        latest = [copy_state(member.model) for member in self.members]
        for member in self.members:
            member.model.load_trainable_state(member.average)
        line = self._evaluate_epoch()
        for member, state in zip(self.members, latest, strict=True):
            member.model.load_trainable_state(state)
        if not math.isfinite(line["loss"]):
            self._diverged(line["loss"], self.progress.step)
        self.progress.history.append(line)
        log.add(line)
        self.events.end_epoch(line)
        self.progress.epoch += 1
        self.progress.batch, self.progress.rows, self.progress.loss_sum = 0, 0, 0.0
        if line["best"]:
            self._save_best()
        self._checkpoint()
        self.events.saved()
        if self.on_epoch is not None:
            self.on_epoch(line)

    def _save_best(self) -> None:
        """Write the best state's adapter, and leave the model as it is in training."""
        latest = copy_state(self.kept)
        self.kept.load_trainable_state(self.state.best)
        save_adapter(self.folder, self.kept, self.record())
        self.kept.load_trainable_state(latest)

    def _evaluate_epoch(self) -> dict[str, Any]:
        """The epoch's line of the metrics file; notes the state if it is the best."""
        started = time.perf_counter()
        members = self.evaluate()
        measured = [self._measure(logits) for logits in members]
        if self.config.ensemble:
            logits = combine(members, self.kept.problem_type)
            metrics, temperature = self._measure(logits)
            state, seed = self.ensemble.trainable_state(), None
        else:
            place = max(range(len(members)), key=lambda number: self._rank(measured[number][0]))
            logits, (metrics, temperature) = members[place], measured[place]
            state, seed = self.members[place].average, self.members[place].seed
        self.progress.seconds += time.perf_counter() - started
        better = math.isfinite(metrics["loss"]) and self._better(metrics)
        if better:
            self.progress.best_epoch, self.progress.best_metrics = self.progress.epoch, metrics
            self.progress.best_seed, self.progress.best_temperature = seed, temperature
            self.state.best = {name: tensor.detach().clone() for name, tensor in state.items()}
        self._warn_of_collapse(logits)
        line = {
            "epoch": self.progress.epoch,
            "step": self.progress.step,
            "train_loss": self.progress.loss_sum / self.progress.rows,
            **metrics,
            "best": better,
            "seconds": round(self.progress.seconds, 3),
        }
        by_seed = {str(m.seed): own[self.metric] for m, (own, _) in zip(self.members, measured, strict=True)}
        return line if len(measured) == 1 else {**line, "by_seed": by_seed}

    def _measure(self, logits: Tensor) -> tuple[dict[str, float], float]:
        """Figures of the validation rows' logits [N, C], and the temperature that was fitted on them."""
        labels, problem_type = self.validation_rows.labels, self.kept.problem_type
        temperature = fit_temperature(logits, labels) if problem_type == SINGLE else 1.0
        return evaluate_logits(logits, labels, problem_type, temperature), temperature

    def _warn_of_collapse(self, logits: Tensor) -> None:
        labels, problem_type = self.validation_rows.labels, self.kept.problem_type
        collapse = describe_collapse(logits, labels, self.kept.labels, problem_type)
        if collapse is not None:
            logger.warning(
                "epoch %d: %s; the model has not learned to tell %s apart. If this lasts, change `lr` (now %g) or "
                "train longer",
                self.progress.epoch,
                collapse,
                "texts" if problem_type == REGRESSION else "classes",
                self.config.lr,
            )

    def evaluate(self) -> Tensor:
        """Return the logits [M, N, C] of the validation rows under every member, from the same batches every time."""
        rows, models = self.validation_rows.encoded, [member.model for member in self.members]
        wanted = [(row, number) for row in range(len(rows)) for number in range(len(models))]
        outcome = compute_logits(models, rows, wanted, self.classifier.pad_id, most_tokens=self.most_tokens)
        self.most_tokens = outcome.most_tokens
        return torch.stack(outcome.logits)

    def _better(self, metrics: dict[str, float]) -> bool:
        best = self.progress.best_metrics
        return not best or self.config.best == "last" or self._rank(metrics) > self._rank(best)

    def _rank(self, metrics: dict[str, float]) -> tuple[float, ...]:
        """What is compared: the figure that picks the best, then the lower loss; without a finite loss, the last."""
        if not math.isfinite(metrics["loss"]):
            return (-math.inf,)
        sign = -1 if less_is_better(self.metric) else 1
        return sign * metrics[self.metric], -metrics["loss"]

    @property
    def metric(self) -> MetricName:
        """What seeds are compared by; epochs too, unless the last one is kept anyway."""
        return "loss" if self.config.best == "last" else self.config.best

    @property
    def ended(self) -> bool:
        """All epochs are run, patience ran out, or a callback wants no more."""
        waited = self.progress.epoch - 1 - self.progress.best_epoch
        out_of_patience = self.config.patience is not None and waited >= self.config.patience
        return self.progress.epoch > self.config.epochs or out_of_patience or self.events.stop

    def _checkpoint(self) -> None:
        self.checkpoints.save(self.state, self.identity)

    def record(self) -> Record:
        """Return the record of the best epoch."""
        training = {
            **self.config.model_dump(exclude={"checkpoint_steps"}),
            "best_epoch": self.progress.best_epoch,
            "best_seed": self.progress.best_seed,
            "train_rows": len(self.train_rows.labels),
            "validation_rows": len(self.validation_rows.labels),
        }
        return Record.of(
            self.kept,
            replace(self.classifier.task, temperature=self.progress.best_temperature),
            max_length=self.classifier.encoder.max_length,
            pair_separator=self.classifier.encoder.pair_separator,
            metrics=self.progress.best_metrics,
            training=training,
        )
