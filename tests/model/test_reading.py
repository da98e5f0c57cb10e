"""Whatever other libraries raise over the files of a backbone becomes one line that says what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ptune.errors import BackboneError
from ptune.model.loading import load_backbone
from ptune.model.locate import Location
from ptune.model.tokenizer import load_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers warns of what it then fails at


@pytest.fixture
def folder(backbone_folder, tmp_path) -> Path:
    """A copy of a backbone that a test may damage."""
    return Path(shutil.copytree(backbone_folder("bert"), tmp_path / "model"))


@pytest.fixture
def configure(folder) -> Callable[..., Path]:
    """Change values of the configuration."""

    def change(**values: object) -> Path:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
        return folder

    return change


def message(folder: Path, **options: object) -> str:
    with pytest.raises(BackboneError) as caught:
        load_backbone(str(folder), device="cpu", **options)
    said = str(caught.value)
    assert f"'{folder}'" in said
    assert "\n" not in said
    return said


@pytest.mark.parametrize("method", ["gptq", "awq", "hqq", "quanto", "eetq", "aqlm", "compressed-tensors"])
def test_quantised_weights_without_their_library(method, configure) -> None:
    settings = {"quant_method": method, "bits": 4, "config_groups": {}}
    said = message(configure(quantization_config=settings))
    assert said.endswith("; install what it needs, or use the model's original weights, which are not quantised")


@pytest.mark.parametrize("random_weights", [False, True])
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"num_attention_heads": 0}, "ZeroDivisionError"),
        ({"num_attention_heads": 5}, "not a multiple"),
        ({"num_attention_heads": "x"}, "'num_attention_heads' expected int"),
        ({"hidden_size": -1}, "negative dimension"),
        ({"hidden_act": "geluu"}, "KeyError: 'geluu'"),
        ({"id2label": 5}, "AttributeError"),
        ({"dtype": "float99"}, "float99"),
        ({"pad_token_id": 99999}, "Padding_idx"),
    ],
)
def test_a_configuration_of_no_model(value, reason, random_weights, configure) -> None:
    said = message(configure(**value), random_weights=random_weights)
    assert reason in said
    assert said.count("expected int") <= 1  # the reason is said once
    assert said.endswith("or of a model that transformers cannot build; download them again, or use another one")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("tokenizer.json", "{", "tokenizer.json is not valid JSON; copy or download it again"),
        ("tokenizer.json", "{}", "download them again, or use another one"),
        ("tokenizer_config.json", "[1]", "download them again, or use another one"),
    ],
)
def test_a_damaged_tokenizer(name, content, said, folder) -> None:
    (folder / name).write_text(content)
    with pytest.raises(BackboneError, match=said):
        load_tokenizer(Location(str(folder), str(folder)))


def test_a_damaged_gguf_file(tmp_path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUFjunk")
    assert "its files are damaged" in message(tmp_path)


@pytest.mark.parametrize("kind", ["PREFIX_TUNING", "LORA"])
def test_an_adapter_beside_a_backbone_is_not_put_on_it(kind, folder) -> None:
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": kind, "task_type": "SEQ_CLS"}))
    assert "also holds an adapter of PEFT (adapter_config.json)" in message(folder)


@pytest.mark.parametrize("name", ["ptune.json", "adapter_config.json"])
def test_an_adapter_is_no_backbone(name, tmp_path) -> None:
    (tmp_path / name).write_text("{}")
    assert f"is an adapter ({name}), not a backbone; give the model that the adapter was trained on" in message(
        tmp_path
    )


def test_an_adapter_on_the_hub_is_no_backbone_either() -> None:
    err = ValueError("`create_and_replace` does not support prompt learning, adaption prompt and shadow yet.")
    said = str(Location("owner/adapter", "owner/adapter").failure(err))
    assert said.startswith("backbone 'owner/adapter' cannot be read: ")
    assert "it is an adapter of PEFT, or holds one; give the model that the adapter was trained on" in said


@pytest.mark.parametrize(
    "error",
    [MemoryError(), torch.OutOfMemoryError("CUDA"), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate")],
)
def test_lack_of_memory_is_not_blamed_on_the_files(error, folder, monkeypatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("transformers.AutoModelForSequenceClassification.from_pretrained", fail)
    assert message(folder) == (
        f"there is not enough memory to read backbone '{folder}'; use `dtype='bfloat16'` or a smaller backbone"
    )
