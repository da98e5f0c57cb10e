"""Separate learning rates for prompt and head, and the schedule."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ptune.model.classifier import PromptClassifier
from ptune.model.config import PromptConfig
from ptune.training.config import TrainConfig
from ptune.training.defaults import FEWEST_EPOCHS, MOST_EPOCHS, Task
from ptune.training.optim import clip_gradients, make_optimizer, rate_share, set_rates


def test_prompt_and_head_have_their_own_rates_and_biases_do_not_decay(backbone) -> None:
    model = PromptClassifier(backbone("bert"), PromptConfig(method="p-tuning", encoder="mlp"), ["a", "b"])
    config = TrainConfig(lr=0.5, head_lr=0.25, weight_decay=0.1, warmup=0)
    optimizer = make_optimizer(model, config)
    set_rates(optimizer, config, step=0, steps=10)
    rates = {id(p): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    assert rates[id(model.prompt_encoder.embedding.weight)] == (0.5, 0.1)
    assert rates[id(model.prompt_encoder.mlp_head[0].bias)] == (0.5, 0.0)
    assert rates[id(model.head.classifier.weight)] == (0.25, 0.1)
    assert rates[id(model.head.classifier.bias)] == (0.25, 0.0)
    assert len(rates) == sum(1 for parameter in model.parameters() if parameter.requires_grad)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("linear", [0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]),
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_the_rate_rises_then_follows_its_schedule(schedule, expected) -> None:
    config = TrainConfig(warmup=0.2, schedule=schedule)
    assert [rate_share(config, step, 10) for step in range(10)] == pytest.approx(expected)


def test_the_cosine_schedule_ends_at_nothing() -> None:
    config = TrainConfig(warmup=0.0, schedule="cosine")
    shares = [rate_share(config, step, 8) for step in range(9)]
    assert shares[0] == 1.0
    assert shares[4] == pytest.approx(0.5)
    assert shares[8] == pytest.approx(0.0)


def test_rates_follow_from_the_method_unless_given() -> None:
    deep = PromptConfig(method="deep", encoder="none")
    task = Task(rows=4000, validation_rows=400, classes=2, width=384)
    settled = TrainConfig().settle(deep, task)
    assert settled.lr > settled.head_lr > 0
    shallow = PromptConfig(method="p-tuning", encoder="none", pooling="peft")
    assert TrainConfig().settle(shallow, task).warmup == 0.12
    assert TrainConfig(warmup=0.0).settle(shallow, task).warmup == 0.0
    wide = TrainConfig(lr=0.7).settle(deep, replace(task, width=4 * 384))
    assert wide.lr == 0.7
    assert wide.head_lr == pytest.approx(settled.head_lr / 2)


def test_epochs_batches_averaging_and_decay_follow_from_the_task() -> None:
    deep = PromptConfig(method="deep", encoder="none")
    sizes = (32, 400, 4_000, 10_000, 1_000_000)
    settled = [TrainConfig().settle(deep, Task(rows, rows // 8, classes=2, width=384)) for rows in sizes]
    epochs = [config.epochs for config in settled]
    assert epochs == sorted(epochs, reverse=True)
    assert epochs[0] == MOST_EPOCHS
    assert epochs[-1] == FEWEST_EPOCHS
    assert settled[0].batch_size < settled[1].batch_size == settled[2].batch_size
    assert 0.5 < settled[0].average < settled[2].average == 0.99
    many = TrainConfig().settle(deep, Task(10_000, 1000, classes=100, width=384))
    assert many.epochs > settled[3].epochs
    pairs = Task(4_000, 400, classes=2, width=384, pairs=True)
    assert TrainConfig().settle(deep, pairs).epochs < settled[2].epochs
    assert TrainConfig().settle(deep, pairs).weight_decay > settled[2].weight_decay
    shallow = PromptConfig(method="p-tuning", encoder="none", pooling="peft")
    assert TrainConfig().settle(shallow, Task(10_000, 1000, classes=2, width=384)).epochs > settled[3].epochs
    given = TrainConfig(epochs=2, batch_size=3, average=0.0).settle(deep, Task(32, 4, classes=2, width=384))
    assert (given.epochs, given.batch_size, given.average) == (2, 3, 0.0)


def test_clipping_bounds_the_norm_over_prompt_and_head_together(backbone) -> None:
    import torch

    model = PromptClassifier(backbone("bert"), PromptConfig(method="deep"), ["a", "b"])
    (1000 * model(torch.tensor([[2, 5, 3]]), labels=torch.tensor([1])).loss).backward()
    before = clip_gradients(model, 0.5)
    after = sum(float(p.grad.norm()) ** 2 for p in model.parameters() if p.grad is not None) ** 0.5
    assert before > 0.5
    assert after == pytest.approx(0.5, rel=1e-4)


def test_long_runs_on_a_gpu_are_compiled() -> None:
    deep = PromptConfig(method="deep", softmax="separate")
    task = Task(rows=4000, validation_rows=400, classes=2, width=384, gpu=True)
    assert TrainConfig().settle(deep, task).compile
    assert not TrainConfig(epochs=1).settle(deep, task).compile
    assert not TrainConfig(compile=False).settle(deep, task).compile
    assert not TrainConfig().settle(deep, replace(task, gpu=False)).compile
    assert TrainConfig(compile=True).settle(deep, replace(task, gpu=False)).compile


def test_deep_prompts_learn_slowly_where_layers_normalise_first() -> None:
    task = Task(rows=4000, validation_rows=400, classes=2, width=384)
    first = replace(task, norm_first=True)
    deep = PromptConfig(method="deep", encoder="none")
    assert TrainConfig().settle(deep, first).lr < TrainConfig().settle(deep, task).lr / 10
    assert TrainConfig(lr=0.3).settle(deep, first).lr == 0.3
    shallow = PromptConfig(method="p-tuning", encoder="none", pooling="peft")
    assert TrainConfig().settle(shallow, first).lr == TrainConfig().settle(shallow, task).lr


@pytest.mark.parametrize(
    "changed", [{"pairs": True}, {"encoder": False}, {"rows": 16, "validation_rows": 4, "held_back": True}]
)
def test_the_warm_up_is_long_on_single_texts_of_encoders(changed) -> None:
    deep = PromptConfig(method="deep", encoder="none", softmax="separate", pooling="mean", head="linear")
    task = Task(rows=4000, validation_rows=400, classes=2, width=384)
    assert TrainConfig().settle(deep, task).warmup == 0.3
    assert TrainConfig(optimizer="adamw").settle(deep, task).warmup == 0.06
    assert TrainConfig().settle(deep, replace(task, **changed)).warmup == 0.06
