"""Adapters that PEFT wrote: what their outputs mean and what the labels are called, which PEFT does not record."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import ptune
from ptune.adapter.folder import read_adapter, save_adapter
from ptune.adapter.layout import RECORD_FILE, Record
from ptune.cli import main
from ptune.data.targets import MULTI, REGRESSION, SINGLE
from ptune.errors import AdapterError, ConfigError
from ptune.model.loading import load_backbone
from tests.conftest import TOPICS, topic_rows, write_jsonl

NAMES = list(TOPICS)
NAMED = {"id2label": dict(enumerate(NAMES)), "label2id": {name: index for index, name in enumerate(NAMES)}}


@pytest.fixture
def peft_adapter(backbone_folder: Callable[..., Path], tmp_path: Path) -> Callable[..., tuple[Path, str]]:
    """Write an adapter as PEFT would, over a backbone with the given configuration; return both folders."""

    def make(classes: int = 3, **config: object) -> tuple[Path, str]:
        base = str(backbone_folder("bert", **config))
        prompt = ptune.PromptConfig(method="p-tuning", virtual_tokens=4)
        model = ptune.PromptClassifier(load_backbone(base, device="cpu"), prompt, [str(n) for n in range(classes)])
        save_adapter(tmp_path / "adapter", model, Record.of(model))
        (tmp_path / "adapter" / RECORD_FILE).unlink()
        return tmp_path / "adapter", base

    return make


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_the_problem_type_is_that_of_the_backbones_configuration(peft_adapter) -> None:
    folder, _ = peft_adapter(problem_type=MULTI, **NAMED)
    classifier = ptune.load(folder)
    assert classifier.model.problem_type == MULTI
    logits = classifier.logits(["a good red film"])
    scores = classifier.predict("a good red film")[0]["scores"]
    assert list(scores) == NAMES
    torch.testing.assert_close(torch.tensor(list(scores.values())), logits[0].sigmoid())


@pytest.mark.parametrize(
    ("config", "classes", "expected"),
    [
        ({}, 3, SINGLE),
        ({"problem_type": SINGLE}, 3, SINGLE),
        ({"problem_type": MULTI}, 2, MULTI),
        ({}, 1, REGRESSION),
        ({"problem_type": REGRESSION}, 1, REGRESSION),
        ({"problem_type": MULTI}, 1, MULTI),
    ],
)
def test_the_outputs_mean_what_they_mean_in_transformers(config, classes, expected, peft_adapter) -> None:
    folder, _ = peft_adapter(classes, **config)
    assert ptune.load(folder).model.problem_type == expected


def test_a_given_backbone_settles_the_problem_type(peft_adapter, backbone_folder, backbone) -> None:
    folder, _ = peft_adapter()
    other = backbone_folder("bert", problem_type=MULTI)
    assert ptune.load(folder, str(other)).model.problem_type == MULTI
    assert ptune.load(folder, backbone("bert", problem_type=MULTI)).model.problem_type == MULTI
    assert ptune.load(folder).model.problem_type == SINGLE


def test_labels_and_problem_type_can_be_given(peft_adapter) -> None:
    folder, _ = peft_adapter()
    classifier = ptune.load(folder, labels=["x", "y", "z"], problem_type=MULTI)
    assert set(classifier.predict("a good film")[0]) == {"labels", "scores"}
    assert classifier.labels == ["x", "y", "z"]


def test_several_numbers_are_refused(peft_adapter) -> None:
    folder, _ = peft_adapter(problem_type=REGRESSION)
    with pytest.raises(AdapterError, match=r"gives 3 numbers.*ptune gives one.*`problem_type='multi_label"):
        ptune.load(folder)
    assert ptune.load(folder, problem_type=SINGLE).model.problem_type == SINGLE
    with pytest.raises(ConfigError, match="a regression gives one number"):
        ptune.load(folder, problem_type=REGRESSION)


def test_what_does_not_suit_the_adapter_is_named(peft_adapter) -> None:
    folder, _ = peft_adapter()
    with pytest.raises(ConfigError, match=r"`labels` names 2 labels, but adapter .* has 3 outputs"):
        ptune.load(folder, labels=["x", "y"])
    with pytest.raises(ConfigError, match="label 'x' is named twice"):
        ptune.load(folder, labels=["x", "x", "y"])
    with pytest.raises(ConfigError, match="`problem_type='ranking'` is not known"):
        ptune.load(folder, problem_type="ranking")


def test_an_adapter_of_ptune_keeps_what_it_records(backbone, tmp_path) -> None:
    model = ptune.PromptClassifier(backbone("bert"), ptune.PromptConfig(virtual_tokens=4), NAMES)
    save_adapter(tmp_path, model, Record.of(model))
    assert ptune.load(tmp_path, labels=NAMES, problem_type=SINGLE).labels == NAMES
    with pytest.raises(ConfigError, match="records its own `labels`"):
        ptune.load(tmp_path, labels=["x", "y", "z"])
    with pytest.raises(ConfigError, match="records its own `problem_type`"):
        ptune.load(tmp_path, problem_type=MULTI)


def test_a_saved_classifier_keeps_given_labels_and_problem_type(peft_adapter, tmp_path) -> None:
    folder, _ = peft_adapter()
    given = ptune.load(folder, labels=["x", "y", "z"], problem_type=MULTI)
    given.save(tmp_path / "kept")
    kept = ptune.load(tmp_path / "kept")
    assert (kept.labels, kept.model.problem_type) == (["x", "y", "z"], MULTI)
    assert kept.predict("a good film") == given.predict("a good film")
    ptune.load(folder).save(tmp_path / "copy")
    assert read_adapter(tmp_path / "copy").by_peft  # nothing to add, so the files are copied as they are


@pytest.mark.parametrize("labels", [["--labels", "x,y,z"], ["--labels", "x", "--labels", "y", "--labels", "z"]])
def test_predict_takes_labels_and_problem_type(labels, peft_adapter, capsys) -> None:
    folder, _ = peft_adapter()
    main(["predict", str(folder), "--text", "a film", "--json", *labels, "--problem-type", MULTI])
    answer = json.loads(capsys.readouterr().out)
    assert set(answer) == {"labels", "scores"}
    assert list(answer["scores"]) == ["x", "y", "z"]


def test_evaluate_takes_labels_and_the_configurations_problem_type(peft_adapter, tmp_path, capsys) -> None:
    folder, _ = peft_adapter(problem_type=MULTI)
    data = write_jsonl(tmp_path / "topics.jsonl", topic_rows(24))
    capsys.readouterr()
    main(["evaluate", str(folder), "--data", str(data), "--labels", ",".join(NAMES), "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert answer["problem_type"] == MULTI
    assert answer["labels"] == NAMES
    assert "name them in index order with --labels" in fails(capsys, "evaluate", folder, "--data", data)


def test_wrong_labels_are_named_as_an_option(peft_adapter, capsys) -> None:
    folder, _ = peft_adapter()
    capsys.readouterr()
    assert "--labels names 2 labels" in fails(capsys, "predict", folder, "--text", "a film", "--labels", "x,y")


def test_inspect_does_not_guess_what_peft_does_not_record(peft_adapter, capsys) -> None:
    folder, _ = peft_adapter(problem_type=MULTI)
    capsys.readouterr()
    main(["inspect", str(folder), "--json"])
    printed = capsys.readouterr()
    answer = json.loads(printed.out)
    assert answer["labels"] is answer["problem_type"] is None
    assert "not recorded by PEFT" in printed.err


def test_labels_without_names_can_be_named(backbone, tmp_path) -> None:
    placeholders = ["LABEL_0", "LABEL_1", "LABEL_2"]
    model = ptune.PromptClassifier(backbone("bert"), ptune.PromptConfig(virtual_tokens=4), placeholders)
    save_adapter(tmp_path, model, Record.of(model))
    assert ptune.load(tmp_path).labels == placeholders
    named = ptune.load(tmp_path, labels=NAMES)
    assert named.labels == NAMES
    with pytest.raises(ConfigError, match="names 2 labels"):
        ptune.load(tmp_path, labels=["x", "y"])
    named.save(tmp_path / "named")
    assert ptune.load(tmp_path / "named").labels == NAMES


def test_labels_have_to_be_a_list_of_names(peft_adapter) -> None:
    folder, _ = peft_adapter()
    with pytest.raises(ConfigError, match="`labels` is 'x,y,z'; a list"):
        ptune.load(folder, labels="x,y,z")
    with pytest.raises(ConfigError, match="`labels` holds None, a NoneType"):
        ptune.load(folder, labels=["x", None, "z"])
    assert ptune.load(folder, labels=[7, 8, 9]).labels == ["7", "8", "9"]


def test_export_writes_an_adapter_with_the_names(peft_adapter, tmp_path, capsys) -> None:
    folder, _ = peft_adapter()
    main(["export", str(folder), str(tmp_path / "named"), "--labels", ",".join(NAMES)])
    assert read_adapter(tmp_path / "named").record.labels == NAMES
    main(["export", str(folder), str(tmp_path / "copy")])
    assert read_adapter(tmp_path / "copy").by_peft
    capsys.readouterr()
    message = fails(capsys, "export", folder, tmp_path / "p", "--to", "peft", "--labels", ",".join(NAMES))
    assert "leave --labels out" in message


@pytest.mark.parametrize("command", ["report", "compare", "check"])
def test_the_outputs_are_never_taken_for_labels_in_alphabetical_order(peft_adapter, command, tmp_path, capsys) -> None:
    """The names in the data say nothing about the order of the outputs."""
    folder, _ = peft_adapter()
    rows = [{"text": f"a {name} film {number}", "label": name} for number in range(6) for name in NAMES]
    data = write_jsonl(tmp_path / "topics.jsonl", rows)
    arguments: dict[str, list[object]] = {
        "report": ["report", folder, "--data", data, "--output", tmp_path / "r.html", "--prompt-seconds", "0"],
        "compare": ["compare", folder, folder, "--data", data],
        "check": ["check", data, "--adapter", folder],
    }
    capsys.readouterr()
    message = fails(capsys, *arguments[command])
    assert ("name them in index order with --labels" in message) if command != "check" else ("LABEL_0" in message)
    main([str(argument) for argument in [*arguments[command], "--labels", ",".join(reversed(NAMES)), "--json"]])
    answer = json.loads(capsys.readouterr().out)
    if command != "check":
        assert answer["labels"] == list(reversed(NAMES))


def test_check_needs_an_adapter_for_labels(tmp_path, capsys) -> None:
    data = write_jsonl(tmp_path / "topics.jsonl", topic_rows(12))
    assert "give the adapter with --adapter" in fails(capsys, "check", data, "--labels", "a,b")
