"""Threads can share classifiers, tokenizers and backbones without affecting each other."""

from __future__ import annotations

import importlib.util
import random
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import pytest

import ptune
from ptune.inference.classifier import TextClassifier
from ptune.inference.mixed import predict_mixed
from ptune.model.classifier import PromptClassifier
from ptune.model.config import PromptConfig
from ptune.model.ensemble import PromptEnsemble
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


# Prompts enter DeBERTa and BLOOM through hooks, MPNet's layers are run by ptune, and GPT-2's by transformers.
@pytest.mark.parametrize(
    ("family", "calls"), [("bert", CALLS), ("gpt2", CALLS), ("deberta-v2", 400), ("bloom", 400), ("mpnet", 400)]
)
def test_eight_threads_get_the_same_answers_from_four_classifiers_as_one_thread(family, calls, backbone) -> None:
    models, rows = [make(backbone(family), number) for number in range(4)], texts(100, seed=2)
    expected = [[answer(classifier, text) for text in rows] for classifier in models]

    def call(number: int) -> bool:
        which, text = number % 4, number // 4 % 100
        return answer(models[which], rows[text]) == pytest.approx(expected[which][text], abs=1e-6)

    with ThreadPoolExecutor(THREADS) as threads:
        assert all(threads.map(call, range(calls)))


def test_eight_threads_get_the_same_answers_from_a_pipeline_as_one_thread(backbone) -> None:
    """Each call has options of its own, lengths among them, which no other call may see."""
    pipe = make(backbone("bert"), 0).pipeline()
    rows = [text if isinstance(text, str) else {"text": text[0], "text_pair": text[1]} for text in texts(50, seed=3)]
    options = [{"top_k": None}, {"top_k": None, "max_length": 5}, {"top_k": None, "max_length": 9, "batch_size": 2}]

    def scores(call: int) -> list[list[dict[str, float]]]:
        chosen = [rows[call % 50], rows[(call + 7) % 50]]
        return [sorted(line["score"] for line in lines) for lines in pipe(chosen, **options[call % 3])]

    expected = [scores(call) for call in range(150)]
    with ThreadPoolExecutor(THREADS) as threads:
        answers = list(threads.map(scores, range(600)))
    for call, given in enumerate(answers):
        assert [*chain(*given)] == pytest.approx([*chain(*expected[call % 150])], abs=1e-6)


def test_eight_threads_get_the_same_answers_with_templates_and_ensembles_as_one_thread(language_model) -> None:
    loaded = language_model("bert")
    template = PromptConfig(virtual_tokens=2, template="{text} was {mask}", pooling="mask")
    members = [PromptClassifier(loaded, PromptConfig(virtual_tokens=2), LABELS, seed=seed) for seed in range(2)]
    models = [
        TextClassifier.around(PromptClassifier(loaded, template, LABELS), 9),
        TextClassifier.around(PromptEnsemble(members).eval(), 14),
        TextClassifier.around(members[0]),
    ]
    rows = texts(60, seed=5)
    expected = [[answer(classifier, text) for text in rows] for classifier in models]

    def call(number: int) -> bool:
        which, text = number % 3, number // 3 % 60
        if number % 4:
            (given,) = predict_mixed([(models[which], rows[text])])
            return given["scores"] == pytest.approx(expected[which][text], abs=1e-6)
        return answer(models[which], rows[text]) == pytest.approx(expected[which][text], abs=1e-6)

    with ThreadPoolExecutor(THREADS) as threads:
        assert all(threads.map(call, range(CALLS)))


def test_answers_are_the_same_while_another_prompt_is_trained_on_the_backbone(backbone, reviews, tmp_path) -> None:
    loaded = backbone("bert")
    classifier, rows = make(loaded, 0), texts(60, seed=6)
    expected = [answer(classifier, text) for text in rows]
    config = ptune.TrainConfig(epochs=4, patience=0)

    def trained(name: str) -> list[float]:
        data = ptune.load_data(reviews)
        model = PromptClassifier.for_data(loaded, data)
        return [line["loss"] for line in ptune.train(model, data, config, output=tmp_path / name).history]

    alone = trained("alone")
    with ThreadPoolExecutor(THREADS) as threads:
        training = threads.submit(trained, "beside")
        given = list(threads.map(lambda call: answer(classifier, rows[call % 60]), range(600)))
        assert training.result() == alone
    assert all(given[call] == pytest.approx(expected[call % 60], abs=1e-6) for call in range(600))


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
