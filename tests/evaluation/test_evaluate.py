"""`ptune.evaluate`: plain data about one split."""

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
    made = classifier(backbone("bert"), temperature=1.7)
    rows = data(made.labels, [0, 1, 2, 1, 1, 0])
    found = ptune.evaluate(made, rows, "test", per_row=True)
    logits = made.logits(TEXTS)
    assert found.metrics == evaluate_logits(logits, rows.targets("test"), SINGLE, 1.7)
    matrix = torch.tensor(found.confusion_matrix)
    assert matrix.shape == (3, 3)
    assert matrix.sum() == 6
    assert found.metrics["accuracy"] == pytest.approx(float(matrix.diag().sum()) / 6)
    assert [found.by_label[name]["support"] for name in made.labels] == matrix.sum(dim=1).tolist() == [2, 3, 1]
    for number, name in enumerate(made.labels):
        right, answered = int(matrix[number, number]), int(matrix[:, number].sum())
        assert found.by_label[name]["precision"] == (right / answered if answered else 0)
        assert found.by_label[name]["recall"] == right / int(matrix[number].sum())
    macro = sum(scores["f1"] for scores in found.by_label.values()) / 3
    assert found.metrics["f1_macro"] == pytest.approx(macro)
    assert torch.tensor(found.rows.outputs).argmax(dim=1).tolist() == logits.argmax(dim=1).tolist()
    assert sum(found.rows.losses) / 6 == pytest.approx(found.metrics["loss"])


def test_several_labels_and_numbers_have_what_suits_them(backbone) -> None:
    several = classifier(backbone("bert"), MULTI)
    found = ptune.evaluate(several, data(several.labels, [(0,), (), (1, 2), (2,), (0, 1), ()], MULTI), "test")
    assert (found.confusion_matrix, found.rows) == (None, None)
    assert [scores["support"] for scores in found.by_label.values()] == [2, 2, 2]
    number = classifier(backbone("bert"), REGRESSION, ["stars"])
    found = ptune.evaluate(number, data(["stars"], [0.5, 1, 2, 3, 4, 5], REGRESSION), "test", per_row=True)
    assert (found.confusion_matrix, found.by_label) == (None, None)
    assert [row[0] for row in found.rows.outputs] == pytest.approx([p["value"] for p in number.predict(TEXTS)])
    assert sum(found.rows.losses) / 6 == pytest.approx(found.metrics["mse"])


def test_everything_fits_into_json_with_the_metrics_on_top(backbone) -> None:
    made = classifier(backbone("bert"))
    found = ptune.evaluate(made, data(made.labels, [0, 1, 2, 1, 1, 0]), "test").to_dict()
    assert json.loads(json.dumps(found)) == found
    assert {"accuracy", "loss", "split", "labels", "problem_type", "confusion_matrix", "by_label"} <= found.keys()
    assert "rows" not in found


def test_what_does_not_fit_is_refused(backbone) -> None:
    made = classifier(backbone("bert"))
    rows = data(made.labels, [0, 1, 2, 1, 1, 0])
    with pytest.raises(DataError, match="has no split 'validation'"):
        ptune.evaluate(made, rows)
    with pytest.raises(DataError, match="have no labels"):
        ptune.evaluate(made, replace(rows, splits={"test": Split(TEXTS, None, None)}), "test")
    with pytest.raises(ConfigError, match=r"have the labels \(3\) high, low, middle in this order"):
        ptune.evaluate(made, replace(rows, labels=["high", "low", "middle"]), "test")
    with pytest.raises(ConfigError, match="are regression, but the model was made for single_label"):
        ptune.evaluate(made, replace(rows, problem_type=REGRESSION), "test")


def test_labels_without_names_take_those_of_the_data(backbone) -> None:
    made = classifier(backbone("bert"), labels=["LABEL_0", "LABEL_1", "LABEL_2"])
    assert ptune.evaluate(made, data(["x", "y", "z"], [0, 1, 2, 1, 1, 0]), "test").metrics["count"] == 6
