"""Finding and loading backbones, the errors if that fails, and forward passes with a separate softmax."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
import torch

from ptune.data.batch import Inputs
from ptune.errors import BackboneError, ConfigError
from ptune.model.entry import Entry
from ptune.model.families import FAMILIES
from ptune.model.loading import load_backbone, pick_device
from ptune.model.locate import locate


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package `toy_model` for a model, which must be found without being imported."""
    root = tmp_path / "toy_model"
    root.mkdir()
    (root / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.path_importer_cache.clear()
    return root


def test_a_package_leads_to_the_safetensors_folder_inside(package) -> None:
    (package / "weights").mkdir()
    for name in ("config.json", "model.safetensors"):
        (package / "weights" / name).write_bytes(b"{}")
    location = locate("python:toy-model")
    assert location.path == str(package / "weights")
    assert location.gguf_file is None
    assert location.reference == "python:toy-model"


def test_a_package_leads_to_a_gguf_file_inside(package) -> None:
    (package / "tiny.gguf").write_bytes(b"GGUF")
    location = locate("python:toy_model")
    assert (location.path, location.gguf_file) == (str(package), "tiny.gguf")
    assert locate("python:toy_model/tiny.gguf").gguf_file == "tiny.gguf"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("python:no-such-package", "package 'no-such-package' is not installed; check its name"),
        ("python:toy_model", r"no model: neither a folder with config\.json and \*\.safetensors nor a \.gguf file"),
        ("python:toy_model/missing", "has no folder or .gguf file 'missing'"),
        ("./missing", "there is no such folder"),
        ("/missing/folder", "there is no such folder"),
        ("", "the backbone's name is empty"),
    ],
)
def test_a_name_without_a_model_is_explained(name, reason, package) -> None:
    with pytest.raises(BackboneError, match=reason.replace("(", r"\(")):
        locate(name)


def test_a_hub_id_offline_says_what_to_use_instead() -> None:
    with pytest.raises(BackboneError, match=r"'no-such/model' is not a local folder.*give a local folder, python:"):
        load_backbone("no-such/model")


def test_a_folder_without_a_model_is_explained(tmp_path) -> None:
    with pytest.raises(BackboneError, match=r"must contain config\.json or exactly one \.gguf file"):
        load_backbone(str(tmp_path))


def test_a_truncated_checkpoint_is_explained(backbone_folder, tmp_path) -> None:
    folder = shutil.copytree(backbone_folder("bert"), tmp_path / "broken")
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(BackboneError, match="cannot be read from"):
        load_backbone(str(folder))


def test_missing_layers_of_a_checkpoint_are_not_initialized_at_random(backbone_folder, tmp_path) -> None:
    folder = shutil.copytree(backbone_folder("bert"), tmp_path / "deeper")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(BackboneError, match=r"lacks 16 weights, first bert\.encoder\.layer\.2"):
        load_backbone(str(folder))


def test_pickled_weights_are_not_opened(backbone_folder, tmp_path) -> None:
    folder = tmp_path / "pickled"
    folder.mkdir()
    shutil.copy(backbone_folder("bert") / "config.json", folder)
    (folder / "pytorch_model.bin").write_bytes(b"not even a pickle")
    with pytest.raises(BackboneError, match=r"it contains no \*\.safetensors file, and ptune opens no pickles"):
        load_backbone(str(folder))


def test_the_peft_layout_of_a_bert_without_pooler_is_refused(backbone_folder, tmp_path) -> None:
    from safetensors.torch import load_file, save_file

    from ptune.model.head import make_head

    folder = shutil.copytree(backbone_folder("bert"), tmp_path / "no-pooler")
    weights = {k: v for k, v in load_file(folder / "model.safetensors").items() if "pooler" not in k}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    loaded = load_backbone(str(folder), device="cpu")
    make_head(loaded, "mean", 3)
    with pytest.raises(BackboneError, match=r"has no pooler weights.*use `pooling='mean'`"):
        make_head(loaded, "peft", 3)


def test_the_fingerprint_depends_on_the_weights_but_not_on_their_number_type(backbone_folder) -> None:
    folder = str(backbone_folder("bert"))
    whole, half = (load_backbone(folder, dtype=dtype, device="cpu") for dtype in ("float32", "bfloat16"))
    assert whole.fingerprint() == half.fingerprint()
    with torch.no_grad():
        whole.word_embeddings.weight[3, 5] += 1
    assert whole.fingerprint() != half.fingerprint()


def test_random_weights_need_no_checkpoint_and_are_the_same_each_time(backbone_folder, tmp_path) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(backbone_folder("bert") / name, tmp_path)
    one, two = (load_backbone(str(tmp_path), random_weights=True, device="cpu") for _ in range(2))
    assert one.fingerprint() == two.fingerprint()


def test_an_unknown_device_is_explained() -> None:
    with pytest.raises(BackboneError, match="`device='warp'` cannot be used here"):
        pick_device("warp")


ATTENTION_FAMILIES = [name for name, family in FAMILIES.items() if family.deep == "attention"]


@pytest.mark.parametrize("family", ATTENTION_FAMILIES)
def test_a_separate_softmax_starts_from_the_pretrained_model_and_then_adds(family, backbone) -> None:
    """Values of zero add nothing. If all virtual tokens have the same value, it is added whatever the query is."""
    loaded = backbone(family)
    ids, mask = torch.tensor([[2, 5, 6, 7, 8], [2, 9, 10, 3, 0]]), torch.tensor([[1] * 5, [1, 1, 1, 1, 0]])
    prompt = torch.randn(loaded.layers, 2, 4, loaded.kv_width)
    prompt[:, 1] = 0
    text, entry = Inputs(ids, mask), Entry("separate")
    plain = loaded(text).states
    torch.testing.assert_close(loaded(text, prompt, entry).states, plain)
    prompt[:, 1] = torch.randn(loaded.kv_width)  # the same for every virtual token, so keys do not matter
    one = loaded(text, prompt, entry).states
    other = loaded(text, torch.cat([prompt[:, :1] * 3, prompt[:, 1:]], dim=1), entry).states
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    assert (one - plain).abs().max() > 1e-3
    # A row has the same hidden states alone as in a batch with a longer row.
    alone = loaded(Inputs(ids[1:, :4]), prompt, entry).states
    torch.testing.assert_close(alone[0], one[1, :4], rtol=1e-4, atol=1e-4)


def test_an_unknown_number_type_is_reported_with_the_known_ones(backbone_folder) -> None:
    with pytest.raises(ConfigError, match="`dtype='int8'` is not known; use one of auto, float32, bfloat16, float16"):
        load_backbone(str(backbone_folder("bert")), dtype="int8")
