"""Adapters of ptune in PEFT, and adapters of PEFT in ptune, give the same logits to within 1e-5.

PEFT gets one row at a time, without padding, because with padding its logits depend on the batch. ptune gets all rows
in one padded batch.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor

import ptune
from ptune.adapter.folder import save_adapter
from ptune.adapter.layout import BackboneNote, Record
from ptune.model.families import FAMILIES, PEFT_PREFIX

GUIDE_FAMILIES = ("roberta", "bert", "gpt2", "opt", "bloom", "llama")
PREFIX_FAMILIES = tuple(name for name, family in FAMILIES.items() if family.peft_prefix)
# Outside of the table: without the attention interface, and with it.
OBSERVED_PREFIX = ("gpt_neo", "gptj", "falcon", "mpt", "olmo2", "stablelm", "roberta-prelayernorm")
# ALBERT and ELECTRA have embeddings of another width than the hidden states; PEFT cannot prompt them.
SHALLOW_FAMILIES = tuple(name for name in FAMILIES if name not in ("albert", "electra"))
LABELS = ["red", "green", "blue"]
ROWS = [[2, 5, 6, 7, 8, 9, 3], [2, 11, 12, 3], [2, 20, 21, 22, 23, 3]]
P = 4


def padded() -> tuple[Tensor, Tensor]:
    length = max(map(len, ROWS))
    ids = torch.tensor([row + [0] * (length - len(row)) for row in ROWS])
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in ROWS])
    return ids, mask


def transformers_model(folder: Path) -> torch.nn.Module:
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(3)
    return AutoModelForSequenceClassification.from_pretrained(folder, num_labels=len(LABELS)).eval()


def peft_logits(model: torch.nn.Module) -> Tensor:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.cat(
            [
                model(input_ids=torch.tensor([row]), attention_mask=torch.ones(1, len(row), dtype=torch.long)).logits
                for row in ROWS
            ]
        )


def ptune_logits(model: ptune.PromptClassifier) -> Tensor:
    ids, mask = padded()
    with torch.no_grad():
        return model.eval()(ids, mask).logits


def random_classifier(backbone, **settings) -> ptune.PromptClassifier:
    """Return a classifier whose weights are all far from zero, so that a missing one changes the logits."""
    config = ptune.PromptConfig(virtual_tokens=P, pooling="peft", encoder_hidden_size=8, **settings)
    model = ptune.PromptClassifier(backbone, config, LABELS, seed=5)
    torch.manual_seed(11)
    with torch.no_grad():
        for parameter in model.trainable_state().values():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    return model


def saved(model: ptune.PromptClassifier, folder: Path) -> Path:
    record = Record(prompt=model.config, backbone=BackboneNote.of(model.backbone), labels=LABELS, classes=len(LABELS))
    save_adapter(folder, model, record)
    return folder


def assert_peft_agrees(adapter: Path, backbone_dir: Path, expected: Tensor) -> None:
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # PEFT warns about missing or unexpected keys
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`")
        peft_model = PeftModel.from_pretrained(transformers_model(backbone_dir), adapter).eval()
    torch.testing.assert_close(peft_logits(peft_model), expected, atol=1e-5, rtol=0)


def assert_saved_as_and_read_by_peft(peft_type: str, model: ptune.PromptClassifier, folder: Path, backbone_dir) -> None:
    saved(model, folder)
    assert json.loads((folder / "adapter_config.json").read_text())["peft_type"] == peft_type
    assert_peft_agrees(folder, backbone_dir, ptune_logits(model))


@pytest.mark.parametrize("encoder", ["mlp", "lstm", "residual", "none"])
@pytest.mark.parametrize("family", GUIDE_FAMILIES)
def test_p_tuning_adapters_of_ptune_give_the_same_logits_in_peft(
    family, encoder, backbone, backbone_folder, tmp_path
) -> None:
    model = random_classifier(backbone(family), method="p-tuning", encoder=encoder)
    assert_saved_as_and_read_by_peft("P_TUNING", model, tmp_path / "adapter", backbone_folder(family))


@pytest.mark.parametrize("family", SHALLOW_FAMILIES)
def test_prompt_tuning_adapters_of_ptune_give_the_same_logits_in_peft(
    family, backbone, backbone_folder, tmp_path
) -> None:
    model = random_classifier(backbone(family), method="prompt-tuning")
    assert_saved_as_and_read_by_peft("PROMPT_TUNING", model, tmp_path / "adapter", backbone_folder(family))


@pytest.mark.parametrize("encoder", ["none", "mlp"])
@pytest.mark.parametrize("family", [*PREFIX_FAMILIES, *OBSERVED_PREFIX])
def test_deep_adapters_of_ptune_in_the_peft_layout_give_the_same_logits_in_peft(
    family, encoder, backbone, backbone_folder, tmp_path
) -> None:
    model = random_classifier(backbone(family), method="deep", encoder=encoder)
    assert_saved_as_and_read_by_peft("PREFIX_TUNING", model, tmp_path / "adapter", backbone_folder(family))


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # models warn of kernels that are not installed
@pytest.mark.parametrize("family", sorted(PEFT_PREFIX - set(OBSERVED_PREFIX)))
def test_deep_adapters_of_all_other_families_that_peft_reads_give_the_same_logits_in_peft(
    family, backbone, backbone_folder, tmp_path
) -> None:
    loaded = backbone(family)
    model = random_classifier(loaded, method="deep")
    length = len(ROWS[0])
    note = BackboneNote.of(loaded)
    record = Record(prompt=model.config, backbone=note, labels=LABELS, classes=len(LABELS), max_length=length)
    save_adapter(tmp_path / "adapter", model, record)
    assert_peft_agrees(tmp_path / "adapter", backbone_folder(family), ptune_logits(model))


def test_an_adapter_with_a_tied_first_token_gives_the_same_logits_in_peft(backbone, backbone_folder, tmp_path) -> None:
    from ptune.model.tokenizer import load_tokenizer

    loaded = backbone("roberta")
    config = ptune.PromptConfig(method="p-tuning", virtual_tokens=P, tie_first=True, encoder_hidden_size=8)
    model = ptune.PromptClassifier(loaded, config, LABELS, load_tokenizer(loaded.location))
    torch.testing.assert_close(model.prompt()[0], loaded.word_embeddings.weight[2])
    assert_peft_agrees(saved(model, tmp_path / "a"), backbone_folder("roberta"), ptune_logits(model))


def peft_config(kind: str):
    from peft import PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig

    common = {"task_type": "SEQ_CLS", "num_virtual_tokens": P}
    if kind == "PREFIX":
        return PrefixTuningConfig(**common)
    if kind == "PREFIX_PROJECTED":
        return PrefixTuningConfig(**common, prefix_projection=True, encoder_hidden_size=8)
    if kind == "PROMPT":
        return PromptTuningConfig(**common)
    return PromptEncoderConfig(**common, encoder_hidden_size=8, encoder_reparameterization_type=kind)


@pytest.mark.parametrize("kind", ["MLP", "LSTM", "PROMPT", "PREFIX", "PREFIX_PROJECTED"])
@pytest.mark.parametrize("family", GUIDE_FAMILIES)
def test_adapters_trained_and_saved_by_peft_give_pefts_logits_in_ptune(
    family, kind, backbone, backbone_folder, tmp_path
) -> None:
    from peft import get_peft_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(transformers_model(backbone_folder(family)), peft_config(kind))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05)
    for _ in range(3):
        for label, row in enumerate(ROWS):
            inputs = {"input_ids": torch.tensor([row]), "attention_mask": torch.ones(1, len(row), dtype=torch.long)}
            model(**inputs, labels=torch.tensor([label])).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    model.save_pretrained(tmp_path)

    assert not (tmp_path / "ptune.json").exists()
    classifier = ptune.load(tmp_path, backbone(family))
    torch.testing.assert_close(ptune_logits(classifier.model), peft_logits(model), atol=1e-5, rtol=0)


def test_labels_of_a_peft_adapter_come_from_the_backbones_configuration(backbone, backbone_folder, tmp_path) -> None:
    model = random_classifier(backbone("bert"), method="p-tuning")
    folder = saved(model, tmp_path / "adapter")
    (folder / "ptune.json").unlink()
    assert ptune.load(folder, backbone("bert")).labels == ["LABEL_0", "LABEL_1", "LABEL_2"]
    named = backbone("bert", id2label={0: "x", 1: "y", 2: "z"})
    assert ptune.load(folder, named).labels == ["x", "y", "z"]


def test_a_peft_adapter_without_a_ptune_file_loads_the_backbone_that_it_names(backbone, tmp_path) -> None:
    model = random_classifier(backbone("bert"), method="deep")
    folder = saved(model, tmp_path / "adapter")
    (folder / "ptune.json").unlink()
    torch.testing.assert_close(ptune_logits(ptune.load(folder, device="cpu").model), ptune_logits(model))


def test_a_deep_adapter_whose_prompt_leaves_a_sliding_window_is_not_offered_to_peft(backbone, tmp_path) -> None:
    narrow = random_classifier(backbone("mistral", sliding_window=6), method="deep")
    assert ptune.read_adapter(saved(narrow, tmp_path / "narrow")).peft is False
    wide = random_classifier(backbone("mistral"), method="deep")
    assert ptune.read_adapter(saved(wide, tmp_path / "wide")).peft is True


@pytest.mark.parametrize(("family", "method"), [("bert", "deep"), ("roberta", "p-tuning"), ("gpt2", "deep")])
def test_an_adapter_in_a_layout_that_peft_cannot_read_is_not_offered_to_it(family, method, backbone, tmp_path) -> None:
    from peft import PeftConfig

    config = ptune.PromptConfig(method=method, virtual_tokens=P, pooling="mean")
    folder = saved(ptune.PromptClassifier(backbone(family), config, LABELS), tmp_path / "adapter")
    assert ptune.read_adapter(folder).peft is False
    with pytest.raises(ValueError, match=r"adapter_config\.json"):
        PeftConfig.from_pretrained(str(folder))


@pytest.mark.parametrize("family", GUIDE_FAMILIES)
def test_regression_adapters_give_the_same_numbers_in_ptune_and_in_peft(
    family, backbone, backbone_folder, tmp_path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    config = ptune.PromptConfig(method="p-tuning", virtual_tokens=P, encoder_hidden_size=8)
    model = ptune.PromptClassifier(backbone(family), config, ["stars"], seed=5, problem_type="regression")
    model.standardise(torch.tensor([1.0, 2.0, 4.5]))
    note = BackboneNote.of(model.backbone)
    record = Record(prompt=model.config, backbone=note, labels=["stars"], classes=1, problem_type="regression")
    save_adapter(tmp_path, model, record)
    expected = ptune_logits(model)
    assert expected.shape == (3, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base_model = AutoModelForSequenceClassification.from_pretrained(backbone_folder(family), num_labels=1).eval()
        peft_model = PeftModel.from_pretrained(base_model, tmp_path).eval()
    torch.testing.assert_close(peft_logits(peft_model), expected, atol=1e-5, rtol=1e-5)
    (tmp_path / "ptune.json").unlink()  # as PEFT would write it
    classifier = ptune.load(tmp_path, backbone(family))
    assert classifier.model.problem_type == "regression"
    torch.testing.assert_close(ptune_logits(classifier.model), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_verbalizer_with_a_prompt_from_a_text_gives_the_same_logits_in_peft(
    family, language_model, language_model_folder, tmp_path
) -> None:
    """The head is saved as PEFT's score.weight, and PEFT always numbers the text's positions after the prompt."""
    config = ptune.PromptConfig(
        head="verbalizer",
        verbalizer={"red": "bad", "green": "good", "blue": "fine"},
        template="{text}",
        pooling="peft",
        init="text",
        init_text="the plot was",
    )
    model = ptune.PromptClassifier.from_backbone(language_model(family), config, labels=LABELS)
    assert_saved_as_and_read_by_peft("PREFIX_TUNING", model, tmp_path / "adapter", language_model_folder(family))
