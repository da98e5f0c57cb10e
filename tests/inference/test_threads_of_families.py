"""Threads over families whose prompts enter in other ways, and beside a training on the same backbone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

import ptune
from ptune.model.classifier import PromptClassifier
from tests.inference.test_threads import THREADS, answer, make, texts, wrong_answers


# Prompts enter DeBERTa and BLOOM through hooks, and MPNet's layers are run by ptune.
@pytest.mark.parametrize("family", ["deberta-v2", "bloom", "mpnet"])
def test_eight_threads_get_the_same_answers_as_one_thread(family, backbone) -> None:
    assert wrong_answers([make(backbone(family), number) for number in range(4)], 400) == 0


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
