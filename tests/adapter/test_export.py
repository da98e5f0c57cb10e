"""Adapters go to PEFT, or the reason why they cannot is named together with the options that would do."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import ptune
from ptune.adapter.folder import save_adapter
from ptune.adapter.layout import Record, TaskInfo
from ptune.adapter.peft_reasons import describe_reasons, why_not_peft
from ptune.cli import main
from ptune.errors import ConfigError
from ptune.model.decision import Decision
from ptune.model.ensemble import PromptEnsemble

SHALLOW = {"method": "p-tuning", "pooling": "peft", "encoder_hidden_size": 8}


def save(folder: Path, backbone, members: int = 1, **settings) -> Path:
    config = ptune.PromptConfig(**{"virtual_tokens": 4, **settings})
    models = [ptune.PromptClassifier(backbone, config, ["neg", "pos"], seed=seed) for seed in range(members)]
    model = models[0] if members == 1 else PromptEnsemble(models)
    save_adapter(folder, model, Record.of(model, TaskInfo(temperature=1.5), max_length=20))
    return folder


@pytest.mark.parametrize(
    ("family", "settings", "said"),
    [
        (
            "bert",
            {},
            "its head is one linear layer that reads the mean of the text, and its prompt uses a separate softmax; "
            "train with `pooling='peft'`",
        ),
        ("gpt2", {"softmax": "shared"}, "its head is one linear layer that reads the last token; train with"),
        (
            "bert",
            {**SHALLOW, "template": "film: {text}"},
            "it writes texts into a template, which PEFT does not know;",
        ),
        ("bert", {**SHALLOW, "members": 2}, "it is an ensemble of 2 prompts; train with `ensemble=False`"),
        ("albert", SHALLOW, "embeddings have width 16, and its hidden states 32; train with `method='deep'`"),
        (
            "modernbert",
            {"method": "deep", "pooling": "peft"},
            "prefix tuning does not work with ModernBERT; train with",
        ),
        ("bert", {"method": "deep", "pooling": "peft", "shift_text": False}, "positions begin at 0 and not after"),
    ],
)
def test_the_reason_why_peft_cannot_load_an_adapter_is_named(family, settings, said, backbone, tmp_path) -> None:
    file = ptune.read_adapter(save(tmp_path, backbone(family), **settings))
    assert not file.peft
    assert said in describe_reasons(why_not_peft(file))


def test_inspect_says_why_and_which_options_would_do(backbone, reviews, tmp_path, capsys) -> None:
    adapter = str(save(tmp_path / "adapter", backbone("bert")))
    main(["inspect", adapter])
    out = capsys.readouterr().out
    assert "peft            no\n" in out
    assert "; train with --pooling peft\n" in out
    main(["inspect", adapter, "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert answer["peft"] is False
    assert answer["peft_reasons"][1] == "its prompt uses a separate softmax"

    # The option works as it was shown.
    folder = backbone("bert").location.path
    trained = str(tmp_path / "trained")
    options = ["--epochs", "1", "--virtual-tokens", "4", "--device", "cpu"]
    main(["train", "--backbone", folder, "--data", str(reviews), "--output", trained, "--pooling", "peft", *options])
    capsys.readouterr()
    main(["inspect", trained, "--json"])
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert answer["peft"] is True
    assert answer["peft_reasons"] == []


def test_an_adapter_goes_to_peft_with_the_same_logits(backbone, backbone_folder, tmp_path, capsys) -> None:
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    adapter = save(tmp_path / "adapter", backbone("roberta"), **SHALLOW)
    main(["export", str(adapter), str(tmp_path / "for-peft"), "--to", "peft"])
    out = capsys.readouterr().out
    assert [line.split(":")[1].strip() for line in out.splitlines()[1:]] == [
        "the names of the 2 labels",
        "the temperature 1.5",
        "the length",
        "the backbone's fingerprint",
    ]
    names = sorted(path.name for path in (tmp_path / "for-peft").iterdir())
    assert names == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    notes = (tmp_path / "for-peft" / "README.md").read_text(encoding="utf-8")
    assert 'PeftModel.from_pretrained(model, "for-peft")' in notes
    assert "Divide logits by 1.5 before the softmax" in notes
    assert "| 1 | " in notes
    base = AutoModelForSequenceClassification.from_pretrained(backbone_folder("roberta"), num_labels=2)
    theirs = PeftModel.from_pretrained(base, tmp_path / "for-peft").eval()
    ours = ptune.load(adapter, backbone("roberta"))
    inputs = ours.encoder.tokenizer(["a good film"], return_tensors="pt")
    with torch.no_grad():
        logits = theirs(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
    torch.testing.assert_close(logits, ours.logits(["a good film"]), rtol=1e-5, atol=1e-5)


def test_everything_that_pefts_files_cannot_carry_is_listed(backbone, tmp_path, capsys) -> None:
    config = ptune.PromptConfig(virtual_tokens=4, **SHALLOW)
    model = ptune.PromptClassifier(backbone("bert"), config, ["a", "b"], problem_type="multi_label_classification")
    task = TaskInfo(decision=Decision((0.25, 0.75), at_least_one=True))
    save_adapter(tmp_path / "adapter", model, Record.of(model, task, pair_separator="\n"))
    main(["export", str(tmp_path / "adapter"), str(tmp_path / "out"), "--to", "peft", "--json"])
    lost = json.loads(capsys.readouterr().out)["not_carried"]
    assert lost[1] == "the problem type: load the model with problem_type='multi_label_classification'"
    assert lost[2] == "the thresholds of 2 labels: apply them to the probabilities"
    assert lost[3].startswith("the rule of at least one label: ")
    assert lost[4] == r"the separator '\n': put it in front of the second text of a pair"


def test_an_adapter_that_peft_cannot_load_is_not_exported(backbone, tmp_path, capsys) -> None:
    adapter = save(tmp_path / "adapter", backbone("bert"))
    with pytest.raises(SystemExit) as caught:
        main(["export", str(adapter), str(tmp_path / "out"), "--to", "peft"])
    assert caught.value.code == 2
    message = capsys.readouterr().err
    assert f"PEFT cannot load adapter '{adapter}': its head" in message
    assert message.rstrip().endswith("train with --pooling peft")
    assert not (tmp_path / "out").exists()


def test_an_export_for_ptune_is_a_copy(backbone, tmp_path, capsys) -> None:
    adapter = save(tmp_path / "adapter", backbone("bert"))
    (adapter / "checkpoint.safetensors").touch()
    main(["export", str(adapter), str(tmp_path / "copy")])
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == ["adapter_model.safetensors", "ptune.json"]
    assert (tmp_path / "copy" / "ptune.json").read_bytes() == (adapter / "ptune.json").read_bytes()
    with pytest.raises(SystemExit) as caught:
        main(["export", str(adapter), str(adapter)])
    assert caught.value.code == 2
    assert "is the folder of the adapter itself; give another folder" in capsys.readouterr().err


def test_an_export_replaces_an_adapter_only_if_asked(backbone, tmp_path, capsys) -> None:
    adapter, other = (
        save(tmp_path / name, backbone("bert"), virtual_tokens=3 + len(name)) for name in ("one", "other")
    )
    with pytest.raises(SystemExit) as caught:
        main(["export", str(adapter), str(other)])
    assert caught.value.code == 2
    message = (
        f"folder '{other}' holds an adapter already (adapter_model.safetensors); give another folder, or --overwrite"
    )
    assert message in capsys.readouterr().err
    main(["export", str(adapter), str(other), "--overwrite"])
    assert ptune.read_adapter(other).record == ptune.read_adapter(adapter).record


def test_an_adapter_is_not_written_into_the_folder_of_a_model(backbone, backbone_folder, tmp_path, capsys) -> None:
    adapter, folder = save(tmp_path / "adapter", backbone("bert")), backbone_folder("bert")
    before = sorted(folder.iterdir())
    with pytest.raises(SystemExit) as caught:
        main(["export", str(adapter), str(folder), "--overwrite"])
    assert caught.value.code == 2
    assert (
        f"folder '{folder}' holds a model, which an adapter in the same folder would break" in capsys.readouterr().err
    )
    with pytest.raises(ConfigError, match="holds a model"):
        ptune.load(adapter, backbone("bert")).save(folder)
    assert sorted(folder.iterdir()) == before


def test_a_changed_task_is_saved(backbone, tmp_path) -> None:
    classifier = ptune.load(save(tmp_path / "adapter", backbone("bert")), backbone("bert"))
    warmer = replace(classifier, task=replace(classifier.task, temperature=3.0))
    warmer.save(tmp_path / "warmer")
    again = ptune.load(tmp_path / "warmer", backbone("bert"))
    assert again.temperature == 3.0
    assert torch.equal(again.logits(["a good film"]), classifier.logits(["a good film"]))
