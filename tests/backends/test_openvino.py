"""Backbones run by OpenVINO: the same results as PyTorch, and one stored graph for all prompts of an entry."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import ptune
from ptune.backends.export import Variant, export_graph, require, variant_of
from ptune.backends.openvino import backbone as engine
from ptune.backends.openvino.backbone import CompiledBackbone
from ptune.backends.openvino.quantize import quantize_graph
from ptune.backends.openvino.store import FOLDER, SOURCES, GraphStore
from ptune.data.batch import Inputs
from ptune.data.encode import Encoded
from ptune.errors import BackboneError, ConfigError
from ptune.inference.engine import run_logits
from ptune.model.classifier import PromptClassifier
from ptune.model.config import PromptConfig
from ptune.model.ensemble import PromptEnsemble
from ptune.model.entry import Entry
from ptune.model.loading import load_backbone
from ptune.serving.backbones import load_backbones

pytestmark = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="needs the extra 'openvino'")

B, T, P, C = 3, 9, 5, 4
LABELS = ["a", "b", "c", "d"]
IDS = torch.randint(4, 40, (B, T), generator=torch.Generator().manual_seed(0))
MASK = torch.tensor([[1] * 9, [1] * 5 + [0] * 4, [1] * 2 + [0] * 7])
SEGMENTS = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 0, 0, 0, 0], [0] * 9])
SHALLOW = {"method": "p-tuning", "encoder_hidden_size": 8}
SHARED = {"method": "deep", "softmax": "shared"}
SEPARATE = {"method": "deep", "softmax": "separate"}
LAST = {"method": "deep", "softmax": "separate", "pooling": "last"}  # the head reads a different position in each row
PEFT = {"method": "deep", "pooling": "peft"}  # one softmax; the text's positions start at P


def classifier(backbone, tokens: int = P, seed: int = 2, **settings) -> PromptClassifier:
    """Return a classifier with weights far from zero, so that every part of it affects the logits."""
    model = PromptClassifier(backbone, PromptConfig(virtual_tokens=tokens, **settings), LABELS).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.trainable_state().values():
            tensor.copy_(0.3 * torch.randn(tensor.shape, generator=generator))
    return model


def logits(model, backbone, ids=IDS, mask=MASK, segments=SEGMENTS) -> torch.Tensor:
    """Return the logits of a classifier or an ensemble on another backbone."""
    for member in getattr(model, "members", [model]):
        member.backbone = backbone
    with torch.no_grad():
        if isinstance(model, PromptEnsemble):
            return model.member_logits(model.prompts(), Inputs(ids, mask, segments))
        return model(input_ids=ids, attention_mask=mask, token_type_ids=segments).logits


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
def test_in_fp32_the_logits_equal_pytorchs_and_do_not_depend_on_the_rest_of_the_batch(
    family, size, settings, backbone
) -> None:
    plain = backbone(family, **size)
    compiled = CompiledBackbone(plain, "fp32")
    model = classifier(plain, **settings)
    expected = logits(model, plain)
    torch.testing.assert_close(logits(model, compiled), expected, atol=1e-4, rtol=0)
    alone = logits(model, compiled, IDS[1:2, :5], None, SEGMENTS[1:2, :5])
    torch.testing.assert_close(alone, expected[1:2], atol=1e-4, rtol=0)


def test_an_ensembles_members_share_one_pass_with_different_prompts(backbone) -> None:
    plain = backbone("bert", **ONE_LAYER)
    ensemble = PromptEnsemble([classifier(plain, seed=seed, **SEPARATE) for seed in (2, 3)])
    expected = logits(ensemble, plain)
    assert expected.shape == (2, B, C)
    torch.testing.assert_close(logits(ensemble, CompiledBackbone(plain, "fp32")), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("settings", [SEPARATE, PEFT], ids=["beside the prompt", "behind the prompt"])
def test_text_is_not_padded_beyond_the_backbones_positions(settings, backbone) -> None:
    plain = backbone("bert")
    model = classifier(plain, **settings)
    ids = torch.full((1, (plain.max_positions or 0) - model.config.positions_taken - 1), 7)
    compiled = CompiledBackbone(plain, "fp32")
    torch.testing.assert_close(
        logits(model, compiled, ids, None, None), logits(model, plain, ids, None, None), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("streams", [1, 2])
def test_batches_computed_in_parallel_give_each_row_its_own_logits(streams, backbone, monkeypatch) -> None:
    monkeypatch.setattr(engine, "_threads", lambda: streams)
    plain = backbone("bert", **ONE_LAYER)
    model = classifier(plain, **SEPARATE)
    rows = [Encoded(IDS[row, : 3 + number % 7].tolist(), None) for number in range(25) for row in range(B)]
    expected = run_logits(model, rows, pad_id=0)
    model.backbone = CompiledBackbone(plain, "fp32")
    started, finished, most = 0, 0, []
    start = CompiledBackbone.start

    def counted(self, *arguments):
        nonlocal started
        started += 1
        most.append(started - finished)
        pending = start(self, *arguments)

        def count(hidden):
            nonlocal finished
            finished += 1
            return hidden

        return pending.then(count)

    monkeypatch.setattr(CompiledBackbone, "start", counted)
    for _ in range(2):
        torch.testing.assert_close(run_logits(model, rows, pad_id=0, batch_size=2), expected, atol=1e-4, rtol=0)
    assert (started, max(most)) == (76, streams + 1)


@pytest.mark.parametrize("precision", ["int8", "bf16"])
def test_fewer_bits_give_nearly_the_same_states(precision, backbone) -> None:
    if precision == "bf16" and not engine.has_amx():
        pytest.skip("no AMX")
    plain = backbone("bert")
    prompt = classifier(plain, **SEPARATE).prompt().detach()
    with torch.no_grad():
        text, entry = Inputs(IDS, MASK, SEGMENTS), Entry("separate")
        expected = plain(text, prompt, entry)
        found = CompiledBackbone(plain, precision)(text, prompt, entry)
    error = (found.states - expected.states)[MASK.bool()].abs().mean()
    assert 1e-5 < error < 0.1  # states have a deviation of 1
    assert found.offset == 0
    assert found.pooler_output.shape == expected.pooler_output.shape


def test_all_prompts_of_an_entry_use_one_graph_which_is_stored(backbone_folder, tmp_path, monkeypatch) -> None:
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
    """A small OpenVINO graph."""
    openvino = require("openvino")
    number = openvino.opset13.parameter([64], name="number")
    weights = openvino.opset13.constant(torch.rand(64).numpy())
    return openvino.Model([openvino.opset13.add(number, weights)], [number], "sum")


@pytest.fixture
def copy(backbone_folder, tmp_path):
    """A tiny backbone in a separate folder."""
    folder = tmp_path / "bert"
    shutil.copytree(backbone_folder("bert"), folder, ignore=shutil.ignore_patterns(FOLDER))
    return load_backbone(str(folder), device="cpu")


VARIANT = Variant(Entry("input"))


def test_a_graph_is_stored_for_its_weights_entry_and_kind(copy, graph) -> None:
    store = GraphStore(copy, "int8")
    store.write(graph, VARIANT)
    assert store.read(VARIANT).get_friendly_name() == "sum"
    assert store.read(Variant(Entry("shared"))) is None
    assert GraphStore(copy, "float32").read(VARIANT) is None
    with torch.no_grad():
        list(copy.base.parameters())[-1].add_(1)  # not among what the backbone's fingerprint sees
    assert GraphStore(copy, "int8").read(VARIANT) is None


def test_graphs_are_stored_in_the_cache_folder_if_the_backbones_folder_cannot_be_written(
    copy, graph, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("PTUNE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "bert" / FOLDER).write_text("a file, so no folder")
    GraphStore(copy, "int8").write(graph, VARIANT)
    assert GraphStore(copy, "int8").read(VARIANT) is not None
    assert len(list((tmp_path / "cache" / FOLDER).iterdir())) == 1


def test_a_warning_says_that_a_graph_cannot_be_stored(copy, graph, tmp_path, monkeypatch, caplog) -> None:
    for name in ("cache", f"bert/{FOLDER}"):
        (tmp_path / name).write_text("a file, so no folder")
    monkeypatch.setenv("PTUNE_CACHE", str(tmp_path / "cache"))
    GraphStore(copy, "int8").write(graph, VARIANT)
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
def test_a_damaged_graph_is_built_again(damage, copy, graph, tmp_path, caplog) -> None:
    store = GraphStore(copy, "int8")
    store.write(graph, VARIANT)
    (file,) = (tmp_path / "bert" / FOLDER).rglob("graph.xml")
    damage(file)
    with caplog.at_level(logging.WARNING, "ptune"):
        assert store.read(VARIANT) is None
    assert "graph.xml' cannot be read; it will be built again" in caplog.text
    store.write(graph, VARIANT)
    assert store.read(VARIANT) is not None
    assert [path.name for path in file.parent.parent.iterdir()] == [file.parent.name]  # no temporary folder is left


@pytest.mark.parametrize("library", ["openvino", "nncf"])
def test_the_error_about_a_missing_library_names_its_extra(library, backbone, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigError, match=rf"{library}, which is not installed; pip install 'ptune\[openvino\]'"):
        CompiledBackbone(backbone("bert"), "int8")


def test_the_libraries_send_nothing_over_the_network() -> None:
    require("openvino")
    require("nncf")
    assert sys.modules["openvino_telemetry"] is None


def test_a_backbone_that_is_not_float32_on_the_cpu_is_refused(backbone_folder) -> None:
    with pytest.raises(ConfigError, match="loaded as bfloat16 on cpu; load it with `dtype='float32'`"):
        CompiledBackbone(load_backbone(str(backbone_folder("bert")), dtype="bfloat16", device="cpu"), "int8")


def test_bf16_needs_amx_and_for_gated_layers_two_threads(backbone, monkeypatch) -> None:
    monkeypatch.setattr(engine, "has_amx", lambda: False)
    with pytest.raises(ConfigError, match="needs a CPU with AMX"):
        CompiledBackbone(backbone("bert"), "bf16")
    monkeypatch.setattr(engine, "has_amx", lambda: True)
    plain = backbone("llama", **ONE_LAYER)
    with pytest.raises(ConfigError, match="two threads for a Llama, SmolLM, SmolLM2 backbone"):
        logits(classifier(plain, **SEPARATE), CompiledBackbone(plain, "bf16"))


def test_the_last_layer_is_computed_only_at_the_position_that_the_head_reads(backbone) -> None:
    plain = backbone("roberta", **ONE_LAYER)
    model = classifier(plain, **LAST)
    with torch.no_grad():
        last = MASK.sum(dim=1) - 1
        hidden = CompiledBackbone(plain, "fp32")(Inputs(IDS, MASK), model.prompt(), Entry("separate"), last)
    assert hidden.picked
    assert hidden.states.shape == (B, 1, plain.width)


def test_there_are_no_gradients(backbone) -> None:
    plain = backbone("bert")
    prompt = classifier(plain, **SEPARATE).prompt()
    with pytest.raises(ConfigError, match="train without `precision`"):
        CompiledBackbone(plain, "fp32")(Inputs(IDS, MASK, SEGMENTS), prompt, Entry("separate"))


@pytest.mark.parametrize("family", ["bert", "distilbert", "gpt2"])
def test_other_threads_see_the_weights_while_a_graph_is_traced(family, backbone, monkeypatch) -> None:
    """A trace replaces the weights of its module, and a server loads adapters meanwhile."""
    traced = backbone(family)
    fingerprint, seen, export = traced.fingerprint(), [], torch.export.export

    def watch(module, *rest, **options):
        forward = type(module).forward

        def look(self, *inputs):
            with ThreadPoolExecutor(1) as other:
                seen.append(other.submit(traced.fingerprint).result())
                other.submit(lambda: [torch.equal(value, value) for value in traced.parameters()]).result()
            return forward(self, *inputs)

        monkeypatch.setattr(type(module), "forward", look)
        return export(module, *rest, **options)

    monkeypatch.setattr(torch.export, "export", watch)
    memory = [value.data_ptr() for value in traced.parameters()]
    export_graph(traced, Variant(classifier(traced, **SHALLOW).entry))
    assert seen
    assert set(seen) == {fingerprint}
    assert [value.data_ptr() for value in traced.parameters()] == memory


def test_an_adapter_is_made_while_another_thread_traces_a_graph(backbone, monkeypatch) -> None:
    """torch.manual_seed would take a note away that the trace needs."""
    shared = backbone("bert")
    monkeypatch.setattr(torch, "manual_seed", None)
    first, second = (PromptClassifier(shared, PromptConfig(virtual_tokens=P), LABELS) for _ in range(2))
    assert all(torch.equal(value, second.trainable_state()[name]) for name, value in first.trainable_state().items())


def test_the_generators_of_other_devices_are_set_too(backbone_folder, monkeypatch) -> None:
    """The heads of transformers are drawn on the backbone's device."""
    elsewhere, seeds = load_backbone(str(backbone_folder("bert")), dtype="float32").to("meta"), []
    monkeypatch.setattr(torch, "manual_seed", seeds.append)
    PromptClassifier(elsewhere, PromptConfig(virtual_tokens=P), LABELS, seed=7)
    assert seeds == [7]


def test_a_family_that_cannot_be_compiled_is_refused(backbone) -> None:
    plain = backbone("bloom", n_layer=1)
    model = classifier(plain, **SHARED)
    with pytest.raises(BackboneError, match=r"BLOOM with shared prompts .* leave `precision` out"):
        logits(model, CompiledBackbone(plain, "fp32"))


def test_the_error_about_an_unknown_precision_lists_the_known_ones(backbone) -> None:
    with pytest.raises(ConfigError, match="'int4' is not known; use one of fp32, bf16, int8"):
        CompiledBackbone(backbone("bert"), "int4")


def test_a_backbone_without_a_pooler_has_one_graph(language_model_folder) -> None:
    # Its pooler is initialized at random each time it is loaded, and is not part of any graph.
    one, two = (load_backbone(str(language_model_folder("bert"))) for _ in range(2))
    assert one.pooler_missing
    assert not torch.equal(one.base.pooler.dense.weight, two.base.pooler.dense.weight)
    variant = variant_of(torch.zeros(2, 2, 3, 32), Entry("separate"), picked=False)
    assert GraphStore(one, "int8")._name(variant) == GraphStore(two, "int8")._name(variant)


def test_a_graphs_name_depends_on_every_module_that_takes_part_in_building_it(backbone, monkeypatch) -> None:
    """Modules that run while a graph is traced and quantized are hashed, and a change in one changes the name."""
    ran: set[str] = set()

    def watch(frame, event, _):
        if event == "call":
            ran.add(frame.f_code.co_filename)

    plain = backbone("bert", **ONE_LAYER)
    variant = Variant(Entry("separate"))
    sys.setprofile(watch)
    try:
        quantize_graph(export_graph(plain, variant), plain, variant)
    finally:
        sys.setprofile(None)
    hashed = {str(Path(importlib.import_module(name).__file__)) for name in SOURCES}
    package = str(Path(ptune.__file__).parent)
    # For messages, file names and the type of CPU.
    names = {"errors.py", "locate.py", "loading.py", "memory.py", "reading.py", "shared.py"}
    assert {path for path in ran if path.startswith(package) and Path(path).name not in names} <= hashed

    before = GraphStore(plain, "int8")._name(variant)
    read = Path.read_bytes
    for changed in hashed:
        monkeypatch.setattr(Path, "read_bytes", lambda path, target=changed: read(path) + b" " * (str(path) == target))
        assert GraphStore(plain, "int8")._name(variant) != before


def test_a_name_is_loaded_in_float32_whatever_the_cpu_multiplies(backbone_folder, monkeypatch) -> None:
    """With a precision, `auto` is float32 on the CPU, where it would be bfloat16 without."""
    monkeypatch.setattr("ptune.model.loading.multiplies_bfloat16", lambda: True)
    name = str(backbone_folder("bert"))
    assert engine.named_backbone(name, None, "auto", "auto", "fp32").dtype == torch.float32
    assert engine.named_backbone(name, None, "auto", "cpu", None).dtype == torch.bfloat16
    (served,) = load_backbones([name], [], precision="int8").all
    assert served.dtype == torch.float32
