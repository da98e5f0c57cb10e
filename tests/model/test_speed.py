"""Optimizations for speed change neither logits nor gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

import ptune
from ptune.data.batch import Inputs
from ptune.model import attention
from ptune.model.backbone import Backbone
from ptune.model.classifier import PromptClassifier
from ptune.model.config import PromptConfig
from ptune.model.entry import Entry
from ptune.model.families import FAMILIES
from ptune.model.loading import load_backbone, pick_dtype

LABELS = ["a", "b", "c"]
IDS = torch.tensor([[2, 5, 6, 7, 8, 3], [2, 9, 10, 3, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
TRUNK_FAMILIES = [name for name, family in FAMILIES.items() if family.layers]
CAUSAL = [name for name, family in FAMILIES.items() if family.decoder]


def gradients(model: PromptClassifier) -> list[torch.Tensor]:
    model.zero_grad()
    model(IDS, MASK, labels=torch.tensor([0, 2])).loss.backward()
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.requires_grad]


def spread(model: PromptClassifier) -> PromptClassifier:
    """Give the model weights far from zero, so that every part of it affects the logits."""
    torch.manual_seed(2)
    with torch.no_grad():
        for tensor in model.trainable_state().values():
            tensor.copy_(torch.randn_like(tensor) * 0.3)
    return model.eval()


@contextmanager
def transformers_layers(backbone: Backbone) -> Iterator[None]:
    """Run the layers with transformers' code."""
    trunk, backbone.trunk = backbone.trunk, None
    try:
        yield
    finally:
        backbone.trunk = trunk


@pytest.mark.parametrize("mask", [MASK, None])
@pytest.mark.parametrize("prompt", ["none", "input", "shared", "separate"])
@pytest.mark.parametrize("family", TRUNK_FAMILIES)
def test_the_trunk_computes_what_transformers_layers_compute(family, prompt, mask, backbone) -> None:
    loaded = backbone(family)
    if prompt in ("shared", "separate") and not loaded.family.calls_function:
        pytest.skip("transformers' layers take no such prompts; tests/model/test_hooks.py compares what they take")
    torch.manual_seed(3)
    prompts = {
        "none": (),
        "input": (torch.randn(4, loaded.embedding_width), Entry("input")),
        "shared": (torch.randn(loaded.layers, 2, 4, loaded.kv_width), Entry("shared")),
        "separate": (torch.randn(loaded.layers, 2, 4, loaded.kv_width), Entry("separate")),
    }
    with torch.no_grad():
        ours = loaded(Inputs(IDS, mask), *prompts[prompt])
        read = torch.tensor([1, 2])
        picked = loaded(Inputs(IDS, mask), *prompts[prompt], read=read)
        with transformers_layers(loaded):
            theirs = loaded(Inputs(IDS, mask), *prompts[prompt])
    rows = slice(None) if mask is None else mask.bool()  # hidden states of padding may differ
    if mask is not None and prompt == "input":
        rows = torch.nn.functional.pad(mask, (4, 0), value=1).bool()
    torch.testing.assert_close(ours.states[rows], theirs.states[rows], atol=1e-5, rtol=1e-5)
    assert picked.picked
    torch.testing.assert_close(picked.states[:, 0], theirs.states[[0, 1], read], atol=1e-5, rtol=1e-5)
    if theirs.pooler_output is not None:
        torch.testing.assert_close(ours.pooler_output, theirs.pooler_output, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", TRUNK_FAMILIES)
def test_joined_weights_share_memory_with_the_layers(family, backbone_folder) -> None:
    from ptune.model.loading import load_backbone

    loaded = load_backbone(str(backbone_folder(family)), device="cpu")
    for moved in (loaded, loaded.to(torch.bfloat16), loaded.float()):
        projections = moved.trunk._projections(moved.base.encoder.layer[0])
        joined = moved.trunk.get_buffer("weight0")
        assert projections[0].weight.data_ptr() == joined.data_ptr()
        torch.testing.assert_close(torch.cat([projection.weight for projection in projections]), joined)
        assert not any(parameter.requires_grad for parameter in moved.parameters())
    assert not any("trunk" in name for name in loaded.state_dict())


@pytest.mark.parametrize("pooling", ["first", "last", "peft"])
@pytest.mark.parametrize("method", ["deep", "p-tuning"])
@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "mpnet", "deberta-v2"])
def test_computing_the_last_layer_only_where_the_head_reads_changes_nothing(
    family, method, pooling, backbone, monkeypatch
) -> None:
    config = PromptConfig(method=method, pooling=pooling, virtual_tokens=3, encoder_hidden_size=8, token_dropout=0)
    model = spread(PromptClassifier(backbone(family), config, LABELS))
    logits, expected = model(IDS, MASK).logits, gradients(model)
    monkeypatch.setattr(type(model.head), "reads", "all")
    torch.testing.assert_close(model(IDS, MASK).logits, logits, atol=1e-5, rtol=1e-5)
    for gradient, picked in zip(gradients(model), expected, strict=True):
        torch.testing.assert_close(picked, gradient, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", CAUSAL)
def test_a_causal_backbone_reads_a_shallow_prompt_once(family, backbone, monkeypatch) -> None:
    config = PromptConfig(method="p-tuning", virtual_tokens=3, encoder_hidden_size=8)
    model = spread(PromptClassifier(backbone(family), config, LABELS))
    once = model.backbone.reads_prompt_alone
    assert once == (family != "gemma3_text")  # its window of six tokens hides the prompt from later tokens
    assert model.prompt().dim() == (4 if once else 2)
    logits, expected = model(IDS, MASK).logits, gradients(model)
    monkeypatch.setattr(type(model.backbone), "reads_prompt_alone", False)
    torch.testing.assert_close(model(IDS, MASK).logits, logits, atol=1e-4, rtol=1e-4)
    for gradient, shared in zip(gradients(model), expected, strict=True):
        torch.testing.assert_close(shared, gradient, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("softmax", ["shared", "separate"])
@pytest.mark.parametrize("family", ["bert", "modernbert", "llama", "gpt2"])
def test_attention_by_products_equals_the_kernels(family, softmax, backbone, monkeypatch) -> None:
    config = PromptConfig(method="deep", softmax=softmax, virtual_tokens=3, token_dropout=0)
    model = spread(PromptClassifier(backbone(family), config, LABELS))
    monkeypatch.setattr(attention, "kernel_is_slow", lambda *_: False)
    logits, expected = model(IDS, MASK).logits, gradients(model)
    monkeypatch.setattr(attention, "kernel_is_slow", lambda *_: True)
    torch.testing.assert_close(model(IDS, MASK).logits, logits, atol=1e-5, rtol=1e-5)
    for kernel, products in zip(expected, gradients(model), strict=True):
        torch.testing.assert_close(products, kernel, atol=1e-5, rtol=1e-4)


def attention_of_sequences(query, key, value, query_borders, key_borders, max_q, max_k, *, scale):
    """Return what torch's GPU kernel computes: the attention [N, heads, D] of N tokens in consecutive sequences."""
    assert query_borders.dtype == key_borders.dtype == torch.int32
    assert int(query_borders.diff().max()) <= max_q
    assert int(key_borders.diff().max()) <= max_k
    outputs = []
    for first, last, start, end in zip(query_borders, query_borders[1:], key_borders, key_borders[1:], strict=False):
        sequence = (query[first:last], key[start:end], value[start:end])
        rows = (tensor.transpose(0, 1)[None] for tensor in sequence)
        output = torch.nn.functional.scaled_dot_product_attention(*rows, scale=scale)
        outputs.append(output[0].transpose(0, 1))
    return torch.cat(outputs)


@pytest.mark.parametrize(
    "settings",
    [{"softmax": "shared"}, {"softmax": "separate"}, {"pooling": "first"}, {"pooling": "peft"}, {"method": "p-tuning"}],
)
@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_attention_by_lengths_equals_attention_with_a_mask(family, settings, backbone, monkeypatch) -> None:
    config = PromptConfig(**{"method": "deep", "virtual_tokens": 3, "token_dropout": 0, **settings})
    model = spread(PromptClassifier(backbone(family), config, LABELS))
    logits, expected = model(IDS, MASK).logits, gradients(model)
    calls = []
    monkeypatch.setattr(attention, "takes_lengths", lambda _: calls.append(1) or True)
    monkeypatch.setattr(attention, "varlen_attn", attention_of_sequences)
    torch.testing.assert_close(model(IDS, MASK).logits, logits, atol=1e-5, rtol=1e-5)
    for masked, listed in zip(expected, gradients(model), strict=True):
        torch.testing.assert_close(listed, masked, atol=1e-5, rtol=1e-4)
    assert calls


def test_a_cpu_has_no_kernel_for_lengths() -> None:
    assert not attention.takes_lengths(torch.zeros(1, dtype=torch.bfloat16))


@pytest.mark.parametrize(("dtype", "longest"), [(torch.float32, 0), (torch.bfloat16, 512)])
def test_training_on_the_cpu_uses_products_for_short_texts(dtype, longest) -> None:
    query = torch.zeros(1, 4, 6, 8, dtype=dtype)
    short, long = (torch.zeros(1, 4, length, 8, dtype=dtype) for length in (max(1, longest), longest + 1))
    assert attention.kernel_is_slow(query, short) == (longest > 0)
    assert not attention.kernel_is_slow(query, long)
    with torch.no_grad():
        assert not attention.kernel_is_slow(query, short)


def test_training_in_bfloat16_on_the_cpu_gives_finite_gradients(backbone_folder) -> None:
    loaded = load_backbone(str(backbone_folder("bert")), dtype="bfloat16", device="cpu")
    model = spread(PromptClassifier(loaded, PromptConfig(method="deep", virtual_tokens=3), LABELS))
    assert all(gradient.isfinite().all() for gradient in gradients(model))


def test_auto_is_bfloat16_on_gpus_that_support_it(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0) if device.index == 1 else (7, 5))
    assert pick_dtype("auto", torch.device("cuda", 0)) == "float32"
    assert pick_dtype("auto", torch.device("cuda", 1)) == "bfloat16"
    assert pick_dtype("float16", torch.device("cuda", 0)) == "float16"


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [({"amx_bf16": True}, "bfloat16"), ({"avx512_bf16": True}, "bfloat16"), ({"avx512_f": True}, "float32")],
)
def test_auto_is_bfloat16_on_cpus_that_multiply_it(capabilities, expected, monkeypatch, auto_dtype) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert pick_dtype("auto", torch.device("cpu")) == expected
    assert pick_dtype("float32", torch.device("cpu")) == "float32"


def test_auto_is_float32_where_torch_cannot_tell(monkeypatch, auto_dtype) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert pick_dtype("auto", torch.device("cpu")) == "float32"


def test_batches_in_bfloat16_on_a_cpu_have_few_lengths(backbone_folder, reviews, tmp_path) -> None:
    loaded = load_backbone(str(backbone_folder("bert")), dtype="bfloat16", device="cpu")
    lengths: list[int] = []
    loaded.base.embeddings.word_embeddings.register_forward_hook(lambda _, ids, __: lengths.append(ids[0].shape[-1]))
    data = ptune.load_data(reviews)
    model = PromptClassifier(loaded, PromptConfig(virtual_tokens=2), ["negative", "positive"])
    result = ptune.train(model, data, ptune.TrainConfig(epochs=1, batch_size=2), output=tmp_path)
    encoded = [result.classifier.encoder.encode(split.texts, split.pairs) for split in data.splits.values()]
    longest = {max(map(len, rows)) for rows in encoded}
    assert len(lengths) > 20
    assert {length for length in lengths if length % 8} <= longest
