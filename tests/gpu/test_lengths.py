"""Rows of different lengths: the kernel that is told lengths gives what a mask gives."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from ptune.model import attention
from ptune.model.families import FAMILIES
from tests.gpu.conftest import IDS, MASK, ROUNDING, answer, classifier, distance
from tests.model.test_speed import attention_of_sequences

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]

# Families whose masks are [B, 1, 1, T], so that lengths say the same.
BY_LENGTHS = [name for name, family in FAMILIES.items() if family.layers == "bert"]
SETTINGS = [
    {"softmax": "separate"},
    {"softmax": "shared"},
    {"softmax": "separate", "pooling": "first"},
    {"method": "p-tuning"},
]


def long_rows() -> tuple[torch.Tensor, torch.Tensor]:
    """Rows longer than the kernel's blocks of 128 keys, [4, 300], one of them a single token."""
    lengths = torch.tensor([300, 129, 128, 1])
    mask = (torch.arange(300) < lengths[:, None]).long()
    ids = torch.randint(4, 40, mask.shape, generator=torch.Generator().manual_seed(4)) * mask
    return ids, mask


@pytest.fixture
def kernel(device, monkeypatch) -> list[int]:
    """Count the kernel's calls; on a CPU, which has no such kernel, by what it is to compute."""
    calls: list[int] = []
    real = attention.varlen_attn if device.type == "cuda" else attention_of_sequences

    def counted(*inputs, **options):
        calls.append(1)
        return real(*inputs, **options)

    monkeypatch.setattr(attention, "varlen_attn", counted)
    if device.type != "cuda":
        monkeypatch.setattr(attention, "takes_lengths", lambda _: True)
    return calls


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("family", BY_LENGTHS)
@pytest.mark.parametrize("rows", ["short", "long"])
def test_attention_by_lengths_is_attention_by_mask(rows, family, settings, load, kernel, monkeypatch) -> None:
    ids, mask = (IDS, MASK) if rows == "short" else long_rows()
    method = {"method": "deep", **settings}
    model = classifier(load(family, dtype="bfloat16", max_position_embeddings=512), **method)
    logits, slopes = answer(model, ids, mask)
    assert kernel
    calls = len(kernel)
    monkeypatch.setattr(attention, "takes_lengths", lambda _: False)
    masked, masked_slopes = answer(model, ids, mask)
    assert len(kernel) == calls
    assert distance(logits, masked) < ROUNDING[0]
    assert distance(slopes, masked_slopes) < ROUNDING[1]


def test_the_kernel_is_nearer_to_float32_than_bfloat16s_error(load, backbone, kernel) -> None:
    """Both are compared with float32, as two bfloat16 answers may be wrong alike."""
    ids, mask = long_rows()
    make = partial(classifier, method="deep", softmax="shared")
    logits, _ = answer(make(load("bert", dtype="bfloat16", max_position_embeddings=512)), ids, mask)
    expected, _ = answer(make(backbone("bert", max_position_embeddings=512)), ids, mask)
    assert kernel
    assert distance(logits, expected) < ROUNDING[0]
