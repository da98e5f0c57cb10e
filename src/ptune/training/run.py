"""A training run: steps over batches, an evaluation after each epoch, and the best state at the end.

A run trains one prompt, or with `seeds` several in parallel. Their rows share
each forward pass, but each prompt becomes what it would have become alone.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from ptune.adapter.folder import save_adapter
from ptune.adapter.layout import Record, TaskInfo
from ptune.data.batch import class_batches, training_batches
from ptune.data.targets import REGRESSION
from ptune.durations import in_words
from ptune.errors import ConfigError, TrainingError
from ptune.evaluation.chance import is_chance
from ptune.evaluation.own_metrics import OwnMetrics
from ptune.inference.classifier import TextClassifier
from ptune.model.classifier import PromptClassifier
from ptune.model.contrast import PairLoss
from ptune.model.ensemble import PromptEnsemble
from ptune.model.objective import Objective, balanced_weights
from ptune.processes import Processes
from ptune.training.checkpoint import (
    CHECKPOINT_FILE,
    CheckpointWriter,
    Progress,
    RunState,
    describe_differences,
    load_checkpoint,
)
from ptune.training.choice import out_of_patience, values_before
from ptune.training.comparing import start_comparing
from ptune.training.config import SettledConfig
from ptune.training.contrastive import fit_heads, mean_length
from ptune.training.defaults import batches_per_epoch
from ptune.training.events import Listeners, RunInfo
from ptune.training.member import Member, copy_state
from ptune.training.metrics_file import MetricsFile
from ptune.training.rescue import Rescue, go_back
from ptune.training.steps import Rows, Steps
from ptune.training.stop import StopSignal
from ptune.training.time_limit import Deadline
from ptune.training.validation import Measured, Validation

logger = logging.getLogger(__name__)


class Run:
    """A training run: a `RunState` and the methods that advance it.

    Args:
        classifier: holds the model that is kept at the end. With `config.ensemble` this is the ensemble of `models`,
            otherwise the first of them, which then receives the best state of all.
        models: the models to train, one per seed.
        train_rows: rows to train on.
        validation_rows: rows to evaluate after each epoch.
        config: settled settings.
        folder: for the adapter, the metrics file and the checkpoint; None for a fold of a cross-validation, of which
            nothing is kept.
        listeners: who hears of the run.
        metrics: the user's metrics.
        known: what cross-validation has measured, in place of the validation rows.
    """

    def __init__(
        self,
        classifier: TextClassifier,
        models: Sequence[PromptClassifier],
        train_rows: Rows,
        validation_rows: Rows,
        config: SettledConfig,
        folder: Path | None,
        listeners: Listeners,
        metrics: OwnMetrics | None = None,
        known: Measured | None = None,
    ) -> None:
        self.known = known
        self.processes = processes = Processes.launched()
        if not processes.first:  # it alone writes files, and reports
            listeners = Listeners()
        self.classifier = classifier
        self.kept = classifier.model
        self.train_rows = train_rows
        self.validation_rows = validation_rows
        self.config = config
        self.folder = folder
        self.on_step, self.on_epoch, self.events = listeners.on_step, listeners.on_epoch, listeners.events
        self.measured = known  # in the latest epoch
        self.stop = StopSignal()
        self.deadline = Deadline(None)  # until the run begins
        self.cut_short = False  # True if the run was told to stop within an epoch
        self.checkpoints = CheckpointWriter(folder, processes)
        self.best_logits: Tensor | None = None  # [N, C], of the measured rows; None if an earlier process measured them
        self.between_steps = False  # True while the state may go into a checkpoint
        self.epoch_rows = 0  # rows of the current epoch, with repeats
        if models[0].config.pooling == "pair" and not self.contrastive:
            start_comparing(models, train_rows, classifier.pad_id)
        self.objective = self._objective(models)
        for model in models:
            processes.from_first([*model.trainable_state().values(), *model.head.buffers()])
        members = [Member(model, config.seed + number, config) for number, model in enumerate(models)]
        self.state = RunState(members, Progress(), {})
        if isinstance(self.objective, PairLoss):
            self.progress.vector_length = self.objective.length
        self.ensemble = PromptEnsemble(models)
        self.validation = Validation(
            models, validation_rows, classifier.pad_id, config, train_rows, metrics or {}, processes
        )
        self.total = config.epochs * math.ceil(self._batch_count / config.accumulate)
        self.rescue = Rescue.never()
        if isinstance(self.objective, Objective):
            self.rescue = Rescue.of(self.objective, train_rows, len(self.kept.labels), self.total, config.warmup)
        self.steps = Steps(members, train_rows, classifier.pad_id, self.objective, config, self.total, processes)

    @property
    def contrastive(self) -> bool:
        """True if the prompts learn by comparing rows, and the heads are fitted afterwards."""
        return self.config.objective == "contrastive"

    @property
    def _batch_count(self) -> int:
        """Number of batches of an epoch."""
        return batches_per_epoch(self.config.objective, len(self.train_rows.labels), self.config.global_batch)

    def _batches(self, seed: int, epoch: int) -> list[list[int]]:
        """Return the batches of an epoch for a member with this seed."""
        rows, size = self.train_rows, self.config.global_batch
        if self.contrastive:
            return class_batches(rows.labels.tolist(), size, seed, epoch, self._batch_count)
        return training_batches(rows.lengths, size, seed, epoch)

    def _objective(self, models: Sequence[PromptClassifier]) -> Objective | PairLoss:
        """Return the loss, with class weights, target scale or length of vectors measured on the training rows."""
        model, targets = models[0], self.train_rows.labels
        if self.contrastive:
            return PairLoss(mean_length(model, self.train_rows, self.classifier.pad_id))
        if model.problem_type == REGRESSION:
            for member in models:
                member.standardise(targets)
            return Objective(model.problem_type, scale=float(model.target_scale))
        weights = None
        if self.config.class_weights is not None:
            weights = balanced_weights(model.problem_type, targets, len(model.labels)).to(model.backbone.device)
        return Objective(model.problem_type, weights, self.config.focal, self.config.label_smoothing)

    @cached_property  # reads all rows, and goes into every checkpoint
    def identity(self) -> dict[str, Any]:
        """Facts that a checkpoint must share to belong to this run."""
        content = hashlib.sha256()
        for rows in (self.train_rows, self.validation_rows):
            for row, label in zip(rows.encoded, rows.labels.tolist(), strict=True):
                content.update(f"{row.ids} {label}\n".encode())
            if rows.weights is not None:
                content.update(str(rows.weights.tolist()).encode())
        return {
            "prompt": self.kept.config.model_dump(),
            # How the rows of a step are divided among processes changes nothing, nor does how they are computed.
            "training": self.config.model_dump(
                exclude={"checkpoint_steps", "batch_size", "time_limit", "gradient_checkpointing", "compile"}
            ),
            "labels": self.kept.labels,
            "problem_type": self.kept.problem_type,
            "backbone": self.kept.backbone.fingerprint(),
            "dtype": self.kept.backbone.dtype_name,
            "data": content.hexdigest()[:16],
        }

    def check_processes(self) -> None:
        """Check that all processes train the same.

        Each of them has read the files itself, perhaps on another machine.

        Raises:
            ConfigError: they do not, in all of the processes.
        """
        if self.processes.count == 1:
            return
        first = json.loads(self.processes.text_of_first(json.dumps(self.identity)))
        differences = describe_differences(first, self.identity)
        if self.processes.any(bool(differences)):
            raise ConfigError(
                f"process {self.processes.rank} does not train the same as the first process: "
                f"{differences or 'another process differs'}; give all processes the same files and the same versions"
            )

    def resume(self) -> None:
        """Restore the state from the checkpoint in the folder, if there is one.

        Raises:
            ConfigError: the checkpoint belongs to another run.
            AdapterError: the checkpoint is damaged.
        """
        assert self.folder is not None
        if not (self.folder / CHECKPOINT_FILE).exists():
            return
        load_checkpoint(self.folder, self.state, self.identity)
        if self.contrastive:  # the model may come with a trained prompt, under which its vectors have another length
            self.steps.objective = self.objective = PairLoss(self.progress.vector_length)
        if self.known is not None and self.state.best:  # the same for every epoch
            self.best_logits = self.known.kept_logits(self.kept.problem_type)
        if self.ended:
            logger.info("the run in '%s' is already finished; nothing is left to train", self.folder)
        else:
            logger.info("resumed at epoch %d, batch %d", self.progress.epoch, self.progress.batch)

    @property
    def members(self) -> list[Member]:
        """The prompts in training, one per seed."""
        return self.state.members

    @property
    def progress(self) -> Progress:
        """How far the run has come."""
        return self.state.progress

    @property
    def info(self) -> RunInfo:
        """Facts for listeners that stay the same during the run."""
        assert self.folder is not None
        encoder, optimizer = self.classifier.encoder, self.members[0].optimizer
        rows = len(self.train_rows.labels)
        if self.contrastive:  # an epoch repeats them
            rows = sum(map(len, self._batches(self.config.seed, 1)))
        return RunInfo(
            self.config, self.validation.metric, self.folder, self.total, rows, self.kept, encoder, optimizer
        )

    def go(self) -> TextClassifier:
        """Run the remaining epochs, restore and save the best state, and return its classifier as it was saved.

        The time limit includes what cross-validation has taken.

        Raises:
            TrainingError: the loss is not a finite number, or the device has no memory for a single row.
            OutputError: the adapter, the metrics or a checkpoint could not be written.
        """
        assert self.folder is not None
        limit = self.config.time_limit
        self.deadline = Deadline(None if limit is None else limit - (self.known.seconds if self.known else 0))
        self.events.begin(self.info, self.progress)
        with self.checkpoints:
            self._run_epochs()
        self.kept.load_trainable_state(self.state.best)
        self.kept.eval()
        self._save_adapter()
        self.processes.wait()  # the adapter is there when any of them returns
        self.events.end(self.progress)
        return self.classifier.saved(self.folder, self.task)

    def measure(self, time_limit: float | None) -> Measured:
        """Run all epochs of a fold, and return what the last one has measured.

        Raises:
            TrainingError: see `go`.
        """
        self.deadline = Deadline(time_limit)
        self._run_epochs()
        assert self.measured is not None
        return self.measured

    def _run_epochs(self) -> None:
        log = MetricsFile(self.folder, self.progress.history, self.processes)
        try:
            with self.stop:
                while not (self.ended and self.state.best):  # a single step is measured even if there is no time
                    self._train_epoch()
                    self._end_epoch(log)
            self._say_left_out()
        except KeyboardInterrupt:
            if self.between_steps:  # otherwise a second Ctrl-C interrupted a step, and the previous checkpoint counts
                self._checkpoint()
            self.checkpoints.wait()
            during = " during the cross-validation" if self.folder is None else ""
            logger.warning("stopped%s; continue with `resume=True`", during)
            raise

    def _say_left_out(self) -> None:
        """Log a warning with what a run whose time was over has left out."""
        if self.folder is None:  # the epochs of a fold are not kept anyway
            return
        if self.progress.step >= self.total or self.events.stop or out_of_patience(self.config, self.progress):
            return
        if self.deadline.over and self.config.time_limit is not None:
            logger.warning(
                "the time limit of %s was reached after %d of %d steps, in epoch %d of %d; epoch %d is kept. For a run "
                "that ends in this time by itself, use fewer `epochs`",
                in_words(self.config.time_limit),
                self.progress.step,
                self.total,
                self.progress.epoch - 1,
                self.config.epochs,
                self.progress.best_epoch,
            )

    def _train_epoch(self) -> None:
        orders = [self._batches(member.seed, self.progress.epoch) for member in self.members]
        batches = list(zip(*orders, strict=True))  # in each, the members' rows have similar lengths
        self.epoch_rows = sum(len(rows) for rows in orders[0])
        self.ensemble.train()
        self.events.begin_epoch()
        started = time.perf_counter()
        for start in range(self.progress.batch, len(batches), self.config.accumulate):
            group = batches[start : start + self.config.accumulate]
            self.between_steps = False
            self.steps.take(group, self.progress.step + self.steps.unread)
            last = start + len(group) == len(batches)
            taken = self.progress.step + self.steps.unread
            due = taken % self.config.checkpoint_steps == 0 and not last
            stopping = self.processes.any(self.stop.asked)
            if self.steps.full or last or due or stopping or taken == self.rescue.last:
                self._read_steps()
                if self._told_to_stop:
                    self.cut_short = not last
                    break
            if stopping and self.between_steps:
                raise KeyboardInterrupt
            if due:
                self.progress.seconds += time.perf_counter() - started
                self._checkpoint()
                started = time.perf_counter()
        self.progress.seconds += time.perf_counter() - started
        if self.cut_short:  # a run that is resumed later trains the rest of the epoch first
            self._checkpoint()

    def _read_steps(self) -> None:
        """Read the losses of the latest steps and update the progress."""
        for step in self.steps.read():
            if not step.finite:
                self._raise_diverged(sum(step.losses), self.progress.step + 1)
            mean = sum(step.losses) / len(step.losses)
            mean *= self.objective.scale**2  # from standardised targets back to their unit
            self.progress.loss_sum += mean * step.rows
            self.progress.rows += step.rows
            self.progress.rows_seen += step.rows * len(self.members)
            self.progress.batch += step.batches
            self.progress.step += 1
            self.rescue.look(self.progress, self.members, step.losses, self.config.lr)
            self.events.end_step(self.progress, mean)
        self.between_steps = True
        if self.on_step is not None:
            mean = self.progress.loss_sum / self.progress.rows
            self.on_step(self.progress.rows, self.epoch_rows, self.progress.epoch, mean)

    def _raise_diverged(self, loss: float, step: int) -> None:
        """Save a checkpoint and the adapter of the best epoch, then raise a TrainingError.

        The checkpoint holds the last good state, because a step without a finite loss changes nothing.
        """
        self._checkpoint()
        self.checkpoints.wait()
        if self.folder is None:
            saved = "nothing is saved, because this is the cross-validation"
        elif self.state.best:
            self.kept.load_trainable_state(self.state.best)
            self._save_adapter()
            saved = f"the adapter of epoch {self.progress.best_epoch} is saved in '{self.folder}'"
        else:
            saved = f"no epoch was finished; the last good state is in '{self.folder / CHECKPOINT_FILE}'"
        raise TrainingError(
            f"the loss or its gradient is not a finite number at step {step} (loss {loss}); {saved}. "
            f"Use lower learning rates than `lr={self.config.lr}` and `head_lr={self.config.head_lr}`"
        )

    def _end_epoch(self, log: MetricsFile) -> None:
        """Evaluate the averaged state, save it if it is the best so far, and restore the state in training."""
        self.between_steps = False
        latest = [copy_state(member.model) for member in self.members]
        for member in self.members:
            member.model.load_trainable_state(member.average)
        if self.contrastive:
            fit_heads(self.members, self.train_rows, self.classifier.pad_id)
        line = self._evaluate_epoch()
        for member, state in zip(self.members, latest, strict=True):
            member.model.load_trainable_state(state)
        if not math.isfinite(line["loss"]):
            self._raise_diverged(line["loss"], self.progress.step)
        self.progress.history.append(line)
        log.add(line)
        self.events.end_epoch(line)
        self.progress.epoch += 1
        self.progress.batch, self.progress.rows, self.progress.loss_sum = 0, 0, 0.0
        if line["best"]:
            self._save_best()
        if line.get("lost") and not self._over:  # also where the run is stopped now, for it may be resumed
            go_back(self.state, self.config.lr)
        if not self.cut_short:
            self._checkpoint()
        self.events.saved()
        if self.on_epoch is not None:
            self.on_epoch(line)

    def _save_best(self) -> None:
        """Write the adapter of the best state, and restore the state in training."""
        if self.folder is None:
            return
        latest = copy_state(self.kept)
        self.kept.load_trainable_state(self.state.best)
        self._save_adapter()
        self.kept.load_trainable_state(latest)

    def _save_adapter(self) -> None:
        """Write the adapter of the kept model."""
        if self.processes.first and self.folder is not None:
            save_adapter(self.folder, self.kept, self.record())

    def _evaluate_epoch(self) -> dict[str, Any]:
        """Return the epoch's line of the metrics file; remember the state if it is the best so far."""
        started = time.perf_counter()
        before = values_before(self.validation.metric, self.config.ensemble, self.progress.history)
        measured = self.measured = self.known or self.validation.measure(before)
        self.deadline.reserved = time.perf_counter() - started
        self.progress.seconds += self.deadline.reserved
        rank = list(measured.rank)
        newest = self.config.best == "last" or not self.progress.best_rank
        better = math.isfinite(measured.metrics["loss"]) and (newest or rank > self.progress.best_rank)
        if better:
            self._remember(measured)
            self.progress.best_rank = rank
        if measured.collapse is not None and (self.known or not self.config.folds):  # a fold may have very few rows
            self._warn_of_collapse(measured.collapse)
        line = {
            "epoch": self.progress.epoch,
            "step": self.progress.step,
            "train_loss": self.progress.loss_sum / self.progress.rows,
            **measured.metrics,
            "chance": is_chance(measured.metrics, self.kept.problem_type),
            "best": better,
            "seconds": round(self.progress.seconds, 3),
        }
        if len(self.members) == 1:
            return {**line, "lost": True} if self._has_lost(measured) else line
        seeds = [str(member.seed) for member in self.members]
        return {**line, "by_seed": dict(zip(seeds, measured.by_member, strict=True))}

    def _has_lost(self, measured: Measured) -> bool:
        """Return whether every row gets the same prediction, although an earlier epoch is the best and had learned."""
        best = self.progress.best_epoch
        learned = any(line["epoch"] == best and not line["chance"] for line in self.progress.history)
        return measured.collapse is not None and learned

    def _remember(self, measured: Measured) -> None:
        """Note the current epoch and its state as the best."""
        member = None if measured.member is None else self.members[measured.member]
        state = self.ensemble.trainable_state() if member is None else member.average
        self.progress.best_epoch, self.progress.best_metrics = self.progress.epoch, measured.metrics
        self.progress.best_seed = None if member is None else member.seed
        self.best_logits = measured.kept_logits(self.kept.problem_type)
        self.progress.best_temperature = measured.temperature
        self.progress.best_thresholds = list(measured.thresholds)
        self.state.best = {name: tensor.detach().clone() for name, tensor in state.items()}

    def _warn_of_collapse(self, collapse: str) -> None:
        """Log a warning that every validation row gets the same prediction."""
        logger.warning(
            "epoch %d: %s; the model has not learned to tell %s apart. If this lasts, change `lr` (now %g) or "
            "train longer",
            self.progress.epoch,
            collapse,
            "texts" if self.kept.problem_type == REGRESSION else "classes",
            self.config.lr,
        )

    @property
    def ended(self) -> bool:
        """True if all epochs are done, patience has run out, time is over, or a callback asked to stop."""
        return self._over or self._told_to_stop

    @property
    def _over(self) -> bool:
        """True if all epochs are done or patience has run out, so that there is nothing to resume."""
        return self.progress.epoch > self.config.epochs or out_of_patience(self.config, self.progress)

    @property
    def _told_to_stop(self) -> bool:
        """True if a callback asked to stop, or time is over. The first process alone has callbacks."""
        return self.processes.any(self.events.stop or self.deadline.over)

    def _checkpoint(self) -> None:
        self.checkpoints.save(self.state, self.identity)

    @property
    def task(self) -> TaskInfo:
        """What is known of the task, with what was fitted after the best epoch."""
        decision = self.validation.decision(tuple(self.progress.best_thresholds))
        return replace(self.classifier.task, temperature=self.progress.best_temperature, decision=decision)

    def record(self) -> Record:
        """Return the record of the best epoch."""
        training = {
            **self.config.model_dump(exclude={"checkpoint_steps", "time_limit"}),
            "best_epoch": self.progress.best_epoch,
            "best_seed": self.progress.best_seed,
            "train_rows": len(self.train_rows.labels),
            "validation_rows": len(self.validation_rows.labels),
            "dtype": self.kept.backbone.dtype_name,
        }
        if self.kept.backbone.quantize:
            training["quantize"] = self.kept.backbone.quantize
        return Record.of(
            self.kept,
            self.task,
            max_length=self.classifier.encoder.max_length,
            pair_separator=self.classifier.encoder.pair_separator,
            metrics=self.progress.best_metrics,
            training=training,
        )
