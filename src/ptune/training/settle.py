"""The settings of a run for a model and its data, with every default filled in."""

from __future__ import annotations

from pathlib import Path

import torch

from ptune.data.batch import collate, pack
from ptune.data.splits import TextData
from ptune.errors import ConfigError, TrainingError
from ptune.inference.classifier import TextClassifier
from ptune.model.classifier import PromptClassifier
from ptune.model.gain import measure_gain
from ptune.model.memory import memory_errors
from ptune.processes import Processes
from ptune.training.checkpoint import recorded_settings
from ptune.training.config import SettledConfig, TrainConfig
from ptune.training.defaults import Task

# The gain of a backbone is measured on so many training rows, or fewer if they have more tokens than this.
GAIN_ROWS, FEWEST_GAIN_ROWS, GAIN_TOKENS = 32, 4, 2048


def settle(config: TrainConfig, model: PromptClassifier, data: TextData, resumed: Path | None = None) -> SettledConfig:
    """Return the settings with every default filled in for a model and its data; see `TrainConfig.settle`.

    Args:
        config: the settings as the user gave them, or as an earlier call returned them.
        model: the model to train.
        data: the data to train on.
        resumed: the folder of the run to go on with; None: a new run.

    Raises:
        ConfigError: a setting does not apply to the task, or to a sharded backbone.
        TrainingError: a sharded backbone has no memory for a few rows.
    """
    processes = Processes.launched()
    if config.compile and model.backbone.shards is not None:
        raise ConfigError(
            "`compile` needs the whole backbone in each process, and `shard` spreads it; leave one of them out",
            field="compile",
            value=True,
            expected="False",
        )
    before, processes_before = (None if resumed is None else recorded_settings(resumed)) or ({}, processes.count)
    # Only Muon's default rate depends on it.
    needs_gain = config.lr is None and config.optimizer != "adamw" and model.config.softmax == "separate"
    if needs_gain and before.get("lr"):  # the prompt may have learned since then, which would change the gain
        config, needs_gain = config.model_copy(update={"lr": float(before["lr"])}), False
    task = Task(
        rows=len(data.train),
        validation_rows=len(data.validation),
        classes=len(model.labels),
        width=model.backbone.output_width,
        problem_type=model.problem_type,
        pairs=data.train.pairs is not None,
        metrics=data.metrics,
        norm_first=model.backbone.norm_first,
        gpu=model.backbone.device.type == "cuda" and model.backbone.shards is None,
        encoder=not model.backbone.family.decoder,
        held_back=data.held_back and not data.sampled,
        gain=_gain(model, data) if needs_gain else None,
        processes=processes.count,
        global_batch=None if processes_before == processes.count else before.get("global_batch"),
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
            if model.backbone.shards is not None:  # the other processes are in that pass
                raise TrainingError(
                    f"{model.backbone.device} has no memory for {len(rows)} rows; cut texts with `max_length`, or use "
                    "more processes"
                ) from None
            rows = rows[: len(rows) // 2]
    return None
