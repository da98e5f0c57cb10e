"""Muon for deep prompts: its steps, and how it works with the rest of the optimizer."""

from __future__ import annotations

import math

import pytest
import torch

from ptune.data.batch import Inputs
from ptune.errors import ConfigError
from ptune.model.classifier import PromptClassifier
from ptune.model.config import PromptConfig
from ptune.model.gain import STEP, measure_gain
from ptune.training.config import TrainConfig
from ptune.training.defaults import MUON_GAIN, MUON_RATE, Task
from ptune.training.optim import PromptOptimizer, orthogonalise

DEEP = PromptConfig(method="deep", softmax="separate", encoder="none")
TASK = Task(rows=4000, validation_rows=400, classes=2, width=384)


@pytest.mark.parametrize("shape", [(3, 5, 16), (3, 16, 5)])
def test_all_directions_of_a_matrix_get_about_the_same_length(shape) -> None:
    torch.manual_seed(0)
    matrices = torch.randn(shape)
    matrices += 100 * torch.randn(shape[0], shape[1], 1) @ torch.randn(shape[0], 1, shape[2])  # one direction dominates
    lengths = torch.linalg.svdvals(orthogonalise(matrices))
    assert lengths.min() > 0.3
    assert lengths.max() < 1.3
    products = orthogonalise(matrices) * matrices
    assert (products.sum(dim=(1, 2)) > 0).all()  # the step goes along the gradient


def test_nothing_to_learn_gives_no_step() -> None:
    assert not orthogonalise(torch.zeros(2, 3, 4)).any()


def parameter_after(steps: int, gradient: float, bad: bool = False, decay: float = 0.0) -> torch.Tensor:
    torch.manual_seed(0)
    parameter = torch.nn.Parameter(torch.ones(4, 6))
    direction = torch.randn(4, 6)
    group = {"params": [parameter], "weight_decay": decay, "matrices": 2}
    optimizer = PromptOptimizer([group], lr=0.1, fused=True)
    for _ in range(steps):
        parameter.grad = gradient * direction
        optimizer.found_inf = torch.tensor(float(bad))  # type: ignore[attr-defined]
        optimizer.step()
    return parameter.detach()


def test_the_length_of_a_step_does_not_depend_on_the_gradient() -> None:
    small, large = (parameter_after(1, gradient) - 1 for gradient in (1e-3, 1e3))
    torch.testing.assert_close(small, large, rtol=1e-3, atol=1e-4)
    assert small.square().mean().sqrt() == pytest.approx(0.1, rel=0.25)


def test_a_step_that_is_not_finite_changes_nothing() -> None:
    assert torch.equal(parameter_after(2, math.inf, bad=True), torch.ones(4, 6))


def test_weights_decay_in_proportion_to_the_rate() -> None:
    shrunk = parameter_after(1, 1.0) - parameter_after(1, 1.0, decay=0.5)
    torch.testing.assert_close(shrunk, torch.full((4, 6), 0.1 * 0.5))


def test_muon_is_for_deep_prompts_without_a_network() -> None:
    assert TrainConfig().settle(DEEP, TASK).optimizer == "muon"
    assert TrainConfig(optimizer="adamw").settle(DEEP, TASK).optimizer == "adamw"
    shared = PromptConfig(method="deep", softmax="shared", encoder="none")
    assert TrainConfig().settle(shared, TASK).optimizer == "adamw"
    for other in (
        PromptConfig(method="p-tuning", encoder="none", pooling="peft"),
        PromptConfig(method="deep", softmax="shared", encoder="mlp"),
    ):
        assert TrainConfig().settle(other, TASK).optimizer == "adamw"
        with pytest.raises(ConfigError, match="`optimizer='muon'` is for deep prompts"):
            TrainConfig(optimizer="muon").settle(other, TASK)


def test_the_rate_falls_with_the_gain_of_the_backbone() -> None:
    def rate(gain: float | None) -> float:
        return TrainConfig().settle(DEEP, Task(4000, 400, 2, 384, gain=gain)).lr

    assert rate(None) == rate(MUON_GAIN) == MUON_RATE
    assert rate(2 * MUON_GAIN) == pytest.approx(MUON_RATE / 2)
    assert rate(1e-6) == MUON_RATE  # a backbone that hardly answers is no reason for ever larger steps
    assert 0 < rate(1e9) < MUON_RATE / 10


def test_the_gain_of_a_backbone_is_measured_on_the_training_rows(backbone) -> None:
    model = PromptClassifier(backbone("bert"), PromptConfig(method="deep"), ["a", "b"])
    gain = measure_gain(model, Inputs(torch.tensor([[2, 5, 3], [2, 7, 3], [2, 8, 3]])))
    assert gain is not None
    assert 0 < gain < 1 / STEP
    assert measure_gain(model, Inputs(torch.tensor([[2, 5, 3], [2, 5, 3]]))) is None  # both rows have the same vector
