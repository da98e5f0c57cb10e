"""Threads can share classifiers, tokenizers and backbones without affecting each other."""

from __future__ import annotations

import importlib.util
import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from ptune.inference.classifier import TextClassifier
from ptune.model.classifier import PromptClassifier
from ptune.model.config import PromptConfig
from tests.conftest import WORDS

THREADS, CALLS = 8, 2000
LABELS = ["a", "b", "c"]
# Four classifiers on one backbone: (settings, length in tokens to cut texts to).
SETTINGS = [
    ({"method": "deep", "virtual_tokens": 3}, 12),
    ({"method": "p-tuning", "virtual_tokens": 5}, None),
    ({"method": "deep", "virtual_tokens": 3, "pooling": "last"}, 7),
    ({"method": "prompt-tuning", "virtual_tokens": 2}, 30),
]


def make(backbone, number: int) -> TextClassifier:
    settings, longest = SETTINGS[number]
    return TextClassifier.around(PromptClassifier(backbone, PromptConfig(**settings), LABELS, seed=number), longest)


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


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_eight_threads_get_the_same_answers_from_four_classifiers_as_one_thread(family, backbone) -> None:
    models, rows = [make(backbone(family), number) for number in range(4)], texts(100, seed=2)
    expected = [[answer(classifier, text) for text in rows] for classifier in models]

    def call(number: int) -> bool:
        which, text = number % 4, number // 4 % 100
        return answer(models[which], rows[text]) == pytest.approx(expected[which][text], abs=1e-6)

    with ThreadPoolExecutor(THREADS) as threads:
        assert all(threads.map(call, range(CALLS)))


def test_eight_threads_get_the_same_answers_from_a_pipeline_as_one_thread(backbone) -> None:
    pipe = make(backbone("bert"), 0).pipeline(top_k=None)
    rows = [text if isinstance(text, str) else {"text": text[0], "text_pair": text[1]} for text in texts(50, seed=3)]

    def scores(text) -> dict[str, float]:
        (lines,) = pipe([text])
        return {line["label"]: line["score"] for line in lines}

    expected = [scores(text) for text in rows]
    with ThreadPoolExecutor(THREADS) as threads:
        answers = list(threads.map(lambda call: scores(rows[call % 50]), range(400)))
    assert all(answers[call] == pytest.approx(expected[call % 50], abs=1e-6) for call in range(400))


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
