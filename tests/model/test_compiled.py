"""The compiled forward pass is the backbone's own."""

from __future__ import annotations

import pytest
import torch

from ptune.errors import TrainingError
from ptune.model.classifier import PromptClassifier, shared_logits
from ptune.model.compiled import CompiledForward
from ptune.model.config import PromptConfig

LABELS = ["a", "b", "c"]
BATCHES = [
    torch.tensor([[2, 5, 6, 7, 8, 3], [2, 9, 10, 3, 0, 0]]),
    torch.tensor([[2, 5, 6, 7, 8, 9, 10, 3], [2, 9, 3, 0, 0, 0, 0, 0], [2, 4, 3, 0, 0, 0, 0, 0]]),
    torch.tensor([[2, 5, 3, 0, 0], [2, 9, 10, 11, 3], [2, 4, 3, 0, 0], [2, 6, 3, 0, 0]]),
]


def slopes_and_logits(model: PromptClassifier, ids: torch.Tensor, forward=None) -> list[torch.Tensor]:
    model.zero_grad()
    (logits,) = shared_logits([model], model.prompt(), ids, (ids > 0).long(), forward=forward)
    logits.square().sum().backward()
    return [logits.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize(
    ("family", "method"),
    [
        ("bert", "deep"),
        ("roberta", "p-tuning"),
        ("llama", "deep"),
        ("mpnet", "deep"),
        ("deberta-v2", "deep"),
        ("deberta", "deep"),  # by hooks
        ("stablelm", "deep"),  # outside of the table
    ],
)
def test_compiled_logits_and_gradients_are_the_plain_ones(family, method, backbone) -> None:
    config = PromptConfig(method=method, virtual_tokens=3, encoder_hidden_size=8)
    model = PromptClassifier(backbone(family), config, LABELS)
    graphs = torch._dynamo.utils.counters["stats"]
    torch._dynamo.reset()
    compiled = CompiledForward(model.backbone, compiler="aot_eager")
    for number, ids in enumerate(BATCHES):
        for plain, own in zip(slopes_and_logits(model, ids), slopes_and_logits(model, ids, compiled), strict=True):
            torch.testing.assert_close(own, plain, atol=1e-5, rtol=1e-5)
        if number == 1:
            traced = graphs["unique_graphs"]
    assert graphs["unique_graphs"] == traced  # rows and tokens are left open: another shape needs no other graph


def test_a_machine_that_cannot_compile_is_named(backbone) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no compiler")

    torch._dynamo.reset()
    model = PromptClassifier(backbone("bert"), PromptConfig(virtual_tokens=3), LABELS)
    with pytest.raises(TrainingError, match=r"cannot be compiled here .* or train with --no-compile"):
        slopes_and_logits(model, BATCHES[0], CompiledForward(model.backbone, compiler=broken))
