"""Heads that compare the two texts of a pair."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import ptune
from ptune.data.batch import collate, pack
from ptune.data.columns import Columns
from ptune.data.encode import TextEncoder
from ptune.data.splits import Split, TextData
from ptune.errors import ConfigError
from ptune.inference.classifier import TextClassifier
from ptune.inference.engine import compute_logits
from ptune.inference.mixed import predict_mixed
from ptune.model.head import COSINE_SCALE
from ptune.model.hidden import Hidden
from ptune.model.mixed import start_logits
from ptune.model.vectors import PooledVectors
from ptune.training.comparing import start_comparing
from ptune.training.steps import Rows

PAIRS = [("the film is slow", "a slow film"), ("one two", "the plot is very cold there"), ("good", "bad")]


def _classifier(backbone, seed=0, **prompt):
    prompt = {"method": "deep", "virtual_tokens": 4, **prompt}
    model = ptune.PromptClassifier.from_backbone(
        backbone, ptune.PromptConfig(**prompt), labels=["no", "yes"], seed=seed, pairs=True
    )
    with torch.no_grad():
        model.prompt_encoder.embedding.weight.add_(torch.randn(model.prompt_encoder.embedding.weight.shape) * 0.3)
    return TextClassifier.around(model)


def test_default_for_pairs_only(backbone):
    bert = backbone("bert")
    assert _classifier(bert).model.config.pooling == "pair"
    for prompt in (
        {"pooling": "mean"},
        {"pooling": "peft"},
        {"method": "p-tuning"},
        {"template": "{text} {text_pair}"},
    ):
        assert _classifier(bert, **prompt).model.config.pooling != "pair"
    single = ptune.PromptClassifier.from_backbone(bert, ptune.PromptConfig(method="deep"), labels=["no", "yes"])
    assert single.config.pooling == "mean"


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_means_of_the_two_texts(backbone, family):
    loaded = backbone(family)
    classifier = _classifier(loaded)
    encoder = classifier.encoder
    texts, pairs = zip(*PAIRS, strict=True)
    rows = encoder.encode(texts, pairs)
    tokens = encoder.tokenizer.convert_ids_to_tokens
    for row, text, pair in zip(rows, texts, pairs, strict=True):
        first, second = tokens(row.ids[: row.pair_position]), tokens(row.ids[row.pair_position :])
        assert second == tokens(encoder.encode([pair])[0].ids)[1:]
        assert len(encoder.encode([text])[0]) <= len(first) <= len(encoder.encode([text])[0]) + 1
    inputs = collate(pack(rows), range(len(rows)), classifier.pad_id)
    model = classifier.model.eval()
    logits = start_logits([model], [model.prompt()], [0] * len(rows), inputs).result()[0]
    for number, row in enumerate(rows):
        alone = collate(pack([row]), [0], classifier.pad_id)
        states = loaded(alone, model.prompt(), model.entry).states[0]
        first, second = states[: row.pair_position].mean(0), states[row.pair_position :].mean(0)
        cosine = torch.cosine_similarity(first, second, dim=0)
        vector = torch.cat([states.mean(0), COSINE_SCALE * cosine.clamp(max=0.9999).atanh()[None]])
        torch.testing.assert_close(logits[number], model.head.linear(vector), atol=1e-5, rtol=1e-4)


def test_cut_rows_keep_the_border(backbone):
    classifier = _classifier(backbone("bert"))
    encoder = TextEncoder(classifier.encoder.tokenizer, max_length=12)
    (row,) = encoder.encode(["one two three four five six seven"], ["red blue red blue red blue"])
    assert row.cut
    assert encoder.tokenizer.convert_ids_to_tokens(row.ids[row.pair_position - 1 : row.pair_position + 1]) == [
        "</s>",
        "red",
    ]


def test_empty_second_text(backbone):
    classifier = _classifier(backbone("bert"))
    for pair in (("good", ""), ("", "bad"), ("", "")):
        (answer,) = classifier.predict([pair])
        assert 0 < answer["score"] <= 1


def test_answers_in_a_mixed_batch_are_those_alone(backbone):
    bert = backbone("bert")
    classifiers = [_classifier(bert), _classifier(bert, seed=1), _classifier(bert, pooling="mean")]
    requests = [(classifier, pair) for pair in PAIRS for classifier in classifiers]
    together = predict_mixed(requests)
    for (classifier, pair), answer in zip(requests, together, strict=True):
        (alone,) = classifier.predict([pair])
        assert answer["label"] == alone["label"]
        assert answer["score"] == pytest.approx(alone["score"], abs=1e-5)


def test_saved_and_loaded(backbone, tmp_path):
    classifier = _classifier(backbone("bert"))
    classifier.save(tmp_path / "adapter")
    loaded = ptune.load(tmp_path / "adapter", dtype="float32")
    assert loaded.model.config.pooling == "pair"
    for before, after in zip(classifier.predict(PAIRS), loaded.predict(PAIRS), strict=True):
        assert before["score"] == pytest.approx(after["score"], abs=1e-6)


def _same_or_other(count):
    """Pairs of the same text, and of two texts."""
    words = "film book plot cast red blue warm cold left right".split()
    texts = [f"{words[n % 10]} {words[(n * 7 + 3) % 10]}" for n in range(count)]
    pairs = [text if n % 2 else f"{words[(n + 5) % 10]} {words[(n * 7 + 8) % 10]}" for n, text in enumerate(texts)]
    rows = Split(texts, pairs, [n % 2 for n in range(count)])
    return TextData({"train": rows, "validation": rows}, ["other", "same"], Columns("text", "pair", "label"), "made")


def test_learns_whether_two_texts_say_the_same(backbone, tmp_path):
    data = _same_or_other(120)
    model = ptune.PromptClassifier.for_data(backbone("bert"), data, ptune.PromptConfig(method="deep", virtual_tokens=4))
    assert model.config.pooling == "pair"
    result = ptune.train(model, data, ptune.TrainConfig(epochs=12, objective="labels"), output=tmp_path / "run")
    assert max(epoch["accuracy"] for epoch in result.history) > 0.85


def test_single_texts_cannot_be_compared(backbone, tmp_path):
    model = ptune.PromptClassifier.from_backbone(
        backbone("bert"), ptune.PromptConfig(method="deep", pooling="pair"), labels=["no", "yes"]
    )
    rows = Split(["a", "b"] * 4, None, [0, 1] * 4)
    data = TextData({"train": rows, "validation": rows}, ["no", "yes"], Columns("text", None, "label"), "made")
    with pytest.raises(ConfigError, match="have single texts; leave `pooling` out"):
        ptune.train(model, data, output=tmp_path / "run")
    with pytest.raises(ValueError, match="tokenizer joins"):
        ptune.PromptConfig(pooling="pair", template="{text} {text_pair}")
    with pytest.raises(ValueError, match="give pair_position"):
        replace(Hidden(torch.zeros(1, 2, 3), None, 0)).averaged("pair")


def test_trainer_gives_segments_only(backbone):
    classifier = _classifier(backbone("bert"))
    tokenizer, model = classifier.encoder.tokenizer, classifier.model.eval()
    texts, pairs = map(list, zip(*PAIRS, strict=True))
    batch = tokenizer(texts, pairs, padding=True, return_tensors="pt", return_token_type_ids=True)
    given = torch.tensor([row.pair_position for row in classifier.encoder.encode(texts, pairs)])
    torch.testing.assert_close(model(**batch).logits, model(**batch, pair_position=given).logits)
    with pytest.raises(ValueError, match="or make the model with `pooling='mean'`"):
        model(batch["input_ids"])


def test_cosines_are_standardised_and_folded_into_the_saved_head(backbone, tmp_path):
    data = _same_or_other(60)
    model = ptune.PromptClassifier.for_data(backbone("bert"), data, ptune.PromptConfig(method="deep", virtual_tokens=4))
    config = ptune.TrainConfig(epochs=1, objective="labels")
    trained = ptune.train(model, data, config, output=tmp_path / "run").classifier
    assert float(model.head.cosine_shift) != 0
    loaded = ptune.load(tmp_path / "run", backbone("bert"))
    assert float(loaded.model.head.cosine_shift) == 0
    for before, after in zip(trained.predict(PAIRS), loaded.predict(PAIRS), strict=True):
        assert before["score"] == pytest.approx(after["score"], abs=1e-5)
    state = model.state_dict()
    again = _classifier(backbone("bert")).model
    again.load_state_dict(state)
    assert float(again.head.cosine_scale) == pytest.approx(float(model.head.cosine_scale))
    scale = float(model.head.cosine_scale)
    ptune.train(model, data, config, output=tmp_path / "further")
    assert float(model.head.cosine_scale) == scale


def test_the_head_starts_with_what_the_cosine_says(backbone):
    data = _same_or_other(60)
    model = ptune.PromptClassifier.for_data(backbone("bert"), data, ptune.PromptConfig(method="deep", virtual_tokens=4))
    classifier = TextClassifier.around(model)
    rows = Rows(classifier.encoder.encode(data.train.texts, data.train.pairs), torch.tensor(data.train.labels))
    start_comparing([model], rows, classifier.pad_id)
    weight = model.head.linear.weight[:, -1].detach()
    assert weight[1] > 0.1  # class "same"
    assert weight[0] == pytest.approx(-weight[1].item())
    vectors = compute_logits(
        [PooledVectors(model)], rows.encoded, [(n, 0) for n in range(60)], classifier.pad_id
    ).logits[0]
    assert float(vectors[:, -1].mean()) == pytest.approx(0, abs=1e-4)
    assert float(vectors[:, -1].std()) == pytest.approx(1, abs=1e-4)
