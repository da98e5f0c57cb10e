"""Requests for many adapters in one call get the answers that each adapter gives alone."""

from __future__ import annotations

import logging

import pytest

from ptune.adapter.layout import TaskInfo
from ptune.data.targets import MULTI, REGRESSION, SINGLE
from ptune.errors import DataError
from ptune.inference.classifier import TextClassifier
from ptune.inference.mixed import predict_mixed
from ptune.model.classifier import PromptClassifier
from ptune.model.config import PromptConfig
from ptune.model.ensemble import PromptEnsemble

TEXTS = ["a good film", "bad", "the plot was slow and it ends", "a cast", "very good and very slow " * 9]


def make(backbone, members: int = 1, problem_type=SINGLE, labels: str = "abc", **settings) -> TextClassifier:
    config = PromptConfig(**{"virtual_tokens": 4, **settings})
    models = [PromptClassifier(backbone, config, list(labels), None, seed, problem_type) for seed in range(members)]
    task = TaskInfo(temperature=1.7 if problem_type == SINGLE else 1.0)
    return TextClassifier.around(models[0] if members == 1 else PromptEnsemble(models), 12, task=task)


@pytest.mark.parametrize("batch_size", [None, 3])
def test_answers_are_those_of_each_adapter_alone(batch_size, backbone) -> None:
    bert = backbone("bert")
    classifiers = [
        make(bert),
        make(bert, virtual_tokens=3, labels="de"),
        make(bert, members=3),
        make(bert, method="p-tuning", template="film: {text} was"),
        make(bert, problem_type=MULTI),
        make(bert, problem_type=REGRESSION, labels="s"),
        make(backbone("gpt2")),
    ]
    requests = [(classifier, text) for text in TEXTS for classifier in classifiers]
    requests += [(classifiers[0], ("a good film", "bad")), (classifiers[0], TEXTS[0])]
    for (classifier, text), answer in zip(requests, predict_mixed(requests, batch_size), strict=True):
        (alone,) = classifier.predict([text])
        assert answer.keys() == alone.keys()
        for key, value in alone.items():
            assert answer[key] == (value if isinstance(value, str | list) else pytest.approx(value, abs=1e-5))


def test_adapters_share_forward_passes(backbone, monkeypatch) -> None:
    bert = backbone("bert")
    classifiers = [make(bert) for _ in range(6)]
    passes = []
    start = type(bert).start
    monkeypatch.setattr(type(bert), "start", lambda self, *args: passes.append(1) or start(self, *args))
    predict_mixed([(classifier, "a good film") for classifier in classifiers])
    assert len(passes) == 1


def test_thresholds_of_labels_count(backbone) -> None:
    several = make(backbone("bert"), problem_type=MULTI)
    for threshold in (0.01, 0.99):
        strict = several.with_threshold(threshold)
        assert predict_mixed([(strict, TEXTS[0])])[0]["labels"] == strict.predict(TEXTS[0])[0]["labels"]


def test_cut_texts_are_counted_for_each_length(backbone, caplog) -> None:
    ours = make(backbone("bert"))
    with caplog.at_level(logging.WARNING, "ptune"):
        predict_mixed([(ours, text) for text in TEXTS])
    assert [record.getMessage() for record in caplog.records] == ["1 of 5 rows were cut to 12 tokens"]


def test_a_text_that_cannot_be_used_is_named_by_its_place(backbone) -> None:
    ours = make(backbone("bert"))
    with pytest.raises(DataError, match="text 3 is not text: 7"):
        predict_mixed([(ours, "good"), (ours, "bad"), (ours, 7)])
    assert predict_mixed([(ours, "")]) == ours.predict([""])
    assert predict_mixed([]) == []
