"""Adapter folders: what is written, what is checked, and what is refused before memory is allocated."""

from __future__ import annotations

import json
import logging
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

import ptune
from ptune.adapter.folder import read_adapter, save_adapter
from ptune.adapter.layout import BackboneNote, Record
from ptune.errors import AdapterError

LABELS = ["red", "green", "blue"]
P = 5


@pytest.fixture
def adapter(backbone, tmp_path):
    """Save an adapter on a tiny backbone and return its folder and the model."""

    def make(family: str = "bert", name: str = "adapter", **settings):
        loaded = backbone(family)
        model = ptune.PromptClassifier(loaded, ptune.PromptConfig(virtual_tokens=P, **settings), LABELS, seed=2)
        record = Record(prompt=model.config, backbone=BackboneNote.of(loaded), labels=LABELS, classes=3, max_length=40)
        save_adapter(tmp_path / name, model, record)
        return tmp_path / name, model

    return make


def test_the_files_hold_folded_prompt_and_head_in_float32(adapter) -> None:
    folder, model = adapter("llama", method="deep", encoder="mlp")
    tensors = load_file(folder / "adapter_model.safetensors")
    assert {name: tuple(t.shape) for name, t in tensors.items()} == {
        "prompt_embeddings": (P, 2 * 2 * 16),
        "head.linear.weight": (3, 32),
        "head.linear.bias": (3,),
    }
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    torch.testing.assert_close(tensors["prompt_embeddings"], model.prompt_encoder())
    assert sorted(path.name for path in folder.iterdir()) == ["adapter_model.safetensors", "ptune.json"]


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("bert", {"method": "deep"}),
        ("gpt2", {"method": "deep", "pooling": "peft"}),
        ("roberta", {"method": "p-tuning", "encoder": "lstm"}),
        ("deberta-v2", {"method": "p-tuning", "pooling": "peft"}),
        ("modernbert", {"method": "p-tuning", "pooling": "peft"}),
        ("distilbert", {"method": "prompt-tuning", "pooling": "peft"}),
        ("albert", {"method": "p-tuning"}),
    ],
)
def test_a_saved_adapter_gives_the_same_logits_as_before(family, settings, adapter, backbone) -> None:
    folder, model = adapter(family, **settings)
    loaded = ptune.load(folder, backbone(family)).model
    ids = torch.tensor([[2, 6, 7, 3]])
    with torch.no_grad():
        assert torch.equal(loaded(ids).logits, model.eval()(ids).logits)
    assert loaded.labels == LABELS


@pytest.mark.parametrize("family", ["bert", "distilbert", "llama"])
def test_an_adapter_with_a_verbalizer_keeps_its_template_and_its_logits(family, language_model, tmp_path) -> None:
    loaded = language_model(family)
    config = ptune.PromptConfig(head="verbalizer", init="text", init_text="good film", template=None)
    model = ptune.PromptClassifier.from_backbone(loaded, config, labels=["good", "bad"])
    before = ptune.TextClassifier.around(model)
    texts = ["a {slow} film", "the plot was warm and it ends"]
    record = Record(prompt=model.config, backbone=BackboneNote.of(loaded), labels=["good", "bad"], classes=2)
    save_adapter(tmp_path, model, record)
    assert sorted(load_file(tmp_path / "adapter_model.safetensors")) == [
        "head.linear.bias",
        "head.linear.weight",
        "prompt_embeddings",
    ]
    after = ptune.load(tmp_path, loaded)
    assert after.model.config.template == model.config.template
    assert after.model.config.shift_text == model.config.shift_text
    assert torch.equal(after.logits(texts), before.logits(texts))


def test_an_adapter_over_the_mask_needs_the_language_model_head_of_its_backbone(
    language_model, language_model_folder, tmp_path
) -> None:
    import shutil

    from transformers import AutoModel

    from ptune.errors import BackboneError

    model = ptune.PromptClassifier.from_backbone(
        language_model("bert"), ptune.PromptConfig(head="verbalizer"), labels=["good", "bad"]
    )
    record = Record(prompt=model.config, backbone=BackboneNote.of(model.backbone), labels=["good", "bad"], classes=2)
    save_adapter(tmp_path / "adapter", model, record)
    bare = shutil.copytree(language_model_folder("bert"), tmp_path / "bare")
    AutoModel.from_pretrained(bare).save_pretrained(bare)
    with pytest.raises(BackboneError, match="has no pretrained language-model head"):
        ptune.load(tmp_path / "adapter", str(bare))


def test_text_that_is_not_shifted_is_not_offered_to_peft(adapter) -> None:
    settings = {"method": "deep", "pooling": "peft"}
    assert read_adapter(adapter("gpt2", name="shifted", **settings)[0]).peft
    assert not read_adapter(adapter("gpt2", name="not", **settings, shift_text=False)[0]).peft
    assert read_adapter(adapter("bloom", name="bloom", **settings, shift_text=False)[0]).peft


def test_saving_over_a_peft_adapter_removes_its_configuration(adapter) -> None:
    folder, _ = adapter(method="p-tuning")
    assert read_adapter(folder).peft
    adapter(method="deep")
    assert not (folder / "adapter_config.json").exists()
    assert not read_adapter(folder).peft


def test_the_record_survives_unknown_keys_but_not_an_unknown_version(adapter) -> None:
    folder, _ = adapter()
    content = json.loads((folder / "ptune.json").read_text())
    (folder / "ptune.json").write_text(json.dumps({**content, "later": 1}))
    assert read_adapter(folder).record.labels == LABELS
    (folder / "ptune.json").write_text(json.dumps({**content, "format_version": 2}))
    with pytest.raises(AdapterError, match="format_version is 2, but this version of ptune reads only 1"):
        read_adapter(folder)


def test_weights_that_do_not_belong_to_the_record_are_refused(adapter) -> None:
    folder, _ = adapter(name="one")
    other, _ = adapter(name="two", method="p-tuning", pooling="mean")
    (folder / "adapter_model.safetensors").write_bytes((other / "adapter_model.safetensors").read_bytes())
    with pytest.raises(AdapterError, match=r"is not the file that ptune\.json was written with"):
        read_adapter(folder)


@pytest.mark.parametrize(
    ("width", "family", "reason"),
    [
        ({"hidden_size": 16}, "bert", "needs a backbone with width 32, but backbone .* has width 16"),
        ({"num_hidden_layers": 3}, "bert", "needs a backbone with 2 layers, but backbone .* has 3 layers"),
        ({}, "roberta", "needs a backbone with model type bert, but backbone .* has model type roberta"),
    ],
)
def test_another_backbone_is_refused(width, family, reason, adapter, backbone) -> None:
    folder, _ = adapter()
    with pytest.raises(AdapterError, match=reason):
        ptune.load(folder, backbone(family, **width))


@pytest.mark.parametrize("method", ["deep", "p-tuning"])
def test_a_peft_file_on_a_backbone_of_another_width_is_refused(method, adapter, backbone) -> None:
    folder, _ = adapter(method=method, pooling="peft")
    (folder / "ptune.json").unlink()
    with pytest.raises(AdapterError, match=r"tensor 'prompt_embeddings' has shape .* belongs to another backbone"):
        ptune.load(folder, backbone("bert", hidden_size=16))


def test_other_weights_of_the_same_shape_are_warned_about(adapter, backbone, caplog) -> None:
    folder, _ = adapter()
    with caplog.at_level(logging.WARNING, "ptune"):
        ptune.load(folder, backbone("bert", initializer_range=0.5))
        assert "other weights" not in caplog.text
        content = json.loads((folder / "ptune.json").read_text())
        content["backbone"]["fingerprint"] = "0" * 16
        (folder / "ptune.json").write_text(json.dumps(content))
        ptune.load(folder, backbone("bert"))
    assert "was trained on other weights than those of backbone" in caplog.text


def peft_folder(adapter, **changes):
    """Return a PEFT folder with some of its tensors changed; None removes one."""
    folder, _ = adapter(method="p-tuning")
    (folder / "ptune.json").unlink()
    tensors = {**load_file(folder / "adapter_model.safetensors"), **changes}
    tensors = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def test_the_error_about_a_missing_head_says_what_happened_and_what_to_do(adapter) -> None:
    names = ("base_model.classifier.weight", "base_model.classifier.bias")
    folder = peft_folder(adapter, **dict.fromkeys(names))
    with pytest.raises(AdapterError, match=r"no classification head.*peft 0\.15\.0 to 0\.16\.0.*Save .* again"):
        read_adapter(folder)


def test_an_incomplete_head_is_refused(adapter, backbone) -> None:
    folder = peft_folder(adapter, **{"base_model.classifier.bias": None})
    with pytest.raises(AdapterError, match=r"tensor 'classifier\.bias' is not in .*would answer at random"):
        ptune.load(folder, backbone("bert"))


def test_surplus_tensors_are_refused(adapter, backbone) -> None:
    folder = peft_folder(adapter, **{"base_model.extra": torch.zeros(2)})
    with pytest.raises(AdapterError, match="unexpected tensors: extra"):
        ptune.load(folder, backbone("bert"))


def test_integers_as_weights_are_refused(adapter) -> None:
    folder = peft_folder(adapter, prompt_embeddings=torch.zeros(P, 32, dtype=torch.int64))
    with pytest.raises(AdapterError, match="is of type I64"):
        read_adapter(folder)


def test_a_header_that_claims_more_data_than_the_file_holds_is_refused(adapter) -> None:
    """A header of a few bytes can claim terabytes."""
    folder, _ = adapter(method="p-tuning")
    (folder / "ptune.json").unlink()
    header = json.dumps({"prompt_embeddings": {"dtype": "F32", "shape": [2**20, 2**20], "data_offsets": [0, 2**42]}})
    data = struct.pack("<Q", len(header)) + header.encode() + b"\0" * 64
    (folder / "adapter_model.safetensors").write_bytes(data)
    with pytest.raises(AdapterError, match="is not a complete safetensors file"):
        read_adapter(folder)


def test_a_header_length_beyond_the_file_is_refused(adapter) -> None:
    folder, _ = adapter()
    (folder / "ptune.json").unlink()
    (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}")
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(AdapterError, match="is not a complete safetensors file"):
        read_adapter(folder)


@pytest.mark.parametrize("content", ["", "{", "[1]", "[" * 100_000, '{"peft_type": "LORA"}', '{"peft_type": 3}'])
def test_an_adapter_config_for_something_else_than_prompts_is_refused(content, adapter) -> None:
    folder, _ = adapter(method="p-tuning")
    (folder / "ptune.json").unlink()
    (folder / "adapter_config.json").write_text(content)
    with pytest.raises(AdapterError, match=r"adapter_config\.json"):
        read_adapter(folder)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"labels": ["one"]}, "1 labels are named, but there are 3 classes"),
        ({"prompt": {"virtual_tokens": 0}}, "virtual_tokens"),
        ({"classes": "many"}, "classes"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(change, reason, adapter) -> None:
    folder, _ = adapter()
    content = json.loads((folder / "ptune.json").read_text())
    (folder / "ptune.json").write_text(json.dumps({**content, **change}))
    with pytest.raises(AdapterError, match=reason):
        read_adapter(folder)


def test_a_pickled_adapter_is_refused_without_opening_it(adapter) -> None:
    folder, _ = adapter(method="p-tuning")
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(AdapterError, match=r"adapter_model\.bin is a pickle"):
        read_adapter(folder)


def test_a_huge_json_file_is_refused_without_reading_it(adapter) -> None:
    folder, _ = adapter(method="p-tuning")
    with (folder / "adapter_config.json").open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(AdapterError, match="has 1073741824 bytes; at most"):
        read_adapter(folder)


def test_a_record_without_a_problem_type_is_single_label(adapter, backbone) -> None:
    folder, _ = adapter()
    content = json.loads((folder / "ptune.json").read_text())
    assert content.pop("problem_type") == "single_label_classification"
    (folder / "ptune.json").write_text(json.dumps(content))
    assert read_adapter(folder).record.problem_type == "single_label_classification"
    assert ptune.load(folder, backbone("bert")).model.problem_type == "single_label_classification"


def test_a_record_without_a_label_separator_has_none(adapter, backbone) -> None:
    folder, _ = adapter()
    content = json.loads((folder / "ptune.json").read_text())
    assert content.pop("label_separator") is None
    (folder / "ptune.json").write_text(json.dumps(content))
    assert ptune.load(folder, backbone("bert")).task.label_separator is None
    (folder / "ptune.json").write_text(json.dumps(content | {"label_separator": ""}))
    with pytest.raises(AdapterError, match="label_separator"):
        read_adapter(folder)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"problem_type": "regression"}, "a regression gives one number, but there are 3 classes"),
        ({"problem_type": "ranking"}, "problem_type"),
    ],
)
def test_a_record_whose_problem_type_does_not_fit_is_refused(changes, reason, adapter) -> None:
    folder, _ = adapter()
    content = json.loads((folder / "ptune.json").read_text())
    (folder / "ptune.json").write_text(json.dumps(content | changes))
    with pytest.raises(AdapterError, match=reason):
        read_adapter(folder)
