"""`train`: data and a model in, an adapter on disk and the best epoch's figures out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptune.atomic import make_folder
from ptune.data.splits import TextData
from ptune.errors import DataError
from ptune.model.classifier import PromptClassifier
from ptune.predict import TextClassifier
from ptune.training.config import TrainConfig
from ptune.training.few_shot import settle_training
from ptune.training.run import OnEpoch, OnStep, Rows, Run


@dataclass(frozen=True)
class TrainResult:
    """What a run gave. metrics are the best epoch's on validation; seconds are of training and evaluation."""

    metrics: dict[str, float]
    best_epoch: int
    epochs: int
    trainable_params: int
    all_params: int
    seconds: float
    examples_per_second: float
    adapter: str
    majority: float
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
) -> TrainResult:
    """Train a prompt and its head; write the best epoch's adapter to `output`.

    The model holds the best epoch's state when this returns, exactly: evaluating it gives the recorded
    figures to the last digit.

    Args:
        model: what to train; only its prompt encoder and head change.
        data: with the splits train and validation.
        config: settings; rates left None follow from the method, and more than rates where rows are few.
        output: folder of the adapter, its metrics.jsonl and its checkpoint.
        max_length: tokens to cut texts to; at most, and by default, what the backbone holds beside the prompt.
        resume: go on from the checkpoint in `output`, if there is one, as if never stopped.
        on_step, on_epoch: called along the way.

    Raises:
        TrainingError: the loss is no longer a number. The last good state is in the checkpoint.
        ConfigError: `resume` finds a checkpoint of another run.
        DataError: validation has no labels. OutputError: `output` cannot be written.
    """
    config = settle_training(config or TrainConfig(), model.config, data)
    folder = Path(output).expanduser()
    make_folder(folder)
    classifier = TextClassifier.around(model, max_length)
    classifier.columns = {"text": data.columns.text, "text_pair": data.columns.text_pair}
    rows, held_back = (_encode(classifier, data, name) for name in ("train", "validation"))
    classifier.encoder.warn_of_cuts(len(rows.labels) + len(held_back.labels))
    run = Run(classifier, rows, held_back, config, folder, on_step, on_epoch)
    if resume:
        run.resume()
    run.go()
    return _result(run, data)


def _encode(classifier: TextClassifier, data: TextData, name: str) -> Rows:
    split = data.split(name)
    if split.labels is None:
        raise DataError(f"data '{data.source}': the rows of {name} have no labels")
    return Rows(classifier.encoder.encode(split.texts, split.pairs), split.labels)


def _result(run: Run, data: TextData) -> TrainResult:
    trained, total = run.model.trainable_parameters()
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
