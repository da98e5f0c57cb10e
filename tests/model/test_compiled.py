"""The compiled forward pass gives the same results as the ordinary one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from ptune.data.batch import Inputs
from ptune.errors import TrainingError
from ptune.model.classifier import PromptClassifier
from ptune.model.compiled import CompiledForward
from ptune.model.config import PromptConfig
from ptune.model.mixed import start_logits

LABELS = ["a", "b", "c"]
BATCHES = [
    torch.tensor([[2, 5, 6, 7, 8, 3], [2, 9, 10, 3, 0, 0]]),
    torch.tensor([[2, 5, 6, 7, 8, 9, 10, 3], [2, 9, 3, 0, 0, 0, 0, 0], [2, 4, 3, 0, 0, 0, 0, 0]]),
    torch.tensor([[2, 5, 3, 0, 0], [2, 9, 10, 11, 3], [2, 4, 3, 0, 0], [2, 6, 3, 0, 0]]),
]


def logits_and_gradients(model: PromptClassifier, ids: torch.Tensor, forward=None) -> list[torch.Tensor]:
    model.zero_grad()
    inputs = Inputs(ids, (ids > 0).long())
    logits = start_logits([model], [model.prompt()], [0] * len(ids), inputs, forward).result()[0]
    logits.square().sum().backward()
    return [logits.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize(
    ("family", "method"),
    [
        ("bert", "deep"),
        ("roberta", "p-tuning"),
        ("llama", "deep"),
        pytest.param("mpnet", "deep", marks=pytest.mark.long),
        pytest.param("deberta-v2", "deep", marks=pytest.mark.long),
        pytest.param("deberta", "deep", marks=pytest.mark.long),  # by hooks
        pytest.param("stablelm", "deep", marks=pytest.mark.long),  # outside of the table
    ],
)
def test_compiled_logits_and_gradients_equal_the_ordinary_ones(family, method, backbone) -> None:
    config = PromptConfig(method=method, virtual_tokens=3, encoder_hidden_size=8)
    model = PromptClassifier(backbone(family), config, LABELS)
    graphs = torch._dynamo.utils.counters["stats"]
    torch._dynamo.reset()
    compiled = CompiledForward(model.backbone, compiler="aot_eager")
    for number, ids in enumerate(BATCHES):
        expected = logits_and_gradients(model, ids)
        for actual, plain in zip(logits_and_gradients(model, ids, compiled), expected, strict=True):
            torch.testing.assert_close(actual, plain, atol=1e-5, rtol=1e-5)
        if number == 1:
            traced = graphs["unique_graphs"]
    assert graphs["unique_graphs"] == traced  # rows and tokens are left open, so another shape needs no new graph


@pytest.mark.parametrize("family", ["roberta", "qwen2"])
def test_the_constants_of_a_model_are_not_inputs_of_its_graph(family, backbone) -> None:
    """Constants that are inputs would be scalars on the CPU, which break a CUDA graph into pieces."""
    inputs = []

    def compiler(graph, examples):
        inputs.extend(examples)
        return graph.forward

    torch._dynamo.reset()
    model = PromptClassifier(backbone(family), PromptConfig(method="deep", virtual_tokens=3), LABELS)
    logits_and_gradients(model, BATCHES[0], CompiledForward(model.backbone, compiler))
    tensors = [value for value in inputs if isinstance(value, torch.Tensor)]
    assert len(tensors) > 20
    assert all(tensor.dim() for tensor in tensors)


def test_cuda_graphs_are_used_in_the_main_thread_only(backbone, monkeypatch) -> None:
    """Before torch 2.13, only one thread can record CUDA graphs."""
    modes = []
    monkeypatch.setattr(torch, "compile", lambda *_, **options: modes.append(options.get("mode")))
    loaded = backbone("bert")
    monkeypatch.setattr(type(loaded), "device", torch.device("cuda"))
    CompiledForward(loaded)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(CompiledForward, loaded).result()
    assert modes == ["reduce-overhead", None]


def test_a_machine_without_a_compiler_is_explained(backbone) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no compiler")

    torch._dynamo.reset()
    model = PromptClassifier(backbone("bert"), PromptConfig(virtual_tokens=3), LABELS)
    with pytest.raises(TrainingError, match=r"cannot be compiled on this machine .* or train with `compile=False`"):
        logits_and_gradients(model, BATCHES[0], CompiledForward(model.backbone, compiler=broken))
