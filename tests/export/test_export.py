"""Exported folders: what is in them, and that the lines of their README answer as the classifier, without torch."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ptune
from ptune.adapter.folder import save_adapter
from ptune.adapter.layout import Record
from ptune.cli import main
from ptune.data.targets import MULTI, SINGLE
from ptune.errors import BackboneError, ConfigError
from ptune.export import to_onnx, to_openvino, write
from ptune.export.check import Check
from ptune.export.tokenizer import encode, plain_tokenizer
from ptune.export.write import export_model
from ptune.inference.classifier import TextClassifier
from ptune.model.decision import Decision

needs_onnx = pytest.mark.skipif(importlib.util.find_spec("onnxscript") is None, reason="needs the extra 'onnx'")
needs_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="needs the extra 'openvino'")
TEXTS = ["a good film", "", "bad", "the plot starts slow and ends well and " * 20, "fine cast"]
PAIRS = [(text, TEXTS[-1 - number]) for number, text in enumerate(TEXTS)]
# Runs the lines of a README with other texts, where nothing may import torch, transformers or ptune.
PROGRAM = """
import json, re, sys
for name in json.loads(sys.argv[2]):
    sys.modules[name] = None
code = re.search("```python\\n(.*?)```", open("README.md", encoding="utf-8").read(), re.S)[1]
texts = [tuple(text) if isinstance(text, list) else text for text in json.loads(sys.argv[1])]
code = re.sub("^texts = .*$", lambda _: f"texts = {texts!r}", code, count=1, flags=re.M)
names = {}
exec(code, names)
print(json.dumps(names["logits"].tolist()))
"""


@dataclass
class Exported:
    """A classifier, the folder it was exported to, and what the command said."""

    classifier: TextClassifier
    folder: Path
    answer: dict[str, Any]
    texts: list[Any]

    @property
    def readme(self) -> str:
        return (self.folder / "README.md").read_text(encoding="utf-8")

    @property
    def config(self) -> dict[str, Any]:
        return json.loads((self.folder / "config.json").read_text(encoding="utf-8"))

    def run(self, allowed: tuple[str, ...] = ()) -> tuple[list[str], torch.Tensor]:
        """Return what the README's lines print, and the logits."""
        blocked = [name for name in ("torch", "transformers", "ptune") if name not in allowed]
        arguments = [sys.executable, "-c", PROGRAM, json.dumps(self.texts), json.dumps(blocked)]
        done = subprocess.run(arguments, capture_output=True, text=True, check=False, cwd=self.folder)
        assert done.returncode == 0, done.stderr
        *printed, logits = done.stdout.splitlines()
        return printed, torch.tensor(json.loads(logits))

    def expected(self) -> torch.Tensor:
        paired = isinstance(self.texts[0], tuple)
        first, second = zip(*self.texts, strict=True) if paired else (self.texts, None)
        logits = self.classifier.logits(list(first), None if second is None else list(second))
        return logits / self.classifier.temperature


def export(make, folder, to: str, *options: str, family: str = "bert", **settings: Any) -> Exported:
    """Save a classifier as an adapter, and export that by the command."""
    classifier = make(family, **settings)
    encoder = classifier.encoder
    record = Record.of(
        classifier.model, classifier.task, max_length=encoder.max_length, pair_separator=encoder.pair_separator
    )
    save_adapter(folder / "adapter", classifier.model, record)
    said: list[dict[str, Any]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ptune.cli.terminal.Terminal.answer", lambda _, content: said.append(dict(content)))
        main(["export", str(folder / "adapter"), "--output", str(folder / "out"), "--to", to, *options])
    return Exported(classifier, folder / "out", said[0], PAIRS if settings.get("pairs") else TEXTS)


@pytest.fixture(scope="module")
def onnx(make, tmp_path_factory) -> Exported:
    """Pairs that are compared, calibrated."""
    settings = {"pairs": True, "pooling": "pair", "max_length": 30, "task": {"temperature": 1.7}}
    return export(make, tmp_path_factory.mktemp("onnx"), "onnx", family="bert with segments", **settings)


@pytest.fixture(scope="module")
def openvino(make, tmp_path_factory) -> Exported:
    """Several labels, with thresholds, of a decoder whose tokenizer gives no token for an empty text."""
    task = {"decision": Decision((0.3, 0.6, 0.5), at_least_one=True)}
    settings = {"problem_type": MULTI, "task": task, "max_length": 20}
    return export(make, tmp_path_factory.mktemp("openvino"), "openvino", family="llama", **settings)


@pytest.fixture(scope="module")
def program(make, tmp_path_factory) -> Exported:
    """A regression by an ensemble with a template."""
    settings = {"members": 2, "problem_type": "regression", "template": "a {{film}}: {text} it ends", "max_length": 14}
    return export(make, tmp_path_factory.mktemp("torch"), "torch", **settings)


@needs_onnx
def test_onnx_answers_without_torch(onnx) -> None:
    printed, logits = onnx.run()
    torch.testing.assert_close(logits, onnx.expected(), rtol=0, atol=1e-4)
    predictions = onnx.classifier.predict(onnx.texts)
    assert [line.split()[0] for line in printed] == [prediction["label"] for prediction in predictions]
    assert [float(line.split()[1]) for line in printed] == pytest.approx([each["score"] for each in predictions])


@needs_onnx
def test_onnx_has_the_layout_of_optimum(onnx) -> None:
    from transformers import AutoConfig, AutoTokenizer

    assert onnx.answer["files"] == ["README.md", "config.json", "model.onnx", "tokenizer.json", "tokenizer_config.json"]
    config = AutoConfig.from_pretrained(onnx.folder)
    assert config.id2label == {0: "a", 1: "b", 2: "c"}
    assert config.problem_type == SINGLE
    assert config.architectures == ["BertForSequenceClassification"]
    settings = json.loads((onnx.folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"  # optimum runs with transformers 4
    tokenizer = AutoTokenizer.from_pretrained(onnx.folder)
    assert set(tokenizer("a")) == {"input_ids", "token_type_ids", "attention_mask"}
    (row,) = onnx.classifier.encoder.encode([TEXTS[3]], ["bad plot"])
    assert tokenizer(TEXTS[3], "bad plot", truncation=True)["input_ids"] == row.ids
    for path in onnx.folder.iterdir():
        assert str(onnx.folder.parent.parent).encode() not in path.read_bytes(), path


@needs_onnx
def test_the_inputs_of_onnx_have_any_number_of_rows_and_tokens(onnx) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx.folder / "model.onnx")
    assert [(each.name, each.shape) for each in session.get_inputs()] == [
        (name, ["batch", "length"]) for name in ("input_ids", "attention_mask", "token_type_ids")
    ]
    assert [(each.name, each.shape) for each in session.get_outputs()] == [("logits", ["batch", 3])]
    assert onnx.answer["inputs"] == ["input_ids", "attention_mask", "token_type_ids"]
    assert onnx.answer["check"]["difference"] < 1e-4
    assert onnx.answer["check"]["agreeing"] == onnx.answer["check"]["texts"] == 48


@needs_onnx
def test_the_readme_says_what_is_inside(onnx) -> None:
    assert "one label for each pair of texts" in onnx.readme
    assert "the learned prompt, the head and the temperature that calibrates its probabilities" in onnx.readme
    assert "any length up to 30 tokens" in onnx.readme
    assert onnx.config["ptune"]["pairs"] is True
    assert onnx.config["ptune"]["temperature"] == 1.7


@needs_onnx
def test_int8_of_onnx_keeps_what_was_learned_in_full(onnx, tmp_path) -> None:
    import onnx as library

    shutil.copy(onnx.folder / "model.onnx", tmp_path)
    to_onnx._quantize(tmp_path / "model.onnx")
    weights = library.load(tmp_path / "model.onnx").graph.initializer
    of_8_bits = [weight for weight in weights if weight.data_type == library.TensorProto.INT8]
    assert len(of_8_bits) >= 4  # queries, keys and values; the output of attention; two of the feed-forward network
    assert any("heads" in weight.name for weight in weights if weight.data_type == library.TensorProto.FLOAT)
    difference = np.abs(answer(onnx, to_onnx.open_model(tmp_path)) - answer(onnx, to_onnx.open_model(onnx.folder)))
    assert 0 < difference.max() < 0.5


def answer(exported: Exported, run: Any) -> np.ndarray:
    """Return the logits of one row."""
    names = exported.answer["inputs"]
    return np.array(run(encode(plain_tokenizer(exported.folder), exported.texts[:1], names)))


@needs_openvino
def test_openvino_answers_without_torch(openvino) -> None:
    printed, logits = openvino.run()
    torch.testing.assert_close(logits, openvino.expected(), rtol=0, atol=1e-4)
    predictions = openvino.classifier.predict(openvino.texts)
    assert [json.loads(line.replace("'", '"')) for line in printed] == [each["labels"] for each in predictions]


@needs_openvino
def test_the_thresholds_are_in_the_config_and_the_readme(openvino) -> None:
    section = openvino.config["ptune"]
    assert section["thresholds"] == {"a": 0.3, "b": 0.6, "c": 0.5}
    assert section["at_least_one"] is True
    assert "`a` 0.3, `b` 0.6, `c` 0.5; where none applies, the most probable label does" in openvino.readme
    assert "A pipeline does not apply the thresholds by itself." in openvino.readme
    assert {"openvino_model.xml", "openvino_model.bin"} <= set(openvino.answer["files"])


@needs_openvino
def test_int8_of_openvino_is_close(openvino, tmp_path) -> None:
    import openvino as library

    to_openvino._save(library.Core().read_model(openvino.folder / "openvino_model.xml"), tmp_path, int8=True)
    bytes_of = [(folder / "openvino_model.bin").stat().st_size for folder in (tmp_path, openvino.folder)]
    assert bytes_of[0] < 0.5 * bytes_of[1]
    small, exact = (answer(openvino, to_openvino.open_model(folder)) for folder in (tmp_path, openvino.folder))
    assert 0 < np.abs(small - exact).max() < 0.5


def test_the_check_says_what_it_found() -> None:
    assert Check(48, 0.0123, 47).sentence(int8=True) == (
        "for 47 of 48 texts of random words the answer is that of the original; "
        "the largest difference of logits is 0.012"
    )
    assert Check(48, 1.26e-6, 48).sentence(int8=False) == (
        "on 48 texts of random words, the largest difference of logits is 1.3e-06"
    )
    assert Check(48, 0.5, None).sentence(int8=True).endswith("the largest difference of values is 0.5")


@pytest.mark.long
@needs_openvino
def test_int8_says_how_many_answers_agree(make, tmp_path, capsys) -> None:
    export(make, tmp_path, "openvino", "--int8", family="roberta")
    out = capsys.readouterr().out
    assert re.search(r"check: for \d+ of 48 texts of random words the answer is that of the original; the largest", out)
    readme = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "the weights of the linear layers have 8 bits" in readme


@pytest.mark.long
def test_a_program_of_torch_answers_without_transformers(program) -> None:
    printed, values = program.run(allowed=("torch",))
    torch.testing.assert_close(values, program.expected(), rtol=0, atol=1e-4)
    assert len(printed) == 1
    assert "'a {{film}}: {text} it ends'" in program.readme
    assert "2 learned prompts with their heads and the rule that combines them" in program.readme
    assert program.config["ptune"]["template"] == "a {{film}}: {text} it ends"


def test_a_program_of_torch_has_no_pickle(program) -> None:
    with zipfile.ZipFile(program.folder / "model.pt2") as archive:
        contents = [archive.read(entry) for entry in archive.infolist() if "weights/weight" not in entry.filename]
    assert len(contents) > 5
    assert not any(content.startswith((b"PK", b"\x80")) for content in contents)


def test_an_export_that_fails_the_check_leaves_nothing(make, tmp_path, monkeypatch) -> None:
    def refuse(*_):
        raise BackboneError("the model does not answer as the adapter does")

    stub_torch(monkeypatch)
    monkeypatch.setattr(write, "check_model", refuse)
    with pytest.raises(BackboneError, match="does not answer"):
        export_model(make("bert"), tmp_path / "new" / "out", "torch")
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_cannot_be_traced_is_named(make, tmp_path, monkeypatch) -> None:
    def fail(*_, **__):
        raise RuntimeError("a step that depends on the data")

    monkeypatch.setattr("torch.export.export", fail)
    with pytest.raises(BackboneError, match=r"BERT \(backbone .*\) cannot be exported to torch: its code has steps"):
        export_model(make("bert"), tmp_path / "out", "torch")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--to", "torch", "--int8"], "--int8 is for --to onnx and --to openvino; leave it out"),
        (["--to", "peft", "--int8"], "--int8 is for an export to another runtime; leave it out, or give --to onnx"),
        (["--to", "peft", "--labels", "a,b"], "hold neither labels nor problem type; leave --labels out"),
        (["--to", "onnxx"], 'Invalid value "onnxx" for --to'),
        (["--to", "torch", "--output", "full"], "folder 'full' holds other files than an exported model's; give a new"),
        (["--to", "torch", "--output", "full/notes.txt"], "'full/notes.txt' is a file; give the name of a folder"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_loaded(options, message, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    with pytest.raises(SystemExit) as caught:
        main(["export", "no-adapter", *(options if "--output" in options else [*options, "--output", "out"])])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("to", "package"), [("onnx", "onnxscript"), ("openvino", "openvino")])
def test_a_missing_package_is_named_with_its_extra(to, package, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SystemExit):
        main(["export", "no-adapter", str(tmp_path / "out"), "--to", to])
    message = f"--to {to} needs the package {package}, which is not installed; pip install 'ptune[{to}]'"
    assert message in capsys.readouterr().err


def test_an_exported_model_is_replaced_only_if_asked(program, tmp_path, monkeypatch, capsys) -> None:
    adapter, folder = program.folder.parent / "adapter", tmp_path / "out"
    shutil.copytree(program.folder, folder)
    with pytest.raises(SystemExit):
        main(["export", str(adapter), str(folder), "--to", "torch"])
    assert "holds an exported model already; give another folder, or --overwrite" in capsys.readouterr().err
    stub_torch(monkeypatch)
    (folder / "model.onnx").touch()
    with pytest.raises(SystemExit):
        main(["export", str(adapter), str(folder), "--to", "torch", "--overwrite"])
    assert "also holds files that are not of an exported model: model.onnx; move them" in capsys.readouterr().err
    config = json.loads((folder / "config.json").read_text())
    config["ptune"]["files"].append("model.onnx")  # as if it were of an older export to another format
    (folder / "config.json").write_text(json.dumps(config))
    main(["export", str(adapter), str(folder), "--to", "torch", "--overwrite"])
    assert (folder / "model.pt2").stat().st_size == 0
    assert not (folder / "model.onnx").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def stub_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an export to torch write an empty file, which passes the check."""
    monkeypatch.setattr(write, "trace", lambda *_: None)
    monkeypatch.setattr("ptune.export.to_torch.write", lambda _, __, folder, ___: (folder / "model.pt2").touch())
    monkeypatch.setattr("ptune.export.to_torch.open_model", lambda _: None)
    monkeypatch.setattr(write, "check_model", lambda *_: Check(48, 0.0, 48))


def test_a_classifier_that_is_not_in_float32_is_refused(make, tmp_path) -> None:
    classifier = make("bert")
    classifier = replace(classifier, model=ptune.PromptClassifier(half(classifier), ptune.PromptConfig(), ["a", "b"]))
    with pytest.raises(ConfigError, match="is in bfloat16 on cpu; load the adapter with `dtype='float32'`"):
        export_model(classifier, tmp_path / "out", "torch")


def half(classifier):
    """The classifier's backbone, loaded in bfloat16."""
    return ptune.load_backbone(classifier.model.backbone.location.path, device="cpu", dtype="bfloat16")


FAMILIES = "roberta distilbert electra albert mpnet deberta-v2 modernbert bloom gpt2 llama qwen3".split()


@pytest.mark.long
@pytest.mark.parametrize("to", ["onnx", "openvino", "torch"])
@pytest.mark.parametrize("family", FAMILIES)
def test_families_are_exported(family, to, make, tmp_path) -> None:
    assert export_model(make(family), tmp_path / "out", to).check.difference < 1e-4
