"""Adapters from strangers: whatever a file holds, it is refused in one short line, soon, and without much memory."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import ptune
from ptune.adapter.folder import read_adapter, save_adapter
from ptune.adapter.layout import PEFT_FILE, RECORD_FILE, STATE_FILE, WEIGHTS_FILE, BackboneNote, Record
from ptune.cli import main
from ptune.data.template import fields_of
from ptune.errors import AdapterError, ConfigError, DataError, PtuneError, printable
from ptune.inference.mixed import predict_mixed

LABELS = ["red", "green", "blue"]
ESCAPE = "\x1b[2Jred\u202e"  # clears a terminal, then turns the writing direction round


@pytest.fixture
def adapter(backbone: Callable[..., Any], tmp_path: Path) -> Path:
    """A healthy adapter, which PEFT can read too."""
    loaded = backbone("bert")
    model = ptune.PromptClassifier(loaded, ptune.PromptConfig(method="p-tuning", virtual_tokens=5), LABELS)
    record = Record(prompt=model.config, backbone=BackboneNote.of(loaded), labels=LABELS, classes=3, max_length=40)
    save_adapter(tmp_path / "adapter", model, record)
    return tmp_path / "adapter"


def change_record(folder: Path, **changes: Any) -> None:
    """Change fields of the record; `prompt` and `backbone` are merged."""
    content = json.loads((folder / RECORD_FILE).read_text())
    for name, value in changes.items():
        content[name] = content[name] | value if name in ("prompt", "backbone") else value
    (folder / RECORD_FILE).write_text(json.dumps(content))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    """Change tensors, with a record that has no hash of them."""
    tensors = load_file(folder / WEIGHTS_FILE)
    save_file(change(tensors), folder / WEIGHTS_FILE)
    change_record(folder, weights_sha256=None)


def refusal(folder: Path, backbone: Any = None) -> str:
    """Return the message with which an adapter is refused, after checking that it is short."""
    with pytest.raises(AdapterError) as caught:
        read_adapter(folder) if backbone is None else ptune.load(folder, backbone)
    message = str(caught.value)
    assert len(message) < 3000
    assert "\n" not in message
    return message


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", ["prompt_embeddings", "base_model.classifier.bias"])
def test_weights_that_are_not_finite_are_refused(name, number, adapter, backbone) -> None:
    def poison(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        tensors[name].view(-1)[-1] = number
        return tensors

    change_weights(adapter, poison)
    message = refusal(adapter, backbone("bert"))
    assert f"tensor '{name}' holds numbers that are not finite" in message


def test_weights_that_are_too_large_for_float32_are_refused(adapter, backbone) -> None:
    change_weights(adapter, lambda tensors: {name: tensor.double() * 1e300 for name, tensor in tensors.items()})
    assert "not finite" in refusal(adapter, backbone("bert"))


def test_weights_that_overflow_on_the_way_give_no_answer(adapter, backbone) -> None:
    change_weights(adapter, lambda tensors: {name: tensor.sign() * 3e38 for name, tensor in tensors.items()})
    classifier = ptune.load(adapter, backbone("bert"))
    for call in (classifier.predict, classifier.predict_proba, classifier.logits):
        with pytest.raises(AdapterError, match="infinite numbers or NaN for 1 of 1 texts"):
            call(["a good film"])
    with pytest.raises(AdapterError, match="infinite numbers or NaN"):
        predict_mixed([(classifier, "a good film")])


@pytest.mark.parametrize("temperature", ["Infinity", "NaN", "1e-300", "1e999", "-1", "0", "1e300", '"warm"'])
def test_an_impossible_temperature_is_refused(temperature, adapter) -> None:
    record = (adapter / RECORD_FILE).read_text()
    (adapter / RECORD_FILE).write_text(record.replace('"temperature": 1.0', f'"temperature": {temperature}'))
    assert "temperature" in refusal(adapter) or "not a JSON number" in refusal(adapter)


@pytest.mark.parametrize(
    "changes",
    [
        {"metrics": {"loss": 1e999}},
        {"metrics": {"loss": 10**400}},
        {"metrics": {"\ud800": 1}},
        {"training": {"notes": "half a \udfff character"}},
        {"metrics": {str(number): 1 for number in range(200_000)}},
        {"training": {"lr": [{"deep": 1e999}]}},
        {"training": {"notes": "a" * 2_000_000}},
        {"columns": {"text": "a" * 2_000_000}},
        {"versions": {"torch": "2" * 2_000_000}},
        {"data": {"name": "n" * 2_000_000}},
        {"labels": ["a" * 20_000, "b", "c"]},
        {"labels": ["\ud800", "b", "c"]},
        {"labels": None, "classes": 2**40},
        {"members": 10**9},
        {"max_length": 2**70},
        {"pair_separator": "-" * 20_000},
        {"label_separator": "-" * 20_000},
        {"thresholds": [0.5] * 3_000_000},
        {"weights_sha256": "0" * 20_000},
        {"backbone": {"name": "n" * 20_000}},
        {"backbone": {"layers": -(2**70)}},
        {"prompt": {"template": "{text}" + "a" * 20_000}},
        {"prompt": {"init": "text", "init_text": "a" * 200_000}},
        {"prompt": {"encoder_hidden_size": 2**40}},
        {"prompt": {f"unknown{number}": 1 for number in range(5000)}},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_every_field_of_a_record_has_a_limit(changes, adapter) -> None:
    change_record(adapter, **changes)
    message = refusal(adapter)
    assert any(name in message for name in (*changes, "it holds Infinity")), message
    assert len(message) < 5000


def test_a_record_that_is_nested_deeply_is_refused(adapter) -> None:
    record = (adapter / RECORD_FILE).read_text()
    nested = '{"a": ' * 900 + "1" + "}" * 900
    (adapter / RECORD_FILE).write_text(record.replace('"training": {}', f'"training": {nested}'))
    assert "nested more than 8 levels" in refusal(adapter)


@pytest.mark.parametrize("field", ["{text}", "{text}{nothing}", "{", "{text!r}"])
def test_a_long_template_is_refused_soon_and_not_repeated(field, adapter) -> None:
    template = field * (600_000 // len(field))
    started = time.perf_counter()
    with pytest.raises(ValueError, match="template") as caught:
        fields_of(template)
    assert len(str(caught.value)) < 1000
    change_record(adapter, prompt={"template": template})
    refusal(adapter)
    assert time.perf_counter() - started < 10  # comparing each field with all others took minutes


@pytest.mark.parametrize("changes", [{"base_model_name_or_path": "n" * 20_000}, {"peft_type": "P" * 20_000}])
@pytest.mark.parametrize("other", [{}, {"num_layers": 10**400}, {"num_layers": "9" * 20_000}])
def test_pefts_configuration_has_the_same_limits(changes, other, adapter) -> None:
    (adapter / RECORD_FILE).unlink()
    content = json.loads((adapter / PEFT_FILE).read_text())
    (adapter / PEFT_FILE).write_text(json.dumps(content | changes | other))
    message = refusal(adapter)
    assert any(name in message for name in (*changes, *other)), message
    assert len(message) < 5000


def test_a_version_of_peft_is_not_repeated_whole(adapter) -> None:
    (adapter / RECORD_FILE).unlink()
    content = json.loads((adapter / PEFT_FILE).read_text())
    (adapter / PEFT_FILE).write_text(json.dumps(content | {"peft_version": "9" * 20_000}))
    save_file({"prompt_embeddings": torch.zeros(5, 32)}, adapter / WEIGHTS_FILE)
    assert "no classification head" in refusal(adapter)


def test_tensors_without_number_and_names_without_end_are_refused(adapter, backbone) -> None:
    change_weights(adapter, lambda tensors: tensors | {str(number): torch.zeros(1) for number in range(2000)})
    assert "tensors; at most 1000" in refusal(adapter)
    change_weights(adapter, lambda tensors: dict(list(tensors.items())[-3:]) | {"n" * 50_000: torch.zeros(1)})
    refusal(adapter, backbone("bert"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("name", [RECORD_FILE, PEFT_FILE, WEIGHTS_FILE])
def test_a_named_pipe_in_the_place_of_a_file_is_refused_and_not_waited_for(name, adapter) -> None:
    (adapter / name).unlink()
    os.mkfifo(adapter / name)
    assert f"{name} is not a plain file" in refusal(adapter)


def test_a_folder_in_the_place_of_a_file_is_refused(adapter) -> None:
    (adapter / RECORD_FILE).unlink()
    (adapter / RECORD_FILE).mkdir()
    assert "is not a plain file" in refusal(adapter)


@pytest.mark.parametrize("json_answer", [[], ["--json"]])
def test_label_names_do_not_control_the_terminal(json_answer, adapter, backbone_folder, capfd) -> None:
    change_record(adapter, labels=[ESCAPE, "two\nlines", "\x9b31m"])
    main(["inspect", str(adapter), *json_answer])
    main(["predict", str(adapter), "--text", "a film", "--backbone", str(backbone_folder("bert")), *json_answer])
    printed = "".join(capfd.readouterr())
    assert "\\u001b[2Jred\\u202e" in printed
    assert "two\\nlines" in printed
    assert printed == printable(printed)


def test_rows_on_the_terminal_do_not_control_it(adapter, backbone_folder, tmp_path, capfd) -> None:
    change_record(adapter, labels=[ESCAPE, "two\nlines", "\x9b31m"])
    (tmp_path / "new.csv").write_text("text\na \x9b31m film\n", encoding="utf-8")
    main(["predict", str(adapter), "--input", str(tmp_path / "new.csv"), "--backbone", str(backbone_folder("bert"))])
    out, err = capfd.readouterr()
    assert out + err == printable(out + err)
    assert set(json.loads(out)["scores"]) == {ESCAPE, "two\nlines", "\x9b31m"}


def test_errors_do_not_control_the_terminal(adapter, backbone, capfd) -> None:
    change_record(adapter, labels=[ESCAPE, ESCAPE, "blue"])
    with pytest.raises(ConfigError, match=r"\\u001b") as caught:
        ptune.load(adapter, backbone("bert"))
    assert ESCAPE not in str(caught.value)
    assert len(str(PtuneError("a" * 50_000))) < 20_000


def test_a_label_that_no_adapter_could_store_is_refused_before_training(backbone) -> None:
    with pytest.raises(ConfigError, match="has 20000 characters"):
        ptune.PromptClassifier(backbone("bert"), ptune.PromptConfig(), ["a" * 20_000, "b"])
    with pytest.raises(DataError, match=r"row 2.*a label of 20000 characters"):
        ptune.load_data({"text": ["a", "b"], "label": ["x", "y" * 20_000]})


def test_weights_that_change_while_they_are_read_are_noticed(adapter, backbone) -> None:
    file = read_adapter(adapter)
    path = adapter / WEIGHTS_FILE
    whole = path.read_bytes()
    tensors = file.tensors()
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    path.write_bytes(whole[:200])  # a mapping of the file would now end the process
    assert all(torch.equal(tensors[name], before[name]) for name in before)
    with pytest.raises(AdapterError, match="has changed since its header was read"):
        file.tensors()
    path.write_bytes(whole[:-4] + bytes(4))  # a complete file with other numbers
    with pytest.raises(AdapterError, match="has changed since its header was read"):
        file.tensors()
    path.unlink()
    with pytest.raises(AdapterError, match="cannot be read"):
        file.tensors()


def test_a_state_of_the_trainer_has_the_same_limits(tmp_path, monkeypatch) -> None:
    path = tmp_path / STATE_FILE
    save_file({f"weight {number}": torch.zeros(1) for number in range(1001)}, path)
    with pytest.raises(AdapterError, match="holds 1001 tensors; at most 1000 are expected"):
        read_adapter(tmp_path)
    monkeypatch.setattr("ptune.adapter.reading.MAX_WEIGHTS_BYTES", 100)
    with pytest.raises(AdapterError, match="at most 100 are expected"):
        read_adapter(tmp_path)
