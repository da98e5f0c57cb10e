"""A prompt that has learned nothing early on starts again at a lower rate, and a run knows chance from skill."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import TrainerCallback

import ptune
from ptune.data.targets import MULTI, REGRESSION
from ptune.evaluation.chance import interval, is_chance
from ptune.model.objective import Objective, balanced_weights
from ptune.training import rescue
from ptune.training.checkpoint import CHECKPOINT_FILE
from ptune.training.choice import values_before
from ptune.training.rescue import LOWER, Rescue, best_constant_loss
from ptune.training.steps import Rows
from ptune.training.validation import Validation
from tests.training.test_train import new_model, run


def best_by_search(objective: Objective, targets: torch.Tensor, classes: int) -> float:
    """The lowest loss of constant logits, found by gradient descent."""
    logits = torch.zeros(1, classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=200, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        value = objective(logits.expand(len(targets), -1), targets)
        value.backward()
        return value

    optimizer.step(loss)
    return float(loss().detach())


SINGLE_TARGETS = torch.tensor([0, 0, 0, 1, 2, 2])
MULTI_TARGETS = torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 1, 0], [1, 0, 1]])


@pytest.mark.parametrize(
    ("objective", "targets", "classes"),
    [
        (Objective(), SINGLE_TARGETS, 3),
        (Objective(label_smoothing=0.2), SINGLE_TARGETS, 3),
        (Objective(weights=balanced_weights("single_label_classification", SINGLE_TARGETS, 3)), SINGLE_TARGETS, 3),
        (Objective(MULTI), MULTI_TARGETS, 3),
        (Objective(MULTI, balanced_weights(MULTI, MULTI_TARGETS, 3)), MULTI_TARGETS, 3),
        (Objective(REGRESSION, scale=2.0), torch.tensor([1.0, 2.0, 6.0]), 1),
    ],
    ids=["plain", "smoothed", "weighted", "multi", "multi-weighted", "regression"],
)
def test_the_best_constant_answer_is_known(objective, targets, classes) -> None:
    assert best_constant_loss(objective, targets, classes) == pytest.approx(
        best_by_search(objective, targets, classes), abs=1e-3
    )


def test_weighted_rows_count_by_their_weights() -> None:
    weights = torch.tensor([2.0, 2.0, 0.0, 1.0, 0.5, 0.5])
    repeated = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2, 0, 0, 1, 2])[:8]
    assert repeated.bincount().tolist() == [4, 2, 2]
    twice = torch.tensor([0, 0, 0, 0, 1, 2])
    expected = best_constant_loss(Objective(), twice, 3)
    assert best_constant_loss(Objective(), SINGLE_TARGETS, 3, weights) == pytest.approx(expected, rel=1e-5)


def test_a_prompt_is_looked_at_after_three_tenths_of_its_steps() -> None:
    rows = Rows([], SINGLE_TARGETS)
    plan = Rescue.of(Objective(), rows, 3, 1000)
    assert (plan.first, plan.last) == (201, 300)
    assert [plan.counts(step) for step in (200, 201, 300, 301)] == [False, True, True, False]
    assert plan.has_learned(100 * plan.constant_loss * 0.98)
    assert not plan.has_learned(100 * plan.constant_loss)
    assert Rescue.of(Objective(), rows, 3, 1000, warmup=0.3).last == 400
    assert not any(Rescue.of(Objective(), rows, 3, 60).counts(step) for step in range(100))  # too short to tell


@pytest.fixture
def early(monkeypatch) -> None:
    """Look at the prompts of short runs too."""
    monkeypatch.setattr(rescue, "FEWEST_STEPS", 1)


def test_a_run_that_learns_nothing_starts_again_at_half_its_rate(backbone, reviews, tmp_path, early, caplog) -> None:
    settings = {"method": "deep", "token_dropout": 0.0}
    with caplog.at_level(logging.WARNING):
        result, _ = run(backbone("bert"), reviews, tmp_path, lr=1e-9, head_lr=1e-9, epochs=10, settings=settings)
    (message,) = [record.message for record in caplog.records if "starts again" in record.message]
    assert "learned nothing in the first" in message
    assert f"`lr={1e-9 * LOWER:g}`" in message
    assert result.epochs == 10


def test_a_run_that_learns_goes_on(backbone, reviews, tmp_path, early, caplog) -> None:
    settings = {"method": "deep", "token_dropout": 0.0}
    with caplog.at_level(logging.WARNING):
        run(backbone("bert"), reviews, tmp_path, lr=0.05, head_lr=0.05, epochs=40, settings=settings)
    assert "starts again" not in caplog.text


def test_a_run_that_started_again_resumes_exactly(backbone, reviews, tmp_path, early) -> None:
    options = {"lr": 1e-6, "head_lr": 1e-6, "epochs": 10, "checkpoint_steps": 1, "settings": {"method": "deep"}}
    whole, _ = run(backbone("bert"), reviews, tmp_path / "whole", **options)

    class StopError(Exception):
        pass

    for after in (20, 29, 30, 31, 45):  # before, at and after the decision
        folder: Path = tmp_path / f"stopped{after}"
        calls = 0

        def stop(*_: object, after: int = after) -> None:
            nonlocal calls
            calls += 1
            if calls == after:
                raise StopError

        model = new_model(backbone("bert"), 3, method="deep")  # its prompt is trained when the run goes on with it
        with pytest.raises(StopError):
            run(backbone("bert"), reviews, folder, on_step=stop, model=model, **options)
        assert (folder / CHECKPOINT_FILE).exists()
        run(backbone("bert"), reviews, folder, resume=True, model=model, **options)
        name = "adapter_model.safetensors"
        assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert whole.epochs == 10


@pytest.fixture
def lost_in_epoch(monkeypatch):
    """Let the validation rows all get the same prediction in an epoch."""
    measure = Validation.measure

    def lose(epoch: int) -> None:
        calls = []

        def measured(self: Validation, before: Sequence[float] = ()):
            calls.append(1)
            if len(calls) != epoch:
                return measure(self, before)
            return self.measure_logits(torch.tensor([3.0, 0.0]).expand_as(self.logits()), before)

        monkeypatch.setattr(Validation, "measure", measured)

    return lose


def test_a_prompt_that_lost_what_it_had_learned_goes_back(
    backbone, reviews, tmp_path, lost_in_epoch, monkeypatch, caplog
) -> None:
    monkeypatch.setattr("ptune.training.run.is_chance", lambda metrics, problem_type: metrics["matthews"] == 0)
    options = {"lr": 1e-3, "head_lr": 1e-3, "epochs": 6, "settings": {"method": "deep"}}
    lost_in_epoch(3)
    with caplog.at_level(logging.WARNING):
        whole, _ = run(backbone("bert"), reviews, tmp_path / "whole", **options)
    first, second, third, fourth, *_ = whole.history
    assert not first["chance"] or not second["chance"]
    assert [line.get("lost") for line in (second, third, fourth)] == [None, True, None]
    assert not third["best"]
    best = max(line["epoch"] for line in (first, second) if line["best"])
    (message,) = [record.message for record in caplog.records if "lost" in record.message]
    assert f"goes on from the state of epoch {best} with `lr={1e-3 * LOWER:g}`" in message
    assert fourth["accuracy"] > third["accuracy"]

    class StopError(Exception):
        pass

    def stop(done: int, of: int, epoch: int, loss: float) -> None:
        if epoch == 4:
            raise StopError

    folder = tmp_path / "stopped"
    lost_in_epoch(3)
    with pytest.raises(StopError):
        run(backbone("bert"), reviews, folder, on_step=stop, **options)
    resumed, _ = run(backbone("bert"), reviews, folder, resume=True, **options)
    assert [line["loss"] for line in resumed.history] == [line["loss"] for line in whole.history]
    name = "adapter_model.safetensors"
    assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()

    class StopsWhenLost(TrainerCallback):
        def on_epoch_end(self, args, state, control, **_):
            control.should_training_stop = round(state.epoch) == 3

    folder = tmp_path / "told to stop"
    lost_in_epoch(3)
    stopped, _ = run(backbone("bert"), reviews, folder, callbacks=[StopsWhenLost()], **options)
    assert [line.get("lost") for line in stopped.history] == [None, None, True]
    resumed, _ = run(backbone("bert"), reviews, folder, resume=True, **options)
    assert [line["loss"] for line in resumed.history] == [line["loss"] for line in whole.history]
    assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_epochs_after_a_loss_are_compared_with_the_best_one() -> None:
    history = [
        {"epoch": 1, "accuracy": 0.8, "chance": False, "best": True},
        {"epoch": 2, "accuracy": 0.5, "chance": True, "best": False, "lost": True},
    ]
    assert values_before("accuracy", False, []) == []
    assert values_before("accuracy", False, history) == [0.8]
    later = [*history, {"epoch": 3, "accuracy": 0.7, "chance": False, "best": False}]
    assert values_before("accuracy", False, later) == [0.7]


def test_each_of_several_prompts_is_compared_with_itself() -> None:
    line = {"epoch": 1, "accuracy": 0.9, "by_seed": {"3": 0.9, "4": 0.5}}
    assert values_before("accuracy", False, [line]) == [0.9, 0.5]
    assert values_before("accuracy", True, [line]) == [0.9]
    labels = torch.tensor([0] * 6 + [1] * 4)
    config = SimpleNamespace(best="accuracy", ensemble=False, threshold=None)
    models = [SimpleNamespace(problem_type="single_label_classification", labels=["a", "b"])] * 2
    rows = Rows([], labels)
    validation = Validation(models, rows, 0, config, rows, {})

    def logits(right: int) -> torch.Tensor:
        """Logits that are right for the first rows alone."""
        answers = torch.where(torch.arange(10) < right, labels, 1 - labels)
        return 2.0 * torch.eye(2)[answers]

    both = torch.stack([logits(7), logits(8)])
    assert validation.measure_logits(both).member == 1
    found = validation.measure_logits(both, [0.9, 0.5])
    assert found.member == 0
    assert found.rank[0] == pytest.approx(0.8)
    assert found.metrics["accuracy"] == pytest.approx(0.7)


def test_chance_is_told_from_skill() -> None:
    def single(count: int, matthews: float) -> bool:
        return is_chance({"count": count, "matthews": matthews}, "single_label_classification")

    assert single(277, 0.04)
    assert single(1000, -0.5)  # worse than chance is no skill
    assert not single(277, 0.2)
    assert not single(1043, 0.3)
    assert is_chance({"count": 50, "f1": 0.0}, MULTI)
    assert not is_chance({"count": 50, "f1": 0.1}, MULTI)
    assert is_chance({"count": 20, "pearson": 0.3}, REGRESSION)
    assert not is_chance({"count": 200, "pearson": 0.3}, REGRESSION)


def test_the_interval_of_a_share_is_wilsons() -> None:
    low, high = interval(0.5, 100)
    assert (low, high) == (pytest.approx(0.4038, abs=1e-4), pytest.approx(0.5962, abs=1e-4))
    assert interval(1.0, 10)[1] == pytest.approx(1.0)
    assert interval(0.0, 10)[0] == pytest.approx(0.0, abs=1e-9)


def test_a_run_at_chance_says_what_to_try(backbone, reviews, tmp_path, caplog) -> None:
    data = ptune.load_data(reviews)
    validation = data.validation.select(list(range(len(data.validation))) * 3)
    data = ptune.TextData({**data.splits, "validation": validation}, data.labels, data.columns, data.source)
    model = ptune.PromptClassifier(backbone("bert"), ptune.PromptConfig(method="deep"), data.labels)
    config = ptune.TrainConfig(epochs=1, lr=1e-9, head_lr=1e-9)
    with caplog.at_level(logging.WARNING):
        result = ptune.train(model, data, config, output=tmp_path)
    assert result.chance
    assert "is no better than chance on the" in caplog.text
    assert "majority class" in caplog.text
