"""Backbones that OpenVINO computes: the same answers as PyTorch's, one graph for all prompts of an entry, kept."""

from __future__ import annotations

import importlib.util
import logging
import shutil
import sys

import pytest
import torch

from ptune.data.encode import Encoded
from ptune.errors import BackboneError, ConfigError
from ptune.model import openvino as engine
from ptune.model.classifier import PromptClassifier
from ptune.model.config import PromptConfig
from ptune.model.ensemble import PromptEnsemble
from ptune.model.export import Entry, require
from ptune.model.graph_store import FOLDER, GraphStore
from ptune.model.loading import load_backbone
from ptune.model.openvino import CompiledBackbone
from ptune.predict import run_logits

pytestmark = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="needs the extra 'openvino'")

B, T, P, C = 3, 9, 5, 4
LABELS = ["a", "b", "c", "d"]
IDS = torch.randint(4, 40, (B, T), generator=torch.Generator().manual_seed(0))
MASK = torch.tensor([[1] * 9, [1] * 5 + [0] * 4, [1] * 2 + [0] * 7])
SEGMENTS = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 0, 0, 0, 0], [0] * 9])
SHALLOW = {"method": "p-tuning", "encoder_hidden_size": 8}
SHARED = {"method": "deep", "softmax": "shared"}
SEPARATE = {"method": "deep", "softmax": "separate"}
LAST = {"method": "deep", "softmax": "separate", "pooling": "last"}  # each row's head reads another position
PEFT = {"method": "deep", "pooling": "peft"}  # one softmax, and the text's positions count from P on


def classifier(backbone, tokens: int = P, seed: int = 2, **settings) -> PromptClassifier:
    """With weights far from zero, so that every part has a say."""
    model = PromptClassifier(backbone, PromptConfig(virtual_tokens=tokens, **settings), LABELS).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.trainable_state().values():
            tensor.copy_(0.3 * torch.randn(tensor.shape, generator=generator))
    return model


def logits(model, backbone, ids=IDS, mask=MASK, segments=SEGMENTS) -> torch.Tensor:
    """Of a classifier or an ensemble, over another backbone."""
    for member in getattr(model, "members", [model]):
        member.backbone = backbone
    inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": segments}
    with torch.no_grad():
        if isinstance(model, PromptEnsemble):
            return model.member_logits(model.prompt(), **inputs)
        return model(**inputs).logits


ONE_LAYER = {"num_hidden_layers": 1}  # compiles in half the time
CASES = [
    ("bert", {}, SEPARATE),
    ("bert", {}, PEFT),
    ("bert", ONE_LAYER, SHALLOW),
    ("roberta", ONE_LAYER, LAST),
    ("gpt2", {"n_layer": 1}, SHARED),
    ("llama", ONE_LAYER, SEPARATE),  # fewer key-value heads than heads
    ("gemma3_text", ONE_LAYER, SHALLOW),  # its window hides whole rows of padding
    ("mpnet", ONE_LAYER, LAST),  # with a bias for each distance
    ("deberta-v2", ONE_LAYER, LAST),
    ("bloom", {"n_layer": 1}, SEPARATE),
    ("olmo2", ONE_LAYER, SEPARATE),  # outside of the table
]


@pytest.mark.parametrize(("family", "size", "settings"), CASES)
def test_in_fp32_the_logits_are_pytorchs_and_a_row_does_not_depend_on_its_batch_mates(
    family, size, settings, backbone
) -> None:
    plain = backbone(family, **size)
    compiled = CompiledBackbone(plain, "fp32")
    model = classifier(plain, **settings)
    expected = logits(model, plain)
    torch.testing.assert_close(logits(model, compiled), expected, atol=1e-4, rtol=0)
    alone = logits(model, compiled, IDS[1:2, :5], None, SEGMENTS[1:2, :5])
    torch.testing.assert_close(alone, expected[1:2], atol=1e-4, rtol=0)


def test_members_of_an_ensemble_have_their_own_prompts_in_one_pass(backbone) -> None:
    plain = backbone("bert", **ONE_LAYER)
    ensemble = PromptEnsemble([classifier(plain, seed=seed, **SEPARATE) for seed in (2, 3)])
    expected = logits(ensemble, plain)
    assert expected.shape == (2, B, C)
    torch.testing.assert_close(logits(ensemble, CompiledBackbone(plain, "fp32")), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("settings", [SEPARATE, PEFT], ids=["beside the prompt", "behind the prompt"])
def test_text_that_nearly_fills_every_position_is_not_padded_beyond_them(settings, backbone) -> None:
    plain = backbone("bert")
    model = classifier(plain, **settings)
    ids = torch.full((1, (plain.max_positions or 0) - model.config.positions_taken - 1), 7)
    compiled = CompiledBackbone(plain, "fp32")
    torch.testing.assert_close(
        logits(model, compiled, ids, None, None), logits(model, plain, ids, None, None), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("streams", [1, 2])
def test_batches_under_way_side_by_side_give_each_row_its_own_answer(streams, backbone, monkeypatch) -> None:
    monkeypatch.setattr(engine, "_threads", lambda: streams)
    plain = backbone("bert", **ONE_LAYER)
    model = classifier(plain, **SEPARATE)
    rows = [Encoded(IDS[row, : 3 + number % 7].tolist(), None) for number in range(25) for row in range(B)]
    expected = run_logits(model, rows, pad_id=0)
    model.backbone = CompiledBackbone(plain, "fp32")
    for _ in range(2):
        torch.testing.assert_close(run_logits(model, rows, pad_id=0, batch_size=2), expected, atol=1e-4, rtol=0)
    (requests,) = model.backbone._idle.values()
    assert len(requests) == streams + 1


@pytest.mark.parametrize("precision", ["int8", "bf16"])
def test_fewer_bits_give_nearly_the_same_states(precision, backbone) -> None:
    if precision == "bf16" and not engine.has_amx():
        pytest.skip("no AMX")
    plain = backbone("bert")
    prompt = classifier(plain, **SEPARATE).prompt().detach()
    with torch.no_grad():
        expected = plain(IDS, MASK, SEGMENTS, prompt, separate=True)
        found = CompiledBackbone(plain, precision)(IDS, MASK, SEGMENTS, prompt, separate=True)
    error = (found.states - expected.states)[MASK.bool()].abs().mean()
    assert 1e-5 < error < 0.1  # states have a deviation of 1
    assert found.offset == 0
    assert found.pooler_output.shape == expected.pooler_output.shape


def test_all_prompts_of_an_entry_use_one_graph_and_the_next_process_finds_it(
    backbone_folder, tmp_path, monkeypatch
) -> None:
    source = backbone_folder("bert", **ONE_LAYER)
    shutil.copytree(source, tmp_path / "bert", ignore=shutil.ignore_patterns(FOLDER))
    plain = load_backbone(str(tmp_path / "bert"), device="cpu")
    exported = []
    export = engine.export_graph
    monkeypatch.setattr(engine, "export_graph", lambda *it: exported.append(it[1].name) or export(*it))
    compiled = CompiledBackbone(plain, "fp32")
    for tokens, seed in ((3, 1), (6, 2)):
        model = classifier(plain, tokens, seed, **SEPARATE)
        torch.testing.assert_close(logits(model, compiled), logits(model, plain), atol=1e-4, rtol=0)
    again = CompiledBackbone(load_backbone(str(tmp_path / "bert"), device="cpu"), "fp32")
    torch.testing.assert_close(logits(model, again), logits(model, plain), atol=1e-4, rtol=0)
    assert exported == ["separate"]
    assert [path.name.rsplit("-", 1)[0] for path in (tmp_path / "bert" / FOLDER).iterdir()] == ["bert-separate-float32"]


@pytest.fixture
def graph():
    """A small graph of OpenVINO's."""
    openvino = require("openvino")
    number = openvino.opset13.parameter([64], name="number")
    weights = openvino.opset13.constant(torch.rand(64).numpy())
    return openvino.Model([openvino.opset13.add(number, weights)], [number], "sum")


@pytest.fixture
def copy(backbone_folder, tmp_path):
    """A tiny backbone in a folder of its own."""
    folder = tmp_path / "bert"
    shutil.copytree(backbone_folder("bert"), folder, ignore=shutil.ignore_patterns(FOLDER))
    return load_backbone(str(folder), device="cpu")


ENTRY = Entry(shallow=True)


def test_a_graph_is_of_these_weights_this_entry_and_this_kind(copy, graph) -> None:
    store = GraphStore(copy, "int8")
    store.write(graph, ENTRY)
    assert store.read(ENTRY).get_friendly_name() == "sum"
    assert store.read(Entry(shallow=False)) is None
    assert GraphStore(copy, "float32").read(ENTRY) is None
    with torch.no_grad():
        list(copy.base.parameters())[-1].add_(1)  # not among what the backbone's fingerprint sees
    assert GraphStore(copy, "int8").read(ENTRY) is None


def test_where_the_backbones_folder_takes_nothing_the_cache_folder_does(copy, graph, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PTUNE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "bert" / FOLDER).write_text("a file, so no folder")
    GraphStore(copy, "int8").write(graph, ENTRY)
    assert GraphStore(copy, "int8").read(ENTRY) is not None
    assert len(list((tmp_path / "cache" / FOLDER).iterdir())) == 1


def test_where_no_folder_takes_a_graph_that_is_said(copy, graph, tmp_path, monkeypatch, caplog) -> None:
    for name in ("cache", f"bert/{FOLDER}"):
        (tmp_path / name).write_text("a file, so no folder")
    monkeypatch.setenv("PTUNE_CACHE", str(tmp_path / "cache"))
    GraphStore(copy, "int8").write(graph, ENTRY)
    assert "PTUNE_CACHE" in caplog.text


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_text("<net>"),
        lambda file: file.with_suffix(".bin").unlink(),
        lambda file: file.with_suffix(".bin").write_bytes(b"\0" * 16),
    ],
    ids=["no graph", "no weights", "cut weights"],
)
def test_a_damaged_graph_is_made_again(damage, copy, graph, tmp_path, caplog) -> None:
    store = GraphStore(copy, "int8")
    store.write(graph, ENTRY)
    (file,) = (tmp_path / "bert" / FOLDER).rglob("graph.xml")
    damage(file)
    with caplog.at_level(logging.WARNING, "ptune"):
        assert store.read(ENTRY) is None
    assert "graph.xml' cannot be read; it is made again" in caplog.text
    store.write(graph, ENTRY)
    assert store.read(ENTRY) is not None
    assert [path.name for path in file.parent.parent.iterdir()] == [file.parent.name]  # nothing half-written is left


@pytest.mark.parametrize("library", ["openvino", "nncf"])
def test_a_missing_library_is_named_with_its_extra(library, backbone, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigError, match=rf"{library}, which is not installed; pip install 'ptune\[openvino\]'"):
        CompiledBackbone(backbone("bert"), "int8")


def test_the_libraries_send_nothing_over_the_network() -> None:
    require("openvino")
    require("nncf")
    assert sys.modules["openvino_telemetry"] is None


def test_what_is_not_float32_on_the_cpu_is_refused(backbone_folder) -> None:
    with pytest.raises(ConfigError, match="loaded as bfloat16 on cpu; leave --dtype and --device out"):
        CompiledBackbone(load_backbone(str(backbone_folder("bert")), dtype="bfloat16", device="cpu"), "int8")


def test_bf16_needs_amx_and_for_gated_layers_two_threads(backbone, monkeypatch) -> None:
    monkeypatch.setattr(engine, "has_amx", lambda: False)
    with pytest.raises(ConfigError, match="needs a CPU with AMX"):
        CompiledBackbone(backbone("bert"), "bf16")
    monkeypatch.setattr(engine, "has_amx", lambda: True)
    plain = backbone("llama", **ONE_LAYER)
    with pytest.raises(ConfigError, match="two threads for a Llama, SmolLM, SmolLM2 backbone"):
        logits(classifier(plain, **SEPARATE), CompiledBackbone(plain, "bf16"))


def test_where_the_head_reads_one_position_the_last_layer_is_computed_there_alone(backbone) -> None:
    plain = backbone("roberta", **ONE_LAYER)
    model = classifier(plain, **LAST)
    with torch.no_grad():
        hidden = CompiledBackbone(plain, "fp32")(
            IDS, MASK, None, model.prompt(), separate=True, read=MASK.sum(dim=1) - 1
        )
    assert hidden.picked
    assert hidden.states.shape == (B, 1, plain.width)


def test_there_are_no_gradients(backbone) -> None:
    plain = backbone("bert")
    prompt = classifier(plain, **SEPARATE).prompt()
    with pytest.raises(ConfigError, match="train without a precision"):
        CompiledBackbone(plain, "fp32")(IDS, MASK, SEGMENTS, prompt, separate=True)


def test_a_family_that_cannot_be_compiled_says_so(backbone) -> None:
    plain = backbone("bloom", n_layer=1)
    model = classifier(plain, **SHARED)
    with pytest.raises(BackboneError, match=r"BLOOM with shared prompts .* leave --precision out"):
        logits(model, CompiledBackbone(plain, "fp32"))


def test_an_unknown_precision_is_named_with_those_that_there_are(backbone) -> None:
    with pytest.raises(ConfigError, match="'int4' is not known; use one of fp32, bf16, int8"):
        CompiledBackbone(backbone("bert"), "int4")


def test_a_backbone_without_a_pooler_has_one_graph(language_model_folder) -> None:
    # Its pooler is drawn anew at each loading, and no graph has a part of it.
    one, two = (load_backbone(str(language_model_folder("bert"))) for _ in range(2))
    assert one.pooler_missing
    assert not torch.equal(one.base.pooler.dense.weight, two.base.pooler.dense.weight)
    entry = Entry.of(torch.zeros(2, 2, 3, 32), False, True, False)
    assert GraphStore(one, "int8")._name(entry) == GraphStore(two, "int8")._name(entry)
