"""A GPU gives what a CPU gives, and is never waited for in the middle of a step."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import ptune
from ptune.data.batch import Inputs
from ptune.model import attention
from ptune.model.families import FAMILIES
from ptune.model.mixed import start_logits
from ptune.training.steps import Steps
from tests.gpu.conftest import CASES, IDS, MASK, answer, classifier, distance
from tests.training.test_train import run

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]


def test_auto_is_the_gpu_in_bfloat16(gpu, backbone_folder) -> None:
    loaded = ptune.load_backbone(str(backbone_folder("bert")))
    assert loaded.device.type == "cuda"
    modern = torch.cuda.get_device_capability(gpu) >= (8, 0)
    assert loaded.dtype == (torch.bfloat16 if modern else torch.float32)


def test_this_gpu_has_the_kernel_for_rows_of_different_lengths(gpu) -> None:
    if torch.cuda.get_device_capability(gpu) < (8, 0):
        pytest.skip("FlashAttention needs a GPU of compute capability 8.0 or more")
    assert attention.takes_lengths(torch.zeros(1, 2, 4, 8, dtype=torch.bfloat16, device=gpu))


@pytest.mark.parametrize(("family", "method"), CASES)
def test_float32_gives_the_logits_and_gradients_of_the_cpu(family, method, load, backbone) -> None:
    logits, slopes = answer(classifier(load(family), method), IDS, MASK)
    expected, expected_slopes = answer(classifier(backbone(family), method), IDS, MASK)
    assert distance(logits, expected) < 1e-4
    assert distance(slopes, expected_slopes) < 1e-3


@pytest.mark.parametrize("method", ["deep", "p-tuning"])
def test_an_adapter_answers_on_another_device_as_where_it_was_trained(method, load, device, reviews, tmp_path) -> None:
    settings = {"method": method}
    result, data = run(load("bert"), reviews, tmp_path, settings=settings, epochs=2)
    here = result.classifier.predict_proba(data.validation.texts)
    assert here.device.type == "cpu"
    assert {p.device.type for p in result.classifier.model.parameters()} == {device.type}
    for other in ("cpu", str(device)):
        loaded = ptune.load(tmp_path, device=other, dtype="float32")
        torch.testing.assert_close(loaded.predict_proba(data.validation.texts), here, atol=1e-4, rtol=0)


def test_making_and_training_a_model_leaves_the_global_generators_as_they_are(load, device, reviews, tmp_path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3, device=device)
    torch.manual_seed(5)
    run(load("bert"), reviews, tmp_path, settings={"method": "p-tuning", "pooling": "peft"}, epochs=1)
    assert torch.equal(torch.rand(3, device=device), expected)


READS = {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default, torch.ops.aten.equal.default}


class NoReads(TorchDispatchMode):
    """Fails where a tensor's content is looked at: there the host waits for a GPU."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func not in READS, f"{func} reads a tensor of the forward pass"
        return func(*args, **(kwargs or {}))


@contextmanager
def waiting_is_an_error(device: torch.device) -> Iterator[None]:
    """torch's own check, which knows of every wait for the GPU and nothing of a CPU."""
    if device.type != "cuda":
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the mode being a prototype
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("family", [name for name, family in FAMILIES.items() if family.deep == "attention"])
def test_a_pass_over_padded_rows_reads_nothing_back(family, load, device) -> None:
    """Not of families with an attention of their own, whose masks transformers makes."""
    model = classifier(load(family))
    inputs = Inputs(IDS, MASK).to(device)
    answer(model, IDS, MASK)  # what is made once, such as kernels and workspaces
    prompt = model.prompt().detach().requires_grad_()
    with NoReads(), waiting_is_an_error(device):
        logits = start_logits([model], [prompt], [0] * len(inputs), inputs).result()[0]
        logits.sum().backward()
    assert prompt.grad is not None
    assert prompt.grad.isfinite().all()


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_steps_do_not_wait_for_the_gpu(family, gpu, load, reviews, tmp_path, monkeypatch) -> None:
    take, waited = Steps.take, []

    def watched(self: Steps, group, number: int) -> None:
        if number < 4:  # what is made once
            return take(self, group, number)
        with waiting_is_an_error(gpu):
            waited.append(number)
            return take(self, group, number)

    monkeypatch.setattr(Steps, "take", watched)
    run(load(family, dtype="bfloat16"), reviews, tmp_path, epochs=2)
    assert len(waited) > 10


def test_the_same_seed_gives_the_same_adapter_on_one_device(load, reviews, tmp_path) -> None:
    settings = {"method": "p-tuning", "encoder_dropout": 0.3}
    for name in ("one", "two"):
        run(load("roberta", dtype="bfloat16"), reviews, tmp_path / name, settings=settings, epochs=2)
    weights = [(tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("one", "two")]
    assert weights[0] == weights[1]
