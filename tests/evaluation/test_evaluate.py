"""`ptune.evaluate` returns plain data about one split."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

import ptune
from ptune.adapter.layout import TaskInfo
from ptune.data.columns import Columns
from ptune.data.splits import Split, TextData
from ptune.data.targets import MULTI, REGRESSION, SINGLE
from ptune.errors import ConfigError, DataError
from ptune.evaluation.metrics import evaluate_logits
from ptune.inference.classifier import TextClassifier
from ptune.model.classifier import PromptClassifier
from ptune.model.config import PromptConfig

TEXTS = ["a good film", "bad", "the plot was slow", "a cast", "very good", "one two three"]


def classifier(backbone, problem_type=SINGLE, labels=("low", "middle", "high"), temperature=1.0) -> TextClassifier:
    config = PromptConfig(virtual_tokens=4)
    model = PromptClassifier(backbone, config, list(labels), seed=1, problem_type=problem_type)
    return TextClassifier.around(model, task=TaskInfo(temperature=temperature))


def data(labels, targets, problem_type=SINGLE) -> TextData:
    split = Split(TEXTS, None, targets)
    return TextData({"test": split}, list(labels), Columns("text", None, "label"), "rows", problem_type=problem_type)


def test_metrics_matrix_and_labels_agree_with_each_other(backbone) -> None:
    model = classifier(backbone("bert"), temperature=1.7)
    rows = data(model.labels, [0, 1, 2, 1, 1, 0])
    evaluation = ptune.evaluate(model, rows, "test", per_row=True)
    logits = model.logits(TEXTS)
    assert evaluation.metrics == evaluate_logits(logits, rows.targets("test"), SINGLE, 1.7)
    matrix = torch.tensor(evaluation.confusion_matrix)
    assert matrix.shape == (3, 3)
    assert matrix.sum() == 6
    assert evaluation.metrics["accuracy"] == pytest.approx(float(matrix.diag().sum()) / 6)
    assert [evaluation.by_label[name]["support"] for name in model.labels] == matrix.sum(dim=1).tolist() == [2, 3, 1]
    for number, name in enumerate(model.labels):
        correct, predicted = int(matrix[number, number]), int(matrix[:, number].sum())
        assert evaluation.by_label[name]["precision"] == (correct / predicted if predicted else 0)
        assert evaluation.by_label[name]["recall"] == correct / int(matrix[number].sum())
    macro = sum(scores["f1"] for scores in evaluation.by_label.values()) / 3
    assert evaluation.metrics["f1_macro"] == pytest.approx(macro)
    assert torch.tensor(evaluation.rows.outputs).argmax(dim=1).tolist() == logits.argmax(dim=1).tolist()
    assert sum(evaluation.rows.losses) / 6 == pytest.approx(evaluation.metrics["loss"])


def test_multi_label_and_regression_have_only_the_fields_that_apply(backbone) -> None:
    several = classifier(backbone("bert"), MULTI)
    evaluation = ptune.evaluate(several, data(several.labels, [(0,), (), (1, 2), (2,), (0, 1), ()], MULTI), "test")
    assert (evaluation.confusion_matrix, evaluation.rows) == (None, None)
    assert [scores["support"] for scores in evaluation.by_label.values()] == [2, 2, 2]
    number = classifier(backbone("bert"), REGRESSION, ["stars"])
    evaluation = ptune.evaluate(number, data(["stars"], [0.5, 1, 2, 3, 4, 5], REGRESSION), "test", per_row=True)
    assert (evaluation.confusion_matrix, evaluation.by_label) == (None, None)
    assert [row[0] for row in evaluation.rows.outputs] == pytest.approx([p["value"] for p in number.predict(TEXTS)])
    assert sum(evaluation.rows.losses) / 6 == pytest.approx(evaluation.metrics["mse"])


def test_the_result_is_json_with_the_metrics_at_the_top_level(backbone) -> None:
    model = classifier(backbone("bert"))
    evaluation = ptune.evaluate(model, data(model.labels, [0, 1, 2, 1, 1, 0]), "test").to_dict()
    assert json.loads(json.dumps(evaluation)) == evaluation
    assert {"accuracy", "loss", "split", "labels", "problem_type", "confusion_matrix", "by_label"} <= evaluation.keys()
    assert "rows" not in evaluation


def test_data_of_another_split_label_set_or_problem_type_are_refused(backbone) -> None:
    model = classifier(backbone("bert"))
    rows = data(model.labels, [0, 1, 2, 1, 1, 0])
    with pytest.raises(DataError, match="has no split 'validation'"):
        ptune.evaluate(model, rows)
    with pytest.raises(DataError, match="have no labels"):
        ptune.evaluate(model, replace(rows, splits={"test": Split(TEXTS, None, None)}), "test")
    with pytest.raises(ConfigError, match=r"have the labels \(3\) high, low, middle in this order"):
        ptune.evaluate(model, replace(rows, labels=["high", "low", "middle"]), "test")
    with pytest.raises(ConfigError, match="are regression, but the model was made for single_label"):
        ptune.evaluate(model, replace(rows, problem_type=REGRESSION), "test")


def test_placeholder_labels_match_the_labels_of_the_data(backbone) -> None:
    model = classifier(backbone("bert"), labels=["LABEL_0", "LABEL_1", "LABEL_2"])
    assert ptune.evaluate(model, data(["x", "y", "z"], [0, 1, 2, 1, 1, 0]), "test").metrics["count"] == 6
