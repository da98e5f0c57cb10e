"""Backbones in 8 and 4 bits, and spread over devices: nearly the same answers, and prompts that learn."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import pytest
import torch

from ptune.adapter.folder import read_adapter
from ptune.backends.openvino.backbone import named_backbone
from ptune.cli import main
from ptune.data.batch import Inputs
from ptune.errors import ConfigError
from ptune.model.classifier import PromptClassifier
from ptune.model.config import PromptConfig
from ptune.model.loading import load_backbone

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
IDS = torch.tensor([[5, 9, 7, 12, 8], [6, 10, 11, 5, 9]])
pytest.importorskip("bitsandbytes")


@pytest.fixture(scope="module")
def wide(backbone_folder) -> Callable[[str], str]:
    """Folders of tiny backbones: bitsandbytes rounds weights in blocks of 64."""
    return lambda family: str(backbone_folder(family, hidden_size=64, intermediate_size=128))


def inputs() -> Inputs:
    return Inputs(IDS, torch.ones_like(IDS))


@pytest.mark.parametrize("family", ["bert", "llama"])
@pytest.mark.parametrize(("quantize", "near"), [("8bit", 0.05), ("4bit", 0.5)])
def test_a_rounded_backbone_is_nearly_the_same(family, quantize, near, wide) -> None:
    full = load_backbone(wide(family), dtype="float32", device="cpu")
    rounded = load_backbone(wide(family), dtype="float32", device="cpu", quantize=quantize)
    expected, states = full(inputs()).states, rounded(inputs()).states
    assert 0 < (states - expected).abs().mean() / expected.abs().mean() < near
    assert rounded.dtype_name == f"float32 with {quantize} weights"
    assert rounded.parameter_count() == full.parameter_count()
    assert rounded.fingerprint() == full.fingerprint()
    bytes_of = [sum(p.nbytes for p in each.base.parameters()) for each in (rounded, full)]
    assert bytes_of[0] < bytes_of[1]


@pytest.mark.parametrize("method", ["p-tuning", "deep"])
def test_gradients_reach_a_prompt_through_four_bits(method, wide) -> None:
    backbone = load_backbone(wide("llama"), dtype="float32", device="cpu", quantize="4bit")
    model = PromptClassifier.from_backbone(backbone, PromptConfig(method=method, virtual_tokens=3), labels=["a", "b"])
    optimizer = torch.optim.Adam(model.prompt_encoder.parameters(), lr=0.05)
    losses = []
    for _ in range(12):
        loss = model(input_ids=IDS, attention_mask=torch.ones_like(IDS), labels=torch.tensor([0, 1])).loss
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.prompt_encoder.parameters())
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < losses[0]
    assert not any(p.requires_grad for p in backbone.parameters())


def test_an_adapter_says_that_it_was_trained_on_rounded_weights(wide, reviews, tmp_path, capsys) -> None:
    options = [
        "--backbone",
        wide("llama"),
        "--data",
        str(reviews),
        "--dtype",
        "float32",
        "--epochs",
        "1",
    ]
    main(["train", *options, "--output", str(tmp_path / "a"), "--quantize", "4bit", "--no-report"])
    assert "float32 with 4bit weights on cpu" in capsys.readouterr().out
    record = read_adapter(tmp_path / "a").record
    assert record.training["quantize"] == "4bit"
    evaluate = ["evaluate", str(tmp_path / "a"), "--data", str(reviews), "--dtype", "float32", "--json"]
    main([*evaluate, "--quantize", "4bit"])
    out, err = capsys.readouterr()
    loss = json.loads(out.splitlines()[-1])["loss"]
    assert loss == pytest.approx(record.metrics["loss"], abs=0.05)  # bitsandbytes has several kernels
    assert "was trained on weights" not in err
    main(evaluate)
    assert "was trained on weights in 4bit" in capsys.readouterr().err


def test_a_wide_choice_of_devices_changes_no_answer(backbone_folder) -> None:
    full = load_backbone(str(backbone_folder("bert")), dtype="float32", device="cpu")
    spread = load_backbone(str(backbone_folder("bert")), dtype="float32", device="cpu", device_map="auto")
    torch.testing.assert_close(spread(inputs()).states, full(inputs()).states, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("package", ["bitsandbytes", "accelerate"])
def test_a_missing_package_is_named(package, backbone_folder, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"needs the package {package}.*pip install 'ptune\[quantize\]'"):
        load_backbone(str(backbone_folder("bert")), quantize="8bit")


def test_what_cannot_be_rounded_is_refused(backbone_folder) -> None:
    with pytest.raises(ConfigError, match="the backbone has random weights; leave `quantize` out"):
        load_backbone(str(backbone_folder("bert")), random_weights=True, quantize="4bit")
    with pytest.raises(ConfigError, match="`quantize='3bit'` is unknown; use one of 8bit, 4bit"):
        load_backbone(str(backbone_folder("bert")), quantize="3bit")
    with pytest.raises(ConfigError, match="`device_map='wide'` is unknown"):
        load_backbone(str(backbone_folder("bert")), device_map="wide")


def test_openvino_reads_all_bits(wide) -> None:
    with pytest.raises(ConfigError, match="`quantize` is for PyTorch, and `precision='int8'` runs"):
        named_backbone(wide("bert"), None, "auto", "auto", "int8", quantize="8bit")
