"""What adapters have in common is in memory once, and it goes when the last of them goes."""

from __future__ import annotations

import gc
import importlib.util
import shutil
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import ptune
from ptune.adapter.folder import save_adapter
from ptune.adapter.layout import Record
from ptune.model.shared import Shared

needs_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="needs the extra 'openvino'")


def save(folder: Path, backbone, **settings) -> Path:
    config = ptune.PromptConfig(**{"virtual_tokens": 4, "method": "p-tuning", **settings})
    model = ptune.PromptClassifier(backbone, config, ["a", "b", "c"], seed=3)
    save_adapter(folder, model, Record.of(model))
    return folder


@pytest.fixture
def adapters(backbone_folder, tmp_path) -> list[Path]:
    """Two adapters that name the same backbone, a copy that no other test has loaded.

    The names differ in how they enter the backbone.
    """
    own = ptune.load_backbone(str(shutil.copytree(backbone_folder("bert"), tmp_path / "own")), device="cpu")
    return [save(tmp_path / method, own, method=method) for method in ("deep", "p-tuning")]


def test_adapters_that_name_a_backbone_share_it_and_its_tokenizer(adapters) -> None:
    one, two = (ptune.load(folder, device="cpu") for folder in adapters)
    assert one.model.backbone is two.model.backbone
    assert one.encoder.tokenizer is two.encoder.tokenizer


def test_adapters_on_a_given_backbone_share_its_tokenizer(adapters, backbone) -> None:
    given = backbone("bert")
    one, two = (ptune.load(folder, given) for folder in adapters)
    assert one.model.backbone is two.model.backbone is given
    assert one.encoder.tokenizer is two.encoder.tokenizer


def test_threads_that_load_at_once_get_the_same_backbone(adapters) -> None:
    with ThreadPoolExecutor(8) as threads:
        loaded = list(threads.map(lambda number: ptune.load(adapters[number % 2], device="cpu"), range(16)))
    assert len({id(classifier.model.backbone) for classifier in loaded}) == 1
    assert len({id(classifier.encoder.tokenizer) for classifier in loaded}) == 1


def test_a_backbone_goes_with_the_last_classifier_that_uses_it(adapters, nothing_kept) -> None:
    one, two = (ptune.load(folder, device="cpu") for folder in adapters)
    one.predict("a good film")
    backbone, tokenizer = weakref.ref(one.model.backbone), weakref.ref(one.encoder.tokenizer)
    del one
    gc.collect()
    assert backbone() is two.model.backbone
    del two
    gc.collect()
    assert backbone() is None
    assert tokenizer() is None


def test_another_type_of_numbers_is_another_backbone(adapters) -> None:
    one, two = (ptune.load(adapters[0], device="cpu", dtype=dtype) for dtype in ("float32", "bfloat16"))
    assert one.model.backbone is not two.model.backbone
    assert one.encoder.tokenizer is two.encoder.tokenizer


def test_a_backbone_that_was_cast_is_not_given_to_others(adapters) -> None:
    one = ptune.load(adapters[0], device="cpu", dtype="float32")
    one.model.backbone.to(torch.float64)
    two = ptune.load(adapters[1], device="cpu", dtype="float32")
    assert two.model.backbone is not one.model.backbone
    assert two.model.backbone.dtype == torch.float32


def test_files_that_were_replaced_are_read_again(backbone_folder, backbone, tmp_path) -> None:
    folder = Path(shutil.copytree(backbone_folder("bert"), tmp_path / "backbone"))
    adapter = save(tmp_path / "adapter", backbone("bert"))
    one = ptune.load(adapter, str(folder), device="cpu")
    shutil.copytree(backbone_folder("bert", intermediate_size=56), folder, dirs_exist_ok=True)
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    two = ptune.load(adapter, str(folder), device="cpu")
    assert [classifier.model.backbone.config.intermediate_size for classifier in (one, two)] == [48, 56]
    assert one.encoder.tokenizer is not two.encoder.tokenizer


@needs_openvino
def test_classifiers_of_one_precision_share_a_compiled_graph(adapters, backbone, monkeypatch) -> None:
    from ptune.backends.openvino.backbone import CompiledBackbone

    compiled: list[object] = []
    compile_graph = CompiledBackbone._compile
    monkeypatch.setattr(
        CompiledBackbone, "_compile", lambda self, variant: compiled.append(variant) or compile_graph(self, variant)
    )
    deep = adapters[0]
    given = [ptune.load(deep, backbone("bert"), precision="fp32") for _ in range(3)]
    named = [ptune.load(deep, precision="fp32") for _ in range(3)]
    for classifier in given + named:
        classifier.predict("a good film")
    assert len({id(classifier.model.backbone) for classifier in given}) == 1
    assert len({id(classifier.model.backbone) for classifier in named}) == 1
    assert len(compiled) == 2  # once for the backbone that was given, and once for the one that was loaded
    again = ptune.load(deep, given[0].model.backbone, precision="fp32")
    assert again.model.backbone is given[0].model.backbone
    graph = weakref.ref(named[0].model.backbone)
    del classifier, named
    gc.collect()
    assert graph() is None


def test_a_shared_object_that_fails_to_load_fails_for_each_who_asks() -> None:
    shared: Shared[object] = Shared()

    def fail() -> object:
        raise OSError("gone")

    for _ in range(2):
        with pytest.raises(OSError, match="gone"):
            shared.get("key", fail)


def resident() -> int:
    """Bytes of memory that the process has."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    "settings", [{"method": "deep"}, {"method": "p-tuning", "pooling": "peft"}], ids=["deep", "peft's head"]
)
def test_adapters_take_the_memory_of_their_files_and_give_it_back(settings, backbone, tmp_path) -> None:
    # Wide enough that the weights count and not the objects around them.
    given = backbone("roberta", hidden_size=256, intermediate_size=64, max_position_embeddings=1025)
    folder = save(tmp_path / "adapter", given, **{"virtual_tokens": 500, **settings})
    ptune.load(folder, given).predict("a good film")
    before = resident()
    loaded = [ptune.load(folder, given) for _ in range(40)]
    files = 40 * ptune.read_adapter(folder).bytes
    assert resident() - before <= 1.2 * files
    del loaded
    assert resident() - before <= 0.2 * files
