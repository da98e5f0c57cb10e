"""The model card states what the record states, in a form that the Hub accepts."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from ptune.adapter.card import write_card
from ptune.adapter.folder import AdapterFile, read_adapter
from ptune.adapter.layout import RECORD_FILE
from ptune.data.load import load_data
from ptune.data.splits import Origin
from ptune.inference.classifier import load
from ptune.model.classifier import PromptClassifier
from ptune.model.config import PromptConfig
from ptune.training.config import TrainConfig
from ptune.training.train import train
from tests.conftest import star_rows, topic_rows, write_jsonl
from tests.hub_server import card_errors


@pytest.fixture(scope="module")
def trained(backbone, reviews, tmp_path_factory) -> dict[str, Path]:
    """Adapters trained for one epoch: deep, readable by PEFT, multi-label and regression."""
    folder = tmp_path_factory.mktemp("cards")
    topics, stars = write_jsonl(folder / "topics.jsonl", topic_rows(48)), write_jsonl(folder / "s.jsonl", star_rows(48))
    adapters = {}
    for name, source, method, label in (
        ("deep", reviews, "deep", "label"),
        ("peft", reviews, "p-tuning", "label"),
        ("multi", topics, "deep", "labels"),
        ("number", stars, "deep", "stars"),
    ):
        data = load_data(source, label=label)
        config = PromptConfig(method=method, virtual_tokens=3, encoder_hidden_size=8)
        model = PromptClassifier.from_backbone(
            backbone("bert"), config, labels=data.labels, problem_type=data.problem_type
        )
        adapters[name] = folder / name
        train(model, data, TrainConfig(epochs=1), output=adapters[name])
    return adapters


def changed(file: AdapterFile, **values: object) -> AdapterFile:
    """Return the adapter with some values of its record changed."""
    return replace(file, record=file.record.model_copy(update=values))


@pytest.mark.parametrize("name", ["deep", "peft", "multi", "number"])
def test_every_kind_of_adapter_has_a_card_that_the_hub_accepts(name, trained) -> None:
    file = read_adapter(trained[name])
    content = write_card(file, "owner/reviews")
    assert card_errors(content) == []
    card = ModelCard(content)  # parses and checks the metrics
    assert card.content == content
    data = card.data
    assert (data.library_name, data.pipeline_tag, data.model_name) == ("ptune", "text-classification", "reviews")
    metrics = {result.metric_name: result.metric_value for result in data.eval_results}
    assert metrics["Loss"] == round(file.record.metrics["loss"], 4)
    assert {result.dataset_split for result in data.eval_results} == {"validation"}
    assert ("peft" in data.tags) == ("PeftModel" in card.text) == (name == "peft")
    for label in file.record.labels:
        assert label in card.text
    assert ("Probabilities are calibrated" in card.text) == (name in ("deep", "peft"))
    assert "/tmp" not in content
    assert str(trained[name].parent) not in content


@pytest.mark.parametrize("name", ["deep", "peft"])
def test_the_code_in_the_card_runs(name, trained, backbone_folder, capsys) -> None:
    file = read_adapter(trained[name])
    names = {"owner/reviews": str(trained[name]), f'"{backbone_folder("bert").name}"': f'"{backbone_folder("bert")}"'}
    code = "".join(re.findall(r"```python\n(.*?)```", write_card(file, "owner/reviews"), flags=re.DOTALL))
    for shown, actual in names.items():
        assert shown in code
        code = code.replace(shown, actual)
    exec(compile(code, "README.md", "exec"), {})
    assert str(load(file).predict("a text")) in capsys.readouterr().out


def test_a_backbone_of_the_hub_is_the_base_model_and_a_folder_is_not(trained) -> None:
    file = read_adapter(trained["deep"])
    assert ModelCard(write_card(file, "owner/a")).data.base_model is None
    on_hub = changed(file, backbone=file.record.backbone.model_copy(update={"name": "roberta-large"}))
    card = ModelCard(write_card(on_hub, "owner/a"))
    assert card.data.base_model == "roberta-large"
    assert 'ptune.load("owner/a")' in card.text
    package = changed(file, backbone=file.record.backbone.model_copy(update={"name": "python:not-here"}))
    card = ModelCard(write_card(package, "owner/a"))
    assert card.data.base_model is None
    assert "`python:not-here`" in card.text


def test_the_card_has_the_licence_that_the_backbones_card_states(trained, backbone_folder, tmp_path) -> None:
    file = read_adapter(trained["deep"])
    assert ModelCard(write_card(file, "owner/a")).data.license is None
    (tmp_path / "config.json").touch()
    local = changed(file, backbone=file.record.backbone.model_copy(update={"name": str(tmp_path)}))
    for text, licence in (("license: apache-2.0", "apache-2.0"), ("tags: [a]", None), ("license: [", None)):
        (tmp_path / "README.md").write_text(f"---\n{text}\n---\n")
        assert ModelCard(write_card(local, "owner/a")).data.license == licence


def test_data_of_the_hub_are_named_by_their_id(trained) -> None:
    file = changed(read_adapter(trained["deep"]), data=Origin("nyu-mll/glue", True, "mrpc", "v1"))
    content = write_card(file, "owner/a")
    assert card_errors(content) == []
    data = ModelCard(content).data
    assert data.datasets == ["nyu-mll/glue"]
    result = data.eval_results[0]
    assert (result.dataset_type, result.dataset_config, result.dataset_revision) == ("nyu-mll/glue", "mrpc", "v1")


@pytest.mark.parametrize("origin", [None, Origin("my films (new).csv"), Origin("…"), Origin("a|b\n<c>")])
def test_any_name_of_local_data_is_in_a_form_that_the_hub_accepts(origin, trained) -> None:
    content = write_card(changed(read_adapter(trained["deep"]), data=origin), "owner/a")
    assert card_errors(content) == []
    assert "<c>" not in ModelCard(content).text


def test_names_with_characters_of_markdown_or_html_stay_in_their_cell(trained) -> None:
    file = changed(read_adapter(trained["deep"]), labels=["a|b\nc", "<script>x</script> & ```"])
    text = ModelCard(write_card(file, "owner/a")).text
    assert "| 0 | a\\|b c |\n| 1 | &lt;script>x&lt;/script> &amp; ``` |\n" in text


def test_an_adapter_written_by_peft_has_a_card_without_metrics(trained, tmp_path) -> None:
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / name).write_bytes((trained["peft"] / name).read_bytes())
    assert not (tmp_path / RECORD_FILE).exists()
    content = write_card(read_adapter(tmp_path), "owner/a")
    assert card_errors(content) == []
    assert ModelCard(content).data.eval_results is None
    assert "LABEL_1" in content
