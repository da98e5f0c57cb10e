"""Threads share classifiers, tokenizers and backbones, and no call changes what another one sees."""

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
# Of four classifiers over one backbone: (settings, longest text).
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
    """Short ones and ones that are cut, single and in pairs."""
    draw = random.Random(seed)

    def text() -> str:
        return " ".join(draw.choices(WORDS, k=draw.choice([1, 4, 15, 80])))

    return [(text(), text()) if draw.random() < 0.5 else text() for _ in range(count)]


def answer(classifier: TextClassifier, text) -> dict[str, float]:
    return classifier.predict(text)[0]["scores"]


def test_eight_threads_get_from_one_classifier_what_one_gets(backbone) -> None:
    classifier, asked = make(backbone("bert"), 0), texts(200, seed=1)
    expected = [answer(classifier, text) for text in asked]
    with ThreadPoolExecutor(THREADS) as threads:
        answers = list(threads.map(lambda call: answer(classifier, asked[call % 200]), range(CALLS)))
    wrong = sum(answers[call] != pytest.approx(expected[call % 200], abs=1e-6) for call in range(CALLS))
    assert wrong == 0


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_eight_threads_get_from_four_classifiers_over_one_backbone_what_one_gets(family, backbone) -> None:
    made, asked = [make(backbone(family), number) for number in range(4)], texts(100, seed=2)
    expected = [[answer(classifier, text) for text in asked] for classifier in made]

    def call(number: int) -> bool:
        which, text = number % 4, number // 4 % 100
        return answer(made[which], asked[text]) == pytest.approx(expected[which][text], abs=1e-6)

    with ThreadPoolExecutor(THREADS) as threads:
        assert all(threads.map(call, range(CALLS)))


def test_eight_threads_get_from_a_pipeline_what_one_gets(backbone) -> None:
    pipe = make(backbone("bert"), 0).pipeline(top_k=None)
    asked = [text if isinstance(text, str) else {"text": text[0], "text_pair": text[1]} for text in texts(50, seed=3)]

    def scores(text) -> dict[str, float]:
        (lines,) = pipe([text])
        return {line["label"]: line["score"] for line in lines}

    expected = [scores(text) for text in asked]
    with ThreadPoolExecutor(THREADS) as threads:
        answers = list(threads.map(lambda call: scores(asked[call % 50]), range(400)))
    assert all(answers[call] == pytest.approx(expected[call % 50], abs=1e-6) for call in range(400))


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="needs the extra 'openvino'")
def test_eight_threads_get_from_a_compiled_backbone_what_one_gets(backbone) -> None:
    from ptune.backends.openvino.backbone import CompiledBackbone

    compiled = CompiledBackbone(backbone("bert", num_hidden_layers=1), "fp32")
    made, asked = [make(compiled, number) for number in (0, 1)], texts(50, seed=4)
    expected = [[answer(classifier, text) for text in asked] for classifier in made]

    def call(number: int) -> bool:
        which, text = number % 2, number // 2 % 50
        return answer(made[which], asked[text]) == pytest.approx(expected[which][text], abs=1e-5)

    with ThreadPoolExecutor(THREADS) as threads:
        assert all(threads.map(call, range(400)))
