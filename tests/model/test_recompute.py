"""Gradient checkpointing gives the same gradients, and keeps less."""

from __future__ import annotations

import threading
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from ptune.data.batch import Inputs
from ptune.errors import ConfigError
from ptune.model.classifier import PromptClassifier
from ptune.model.config import PromptConfig
from ptune.model.mixed import start_logits
from ptune.model.recompute import layers_of, prepare, recomputing
from tests.all_families import tiny_backbone

IDS = torch.tensor([[2, 5, 6, 7, 8, 3], [2, 9, 10, 3, 0, 0]])


def new_classifier(backbone, **settings) -> PromptClassifier:
    torch.manual_seed(1)
    model = PromptClassifier(backbone, PromptConfig(virtual_tokens=3, token_dropout=0.0, **settings), ["a", "b", "c"])
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    prepare(backbone.base, backbone.name)
    return model


def logits_of(model: PromptClassifier, on: bool | None) -> torch.Tensor:
    with nullcontext() if on is None else recomputing(on):
        return start_logits([model], [model.prompt()], [0, 0], Inputs(IDS, (IDS > 0).long())).result()[0]


def gradients(model: PromptClassifier, on: bool) -> list[torch.Tensor]:
    model.zero_grad()
    logits_of(model, on).square().sum().backward()
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


def kept_bytes(model: PromptClassifier, on: bool | None = None) -> int:
    """The size of what a forward pass keeps for the backward pass. None: as it is in the thread."""
    sizes = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        sizes[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        logits_of(model, on)
    return sum(sizes.values())


CASES = [
    ("bert", {"method": "deep"}),  # ptune's own loop over the layers
    ("bert", {"method": "p-tuning"}),
    ("mpnet", {"method": "deep"}),
    ("deberta-v2", {"method": "deep"}),
    ("distilbert", {"method": "deep", "softmax": "shared"}),
    ("albert", {"method": "deep"}),  # one layer that is called several times
    ("gpt2", {"method": "deep"}),
    ("llama", {"method": "p-tuning"}),  # reads the prompt alone, and notes keys and values
    ("bloom", {"method": "deep"}),  # by hooks
    ("bloom", {"method": "deep", "softmax": "shared"}),  # by a cache
    ("deberta", {"method": "deep"}),
]


@pytest.mark.parametrize(("family", "settings"), CASES)
def test_gradients_are_the_same(family, settings, backbone) -> None:
    model = new_classifier(backbone(family), **settings)
    expected = gradients(model, on=False)
    assert len(expected) >= 2
    for actual, plain in zip(gradients(model, on=True), expected, strict=True):
        assert torch.equal(actual, plain)


@pytest.mark.long
@pytest.mark.parametrize(
    "family", ["ctrl", "openai-gpt", "gptj", "qwen3_next", "diffllama", "zamba2", "mixtral", "glm"]
)
def test_gradients_are_the_same_outside_of_the_table(family) -> None:
    model = new_classifier(tiny_backbone(family), method="deep")
    for actual, plain in zip(gradients(model, on=True), gradients(model, on=False), strict=True):
        torch.testing.assert_close(actual, plain, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("family", ["bert", "gpt2", "bloom"])
def test_less_is_kept(family, backbone) -> None:
    model = new_classifier(backbone(family), method="deep")
    assert kept_bytes(model, on=True) < 0.7 * kept_bytes(model, on=False)


def test_other_threads_keep_everything(backbone) -> None:
    model = new_classifier(backbone("gpt2"), method="deep")
    kept = []
    with recomputing():
        thread = threading.Thread(target=lambda: kept.append(kept_bytes(model)))
        thread.start()
        thread.join()
        assert kept_bytes(model) < kept[0]  # of this thread
    assert kept == [kept_bytes(model, on=False)]


def test_a_model_without_layer_modules_is_refused() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    assert layers_of(model) == []
    with pytest.raises(ConfigError, match="the layers of 'flau' are not modules of their own; leave it out"):
        prepare(model, "flau")
