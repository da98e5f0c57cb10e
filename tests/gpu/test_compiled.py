"""Compiled, and on a GPU replayed from CUDA graphs, training is what it is without."""

from __future__ import annotations

import pytest
import torch

import ptune
from ptune.model.compiled import CompiledForward
from tests.gpu.conftest import ROUNDING, answer, classifier, distance
from tests.training.test_train import run

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Three shapes, each three times with other tokens: a CUDA graph is warmed up, recorded and replayed."""
    draw = torch.Generator().manual_seed(6)
    made = []
    for _ in range(3):
        for rows, length in ((2, 6), (3, 8), (4, 5)):
            mask = (torch.arange(length) < torch.tensor([length, 3, 4, 2][:rows])[:, None]).long()
            made.append((torch.randint(4, 40, mask.shape, generator=draw) * mask, mask))
    return made


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("bert", {"method": "deep"}),
        ("roberta", {"method": "p-tuning", "pooling": "peft"}),
        ("qwen2", {"method": "deep"}),
    ],
    ids=str,
)
def test_compiled_logits_and_gradients_are_the_plain_ones(family, settings, load, device) -> None:
    if device.type != "cuda" and family != "roberta":
        pytest.skip("tests/model/test_compiled.py has this for a CPU")
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model = classifier(load(family, dtype="bfloat16" if device.type == "cuda" else "float32"), **settings)
    compiled = CompiledForward(model.backbone, None if device.type == "cuda" else "aot_eager")
    for ids, mask in batches():
        logits, slopes = answer(model, ids, mask, compiled)
        plain, plain_slopes = answer(model, ids, mask)
        assert distance(logits, plain) < (ROUNDING[0] if device.type == "cuda" else 1e-5)
        assert distance(slopes, plain_slopes) < (ROUNDING[1] if device.type == "cuda" else 1e-5)
    counters = torch._dynamo.utils.counters
    assert not counters["graph_break"]
    assert not counters["inductor"]["cudagraph_skips"]


def test_a_compiled_run_learns_what_a_plain_one_learns(gpu, load, reviews, tmp_path) -> None:
    torch._dynamo.reset()
    runs = {}
    for compiled in (False, True):
        folder = tmp_path / str(compiled)
        runs[compiled], _ = run(load("bert", dtype="bfloat16"), reviews, folder, epochs=3, compile=compiled)
    losses = [[line["train_loss"] for line in runs[compiled].history] for compiled in (False, True)]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert ptune.load(tmp_path / "True").predict("a good film")["label"]
