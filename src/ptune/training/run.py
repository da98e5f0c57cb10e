"""One training run: batches, steps, an evaluation each epoch, the best state put back at the end."""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ptune.adapter.files import note_backbone, save_adapter
from ptune.adapter.layout import Record
from ptune.data.batch import collate, training_batches
from ptune.data.encode import Encoded
from ptune.errors import TrainingError
from ptune.metrics import collapsed, evaluate_logits
from ptune.model.classifier import PromptClassifier
from ptune.predict import TextClassifier, run_logits
from ptune.training.checkpoint import CHECKPOINT_FILE, Progress, RunState, load_checkpoint, save_checkpoint
from ptune.training.config import TrainConfig
from ptune.training.optim import clip_gradients, generator_state, make_optimizer, set_generator_state, set_rates
from ptune.training.report import MetricsFile, versions
from ptune.training.stop import StopSignal

logger = logging.getLogger(__name__)

# Called after every step with (rows done in this epoch, rows in it, epoch, mean loss of the epoch so far).
OnStep = Callable[[int, int, int, float], None]
# Called after every epoch with its line of the metrics file.
OnEpoch = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Rows:
    """An encoded split."""

    encoded: list[Encoded]
    labels: list[int]

    @property
    def lengths(self) -> list[int]:
        return [len(row) for row in self.encoded]


class Run:
    """One training run: the state of `RunState` and the steps that change it."""

    def __init__(
        self,
        classifier: TextClassifier,
        train_rows: Rows,
        validation_rows: Rows,
        config: TrainConfig,
        folder: Path,
        on_step: OnStep | None = None,
        on_epoch: OnEpoch | None = None,
    ) -> None:
        self.classifier = classifier
        self.model = classifier.model
        self.train_rows = train_rows
        self.validation_rows = validation_rows
        self.config = config
        self.folder = folder
        self.on_step = on_step
        self.on_epoch = on_epoch
        self.stop = StopSignal()
        self.between_steps = False  # whether the state at hand is one that a checkpoint may hold
        torch.manual_seed(config.seed)  # dropout in prompt and prompt encoder draws from the global generator
        self.state = RunState(self.model, make_optimizer(self.model, config), Progress(), _copy(self.model), {})
        batches = math.ceil(len(train_rows.labels) / config.batch_size)
        self.total_steps = config.epochs * math.ceil(batches / config.accumulate)

    @cached_property  # it reads all rows, and every checkpoint carries it
    def identity(self) -> dict[str, Any]:
        """What must be equal for a checkpoint to belong to this run."""
        content = hashlib.sha256()
        for rows in (self.train_rows, self.validation_rows):
            for row, label in zip(rows.encoded, rows.labels, strict=True):
                content.update(f"{row.ids} {label}\n".encode())
        return {
            "prompt": self.model.config.model_dump(),
            "training": self.config.model_dump(exclude={"checkpoint_steps"}),
            "labels": self.model.labels,
            "backbone": self.model.backbone.fingerprint(),
            "dtype": str(self.model.backbone.dtype).removeprefix("torch."),
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
    def progress(self) -> Progress:
        return self.state.progress

    def go(self) -> None:
        """Run the epochs that are left, then put the best state back and save it."""
        log = MetricsFile(self.folder, self.progress.history)
        try:
            with self.stop:
                while not self.ended:
                    self._train_epoch()
                    self._end_epoch(log)
        except KeyboardInterrupt:
            if self.between_steps:  # else a second Ctrl-C came in the middle of something: the older checkpoint holds
                self._checkpoint()
            logger.warning("stopped; go on with --resume")
            raise
        self.model.load_trainable_state(self.state.best)
        self.model.eval()
        save_adapter(self.folder, self.model, self.record())

    def _train_epoch(self) -> None:
        batches = training_batches(
            self.train_rows.lengths, self.config.batch_size, self.config.seed, self.progress.epoch
        )
        self.model.train()
        started = time.perf_counter()
        while self.progress.batch < len(batches):
            group = batches[self.progress.batch : self.progress.batch + self.config.accumulate]
            self.between_steps = False
            self._step(group)
            self.progress.batch += len(group)
            self.progress.step += 1
            self.between_steps = True
            if self.on_step is not None:
                mean = self.progress.loss_sum / self.progress.rows
                self.on_step(self.progress.rows, len(self.train_rows.labels), self.progress.epoch, mean)
            if self.stop.asked:
                raise KeyboardInterrupt
            if self.progress.step % self.config.checkpoint_steps == 0 and self.progress.batch < len(batches):
                self.progress.seconds += time.perf_counter() - started
                self._checkpoint()
                started = time.perf_counter()
        self.progress.seconds += time.perf_counter() - started

    def _step(self, group: list[list[int]]) -> None:
        """One optimizer step over a group of batches; the loss is the mean over all of their rows."""
        rows = sum(len(batch) for batch in group)
        optimizer, device = self.state.optimizer, self.model.backbone.device
        generator = generator_state(device)
        set_rates(optimizer, self.config, self.progress.step, self.total_steps)
        total = 0.0
        for batch_rows in group:
            batch = collate(self.train_rows.encoded, self.train_rows.labels, batch_rows, self.classifier.pad_id)
            batch = batch.to(device)
            loss = self.model(**batch.inputs, labels=batch.labels).loss * (len(batch_rows) / rows)
            loss.backward()
            total += float(loss.detach())
        norm = clip_gradients(self.model, self.config.clip)
        if not (math.isfinite(total) and math.isfinite(norm)):
            optimizer.zero_grad()
            set_generator_state(generator, device)
            self._diverged(total, self.progress.step + 1)
        optimizer.step()
        optimizer.zero_grad()
        self._average()
        self.progress.loss_sum += total * rows
        self.progress.rows += rows
        self.progress.rows_seen += rows

    @torch.no_grad()
    def _average(self) -> None:
        """Move the average towards the new state: a plain mean of the first steps, exponential later on."""
        share = max(1 - self.config.average, 1 / (1 + self.progress.step)) if self.config.average else 1.0
        for name, tensor in self.model.trainable_state().items():
            self.state.average[name].lerp_(tensor, share)

    def _diverged(self, loss: float, step: int) -> None:
        """Save the state at hand, which this step has not changed, and the best epoch's adapter; then stop."""
        self._checkpoint()
        if self.state.best:
            self.model.load_trainable_state(self.state.best)
            save_adapter(self.folder, self.model, self.record())
            kept = f"the adapter of epoch {self.progress.best_epoch} is saved in '{self.folder}'"
        else:
            kept = f"no epoch was finished; the last good state is in '{self.folder / CHECKPOINT_FILE}'"
        raise TrainingError(
            f"the loss or its gradient is not a finite number at step {step} (loss {loss}); {kept}. "
            f"Lower the rates: --lr {self.config.lr} and --head-lr {self.config.head_lr} are too high here"
        )

    def _end_epoch(self, log: MetricsFile) -> None:
        """Evaluate the averaged state, keep it if it is the best so far, and go on with the state as trained."""
        self.between_steps = False
        latest = _copy(self.model)
        self.model.load_trainable_state(self.state.average)
        line = self._evaluate_epoch()
        if not math.isfinite(line["loss"]):
            self.model.load_trainable_state(latest)
            self._diverged(line["loss"], self.progress.step)
        self.progress.history.append(line)
        log.add(line)
        self.progress.epoch += 1
        self.progress.batch, self.progress.rows, self.progress.loss_sum = 0, 0, 0.0
        if line["best"]:
            save_adapter(self.folder, self.model, self.record())
        self.model.load_trainable_state(latest)
        self._checkpoint()
        if self.on_epoch is not None:
            self.on_epoch(line)

    def _evaluate_epoch(self) -> dict[str, Any]:
        """The epoch's line of the metrics file; notes the state if it is the best."""
        started = time.perf_counter()
        logits = self.evaluate()
        labels = torch.tensor(self.validation_rows.labels)
        metrics = evaluate_logits(logits, labels)
        self.progress.seconds += time.perf_counter() - started
        better = math.isfinite(metrics["loss"]) and self._better(metrics)
        if better:
            self.progress.best_epoch, self.progress.best_metrics = self.progress.epoch, metrics
            self.state.best = _copy(self.model)
        self._warn_of_collapse(logits, labels)
        return {
            "epoch": self.progress.epoch,
            "step": self.progress.step,
            "train_loss": self.progress.loss_sum / self.progress.rows,
            **metrics,
            "best": better,
            "seconds": round(self.progress.seconds, 3),
        }

    def _warn_of_collapse(self, logits: Tensor, labels: Tensor) -> None:
        only = collapsed(logits, labels)
        if only is not None:
            logger.warning(
                "epoch %d: every prediction is '%s'; the model has not learned to tell classes apart. If this lasts, "
                "change --lr (now %g) or train longer",
                self.progress.epoch,
                self.model.labels[only],
                self.config.lr,
            )

    def evaluate(self) -> Tensor:
        """Logits of the validation rows, [N, C], with the same batches every time."""
        return run_logits(self.model, self.validation_rows.encoded, self.classifier.pad_id, self.config.batch_size)

    def _better(self, metrics: dict[str, float]) -> bool:
        best = self.progress.best_metrics
        if not best or self.config.best == "last":
            return True
        if self.config.best == "loss":
            return metrics["loss"] < best["loss"]
        return (metrics[self.config.best], -metrics["loss"]) > (best[self.config.best], -best["loss"])

    @property
    def ended(self) -> bool:
        """All epochs are run, or patience ran out."""
        waited = self.progress.epoch - 1 - self.progress.best_epoch
        out_of_patience = self.config.patience is not None and waited >= self.config.patience
        return self.progress.epoch > self.config.epochs or out_of_patience

    def _checkpoint(self) -> None:
        save_checkpoint(self.folder, self.state, self.identity)

    def record(self) -> Record:
        """The record of the best epoch. No times in it: the same run gives the same bytes."""
        return Record(
            prompt=self.model.config,
            backbone=note_backbone(self.model.backbone),
            labels=self.model.labels,
            classes=len(self.model.labels),
            max_length=self.classifier.encoder.max_length,
            pair_separator=self.classifier.encoder.pair_separator,
            columns=self.classifier.columns,
            metrics=self.progress.best_metrics,
            training={
                **self.config.model_dump(exclude={"checkpoint_steps"}),
                "best_epoch": self.progress.best_epoch,
                "train_rows": len(self.train_rows.labels),
                "validation_rows": len(self.validation_rows.labels),
            },
            versions=versions(),
        )


def _copy(model: PromptClassifier) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.trainable_state().items()}
