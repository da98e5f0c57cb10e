"""transformers' callbacks receive the events that they would receive from the Trainer, and may stop a run."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from transformers import EarlyStoppingCallback, TrainerCallback

import ptune
from ptune.cli import main
from ptune.errors import ConfigError
from ptune.training.callbacks import reporting_callbacks


class Diary(TrainerCallback):
    """A callback that records every event with its step and its values."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int]] = []
        self.logs: list[dict[str, float]] = []
        self.metrics: list[dict[str, float]] = []
        self.bests: list[float | None] = []
        self.models: list[Any] = []

    def _note(self, event: str, state: Any) -> None:
        self.events.append((event, state.global_step))

    def on_train_begin(self, args, state, control, model=None, **_):
        self.models.append(model)
        self.arguments = args
        self._note("train begin", state)

    def on_epoch_begin(self, args, state, control, **_):
        self._note("epoch begin", state)

    def on_step_end(self, args, state, control, **_):
        self._note("step", state)

    def on_log(self, args, state, control, logs=None, **_):
        self.logs.append(logs)

    def on_epoch_end(self, args, state, control, **_):
        self._note("epoch end", state)

    def on_evaluate(self, args, state, control, metrics=None, **_):
        self.metrics.append(metrics)
        self.bests.append(state.best_metric)
        self._note("evaluate", state)

    def on_save(self, args, state, control, **_):
        self._note("save", state)

    def on_train_end(self, args, state, control, **_):
        self.state = state
        self._note("train end", state)


class StopAt(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **_):
        control.should_training_stop = state.global_step >= self.step


def run(backbone: Any, data: Path, output: Path, *callbacks: Any, resume: bool = False, **settings: Any) -> Any:
    loaded = ptune.load_data(data)
    model = ptune.PromptClassifier.from_backbone(backbone, ptune.PromptConfig(virtual_tokens=3), labels=loaded.labels)
    config = ptune.TrainConfig(**{"epochs": 2, "batch_size": 12, **settings})
    return ptune.train(model, loaded, config, output=output, callbacks=callbacks, resume=resume)


def test_callbacks_hear_of_a_run_in_the_trainers_order(backbone, reviews, tmp_path) -> None:
    diary = Diary()
    result = run(backbone("bert"), reviews, tmp_path, diary)
    epochs = [
        ("epoch begin", 0),
        *(("step", step) for step in (1, 2, 3, 4)),
        *((event, 4) for event in ("epoch end", "evaluate", "save", "epoch begin")),
        *(("step", step) for step in (5, 6, 7, 8)),
        *((event, 8) for event in ("epoch end", "evaluate", "save")),
    ]
    assert diary.events == [("train begin", 0), *epochs, ("train end", 8)]
    assert diary.models == [result.classifier.model]
    for line, metrics in zip(result.history, diary.metrics, strict=True):
        assert metrics["eval_loss"] == line["loss"]
        assert metrics["eval_accuracy"] == line["accuracy"]
    assert diary.bests == [None, result.history[0]["accuracy"]]  # compared with the best before
    assert diary.state.best_metric == result.metrics["accuracy"]
    assert diary.state.best_model_checkpoint == str(tmp_path)
    losses = [line["loss"] for line in diary.logs if "loss" in line]
    assert losses == pytest.approx([line["train_loss"] for line in result.history])
    assert (diary.arguments.metric_for_best_model, diary.arguments.per_device_train_batch_size) == ("eval_accuracy", 12)


def test_callbacks_change_nothing_that_is_learned(backbone, reviews, tmp_path) -> None:
    run(backbone("bert"), reviews, tmp_path / "plain")
    run(backbone("bert"), reviews, tmp_path / "called", Diary)
    for name in ("adapter_model.safetensors", "ptune.json"):
        assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "called" / name).read_bytes()


def test_early_stopping_ends_a_run_that_gets_no_better(backbone, reviews, tmp_path) -> None:
    stop = EarlyStoppingCallback(early_stopping_patience=2, early_stopping_threshold=2.0)  # nothing is that much better
    result = run(backbone("bert"), reviews, tmp_path, stop, epochs=9)
    assert result.epochs == 3  # the first is a best one, the next two are not
    assert ptune.read_adapter(tmp_path).record.metrics == result.metrics


def test_a_run_that_a_callback_stops_in_an_epoch_is_evaluated_there(backbone, reviews, tmp_path) -> None:
    diary = Diary()
    result = run(backbone("gpt2"), reviews, tmp_path, StopAt(6), diary, epochs=5)
    assert diary.events[-4:] == [("epoch end", 6), ("evaluate", 6), ("save", 6), ("train end", 6)]
    assert [line["step"] for line in result.history] == [4, 6]


def test_a_resumed_run_knows_its_step_and_its_best(backbone, reviews, tmp_path) -> None:
    first, second = Diary(), Diary()
    run(backbone("bert"), reviews, tmp_path, StopAt(4), first, epochs=3)
    result = run(backbone("bert"), reviews, tmp_path, second, epochs=3, resume=True)
    assert second.events[0] == ("train begin", 4)
    assert second.bests[0] == result.history[0]["accuracy"]


@pytest.mark.parametrize("ensemble", [False, True])
def test_several_seeds_are_reported_as_one_run(ensemble, backbone, reviews, tmp_path) -> None:
    diary = Diary()
    result = run(backbone("bert"), reviews, tmp_path, diary, seeds=2, seed=5, ensemble=ensemble)
    for line, metrics in zip(result.history, diary.metrics, strict=True):
        by_seed = {f"eval_accuracy_seed_{seed}": value for seed, value in line["by_seed"].items()}
        assert by_seed.items() <= metrics.items()
        assert metrics["eval_accuracy"] == line["accuracy"]
    assert len([event for event, _ in diary.events if event == "step"]) == 8


def test_a_metric_where_less_is_better_is_reported_as_such(backbone, reviews, tmp_path) -> None:
    diary = Diary()
    run(backbone("bert"), reviews, tmp_path, diary, best="loss")
    assert (diary.arguments.metric_for_best_model, diary.arguments.greater_is_better) == ("eval_loss", False)


def test_something_other_than_a_callback_is_refused(backbone, reviews, tmp_path) -> None:
    with pytest.raises(ConfigError, match="'tensorboard' in `callbacks` is not a callback"):
        run(backbone("bert"), reviews, tmp_path, "tensorboard")
    data = ptune.load_data(reviews)
    model = ptune.PromptClassifier.from_backbone(backbone("bert"), labels=data.labels)
    with pytest.raises(ConfigError, match="give a list"):
        ptune.train(model, data, output=tmp_path, callbacks=EarlyStoppingCallback())
    assert not list(tmp_path.iterdir())


def test_tensorboard_gets_losses_and_metrics(backbone_folder, reviews, tmp_path, monkeypatch) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    options = ["--backbone", backbone_folder("bert"), "--data", reviews, "--output", tmp_path, "--epochs", 2]
    main(["train", *map(str, options), "--report-to", "tensorboard"])
    (file,) = (tmp_path / "runs").rglob("events.out.tfevents*")
    events = EventAccumulator(str(file.parent))
    events.Reload()
    names = {"train/loss", "train/learning_rate", "eval/loss", "eval/accuracy"}
    assert names <= set(events.Tags()["scalars"])
    history = [line for line in (tmp_path / "metrics.jsonl").read_text().splitlines() if line]
    assert len(events.Scalars("eval/loss")) == len(history) == 2
    assert 0 < events.Scalars("train/loss")[0].value < 5


@pytest.mark.parametrize(
    ("report", "command"),
    [("tensorboard", "'ptune[tensorboard]'"), ("wandb", "wandb accelerate"), ("trackio", "trackio accelerate")],
)
def test_a_missing_package_is_named_with_its_command(report, command, monkeypatch, capsys, tmp_path) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == report else find(name, *rest))
    with pytest.raises(SystemExit) as stop:
        main(["train", "--backbone", "x", "--data", "y", "--output", str(tmp_path), "--report-to", report])
    assert stop.value.code == 2
    assert f"run: pip install {command}" in capsys.readouterr().err


def test_an_unknown_report_is_named() -> None:
    with pytest.raises(ConfigError, match="'prints' is unknown; use one of tensorboard"):
        reporting_callbacks("prints")
    assert reporting_callbacks("none") == []


@pytest.mark.parametrize("step", [2, 5])
def test_a_run_that_was_stopped_within_an_epoch_trains_the_rest_of_it_when_it_is_resumed(
    step, backbone, reviews, tmp_path
) -> None:
    settings = {"epochs": 3, "batch_size": 8, "patience": 0}
    whole = run(backbone("bert"), reviews, tmp_path / "whole", **settings)
    steps = whole.history[-1]["step"] // 3
    assert step % steps
    run(backbone("bert"), reviews, tmp_path / "a", StopAt(step), **settings)
    resumed = run(backbone("bert"), reviews, tmp_path / "a", resume=True, **settings)
    assert [line["step"] for line in resumed.history] == [steps, 2 * steps, 3 * steps]
    files = [(tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("a", "whole")]
    assert files[0] == files[1]
