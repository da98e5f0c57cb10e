"""Threads can share classifiers, tokenizers and backbones without affecting each other."""

from __future__ import annotations

import importlib.util
import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from ptune.data.texts import unzip
from ptune.inference.classifier import TextClassifier, load
from ptune.model.classifier import PromptClassifier
from ptune.model.config import PromptConfig
from ptune.model.ensemble import PromptEnsemble
from tests.conftest import WORDS

THREADS, CALLS = 8, 2000
LABELS = ["a", "b", "c"]
# Classifiers on one backbone: (settings, length in tokens to cut texts to). The last one becomes an ensemble.
SETTINGS = [
    ({"method": "deep", "virtual_tokens": 3}, 12),
    ({"method": "p-tuning", "virtual_tokens": 5}, None),
    ({"method": "deep", "virtual_tokens": 3, "pooling": "last"}, 7),
    ({"method": "prompt-tuning", "virtual_tokens": 2}, 30),
    ({"method": "deep", "virtual_tokens": 2, "template": "film: {text} was it and"}, 14),
    ({"method": "deep", "virtual_tokens": 4}, 20),
]


def make(backbone, number: int) -> TextClassifier:
    settings, longest = SETTINGS[number]
    models = [
        PromptClassifier(backbone, PromptConfig(**settings), LABELS, seed=seed)
        for seed in ([number, number + 10] if number == len(SETTINGS) - 1 else [number])
    ]
    return TextClassifier.around(models[0] if len(models) == 1 else PromptEnsemble(models), longest)


def texts(count: int, seed: int) -> list[str | tuple[str, str]]:
    """Return texts and pairs of texts, short ones and ones that are cut."""
    draw = random.Random(seed)

    def text() -> str:
        return " ".join(draw.choices(WORDS, k=draw.choice([1, 4, 15, 80])))

    return [(text(), text()) if draw.random() < 0.5 else text() for _ in range(count)]


def answer(classifier: TextClassifier, text) -> dict[str, float]:
    return classifier.predict(text)[0]["scores"]


def test_eight_threads_get_the_same_answers_from_one_classifier_as_one_thread(backbone) -> None:
    classifier, rows = make(backbone("bert"), 0), texts(200, seed=1)
    expected = [answer(classifier, text) for text in rows]
    with ThreadPoolExecutor(THREADS) as threads:
        answers = list(threads.map(lambda call: answer(classifier, rows[call % 200]), range(CALLS)))
    wrong = sum(answers[call] != pytest.approx(expected[call % 200], abs=1e-6) for call in range(CALLS))
    assert wrong == 0


def wrong_answers(models: list[TextClassifier], calls: int) -> int:
    """Ask classifiers in turn from eight threads; return how many answers are not those of one thread."""
    rows = texts(100, seed=2)
    expected = [[answer(classifier, text) for text in rows] for classifier in models]

    def call(number: int) -> bool:
        which, text = number % len(models), number // len(models) % 100
        return answer(models[which], rows[text]) == pytest.approx(expected[which][text], abs=1e-6)

    with ThreadPoolExecutor(THREADS) as threads:
        return sum(not right for right in threads.map(call, range(calls)))


@pytest.mark.parametrize("family", ["bert", pytest.param("gpt2", marks=pytest.mark.long)])
def test_eight_threads_get_the_same_answers_from_several_classifiers_as_one_thread(family, backbone) -> None:
    assert wrong_answers([make(backbone(family), number) for number in range(len(SETTINGS))], CALLS) == 0


@pytest.mark.long
@pytest.mark.parametrize("family", ["bert", pytest.param("gpt2", marks=pytest.mark.long)])
def test_eight_threads_of_two_thousand_calls_each_get_the_answers_of_one_thread(family, backbone) -> None:
    models = [make(backbone(family), number) for number in (0, 2, 4, 5)]
    assert wrong_answers(models, THREADS * CALLS) == 0


def test_adapters_that_are_loaded_from_files_share_a_tokenizer_and_no_answers(backbone_folder, backbone, tmp_path):
    for number in range(len(SETTINGS)):
        make(backbone("bert"), number).save(tmp_path / str(number))
    models = [load(tmp_path / str(number), str(backbone_folder("bert"))) for number in range(len(SETTINGS))]
    assert len({id(classifier.encoder.tokenizer) for classifier in models}) == 1
    assert wrong_answers(models, CALLS // 2) == 0


@pytest.mark.parametrize("family", ["bert", pytest.param("gpt2", marks=pytest.mark.long)])
def test_eight_threads_get_the_same_tokens_as_one_thread(family, backbone) -> None:
    encoders = [make(backbone(family), number).encoder for number in range(len(SETTINGS))]
    rows = [unzip([text], 0) for text in texts(100, seed=5)]
    expected = [[encoder.encode(*row) for row in rows] for encoder in encoders]
    assert 0 < sum(row.cut for encoded in expected for (row,) in encoded) < len(encoders) * len(rows)

    def call(number: int) -> bool:
        which, row = number % len(encoders), number // len(encoders) % 100
        return encoders[which].encode(*rows[row]) == expected[which][row]

    with ThreadPoolExecutor(THREADS) as threads:
        assert all(threads.map(call, range(THREADS * CALLS)))


def test_eight_threads_get_the_same_answers_from_batches_and_streams_as_one_thread(backbone) -> None:
    models = [make(backbone("bert"), number) for number in (0, 4, 5)]
    rows = sorted(texts(80, seed=6), key=lambda text: isinstance(text, tuple))  # the two do not mix in one call
    singles = sum(isinstance(text, str) for text in rows)
    expected = [[answer(classifier, text) for text in rows] for classifier in models]

    def call(number: int) -> bool:
        which, size = number % len(models), number % 10 + 1
        start = number * 7 % (singles - size) if number % 4 < 2 else singles + number * 7 % (80 - singles - size)
        asked = rows[start : start + size]
        found = models[which].predict(asked) if number % 2 else models[which].stream(iter(asked))
        wanted = expected[which][start : start + size]
        return [line["scores"] for line in found] == [pytest.approx(scores, abs=1e-5) for scores in wanted]

    with ThreadPoolExecutor(THREADS) as threads:
        assert all(threads.map(call, range(600)))


@pytest.mark.parametrize("family", ["bert", pytest.param("gpt2", marks=pytest.mark.long)])
def test_eight_threads_get_the_same_answers_from_pipelines_as_one_thread(family, backbone) -> None:
    models = [make(backbone(family), number) for number in (0, 1, 4, 5)]
    pipes = [classifier.pipeline(top_k=None) for classifier in models]
    rows = [text if isinstance(text, str) else {"text": text[0], "text_pair": text[1]} for text in texts(50, seed=3)]
    lengths = [{}, {"max_length": 9}]  # an option of the call, which cuts more than the classifier does

    def scores(call: int) -> dict[str, float]:
        which, length, text = call % 4, call // 4 % 2, call // 8 % 50
        (lines,) = pipes[which]([rows[text]], **lengths[length])
        return {line["label"]: line["score"] for line in lines}

    expected = [scores(call) for call in range(400)]
    with ThreadPoolExecutor(THREADS) as threads:
        answers = list(threads.map(scores, range(1000)))
    assert all(answers[call] == pytest.approx(expected[call % 400], abs=1e-6) for call in range(1000))


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="needs the extra 'openvino'")
def test_eight_threads_get_the_same_answers_from_a_compiled_backbone_as_one_thread(backbone) -> None:
    from ptune.backends.openvino.backbone import CompiledBackbone

    compiled = CompiledBackbone(backbone("bert", num_hidden_layers=1), "fp32")
    models, rows = [make(compiled, number) for number in (0, 1)], texts(50, seed=4)
    expected = [[answer(classifier, text) for text in rows] for classifier in models]

    def call(number: int) -> bool:
        which, text = number % 2, number // 2 % 50
        return answer(models[which], rows[text]) == pytest.approx(expected[which][text], abs=1e-5)

    with ThreadPoolExecutor(THREADS) as threads:
        assert all(threads.map(call, range(400)))
