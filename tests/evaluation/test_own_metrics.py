"""Metrics of the user's: called as those of scikit-learn, checked before training, and able to pick the best epoch."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sklearn.metrics import cohen_kappa_score, fbeta_score, hamming_loss, max_error, roc_auc_score

import ptune
from ptune.adapter.card import write_card
from ptune.data.targets import MULTI, REGRESSION, SINGLE
from ptune.errors import ConfigError
from ptune.evaluation.own_metrics import check_metrics, own_metrics
from ptune.model.decision import Decision
from tests.conftest import review_rows, star_rows, topic_rows


def auc(truth, predicted, probabilities):
    return roc_auc_score(truth, probabilities[:, 1])


def test_functions_get_what_those_of_scikit_learn_expect() -> None:
    logits, labels = torch.tensor([[2.0, 0.0], [0.0, 3.0], [1.0, 0.0], [0.0, 0.5]]), torch.tensor([0, 1, 1, 0])
    values = own_metrics({"kappa": cohen_kappa_score, "auc": auc}, logits, labels, SINGLE, 1.5)
    assert values == {"kappa": 0.0, "auc": 0.75}
    truth = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    decision = Decision((0.1, 0.9))
    values = own_metrics({"wrong": hamming_loss}, torch.zeros(2, 2), truth, MULTI, 1.0, decision)
    assert values == {"wrong": 0.25}
    values = own_metrics({"worst": max_error}, torch.tensor([[1.0], [2.0]]), torch.tensor([1.5, 4.0]), REGRESSION)
    assert values == {"worst": 2.0}
    shapes = []
    own_metrics(
        {"see": lambda truth, predicted, probabilities: shapes.append(probabilities.shape) or 1}, logits, labels, SINGLE
    )
    assert shapes == [(4, 2)]


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ([cohen_kappa_score], "`metrics` is a list; a dict of functions by name is expected"),
        ({"accuracy": cohen_kappa_score}, "'accuracy', which is the name of one of ptune's"),
        ({"seconds": cohen_kappa_score}, "'seconds', which is the name of one of ptune's"),
        ({"lost": cohen_kappa_score}, "'lost', which is the name of one of ptune's"),
        ({"chance": cohen_kappa_score}, "'chance', which is the name of one of ptune's"),
        ({"my metric": cohen_kappa_score}, "'my metric', which is not a name of letters"),
        ({"kappa": 0.5}, "`metrics` has a float as 'kappa'; a function"),
    ],
)
def test_what_is_no_function_with_a_name_of_its_own_is_refused(metrics, message) -> None:
    with pytest.raises(ConfigError, match=message):
        check_metrics(metrics, SINGLE)


def test_a_regression_has_no_probabilities() -> None:
    with pytest.raises(ConfigError, match="metric 'auc' has a parameter `probabilities`, but a regression has none"):
        check_metrics({"auc": auc}, REGRESSION)


def fail(truth, predicted):
    raise KeyError("threshold")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (fail, "metric 'mine' failed with KeyError: 'threshold'; it is called as mine"),
        (lambda truth: 1.0, "metric 'mine' failed with TypeError"),
        (lambda truth, predicted: truth, "metric 'mine' returned a ndarray; a number is expected"),
        (lambda truth, predicted: None, "metric 'mine' returned a NoneType"),
        (lambda truth, predicted: np.nan, "metric 'mine' returned nan; return a number in every epoch"),
    ],
)
def test_a_function_that_fails_is_named_before_anything_is_trained(function, message, backbone, tmp_path) -> None:
    rows = review_rows(24)
    model = ptune.PromptClassifier.for_data(backbone("bert"), rows, ptune.PromptConfig(virtual_tokens=3))
    with pytest.raises(ConfigError, match=message):
        ptune.train(model, rows, output=tmp_path, metrics={"mine": function})
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def trained(backbone, tmp_path_factory):
    """Three epochs; the metric of the second is the highest."""
    rows, folder, calls = review_rows(40, seed=4), tmp_path_factory.mktemp("own"), []

    def mine(truth, predicted):
        calls.append(len(truth))
        return [0.0, 0.1, 0.9, 0.05][len(calls) - 1]  # the first call is before training

    model = ptune.PromptClassifier.for_data(backbone("bert"), rows, ptune.PromptConfig(virtual_tokens=3))
    config = ptune.TrainConfig(epochs=6, patience=1)
    metrics = {"mine": mine, "f2": lambda truth, predicted: fbeta_score(truth, predicted, beta=2, zero_division=0)}
    return ptune.train(model, rows, config, output=folder, metrics=metrics, best="mine"), rows


def test_an_own_metric_picks_the_best_epoch_and_stops_early(trained) -> None:
    result, _ = trained
    assert (result.best_epoch, result.epochs) == (2, 3)
    assert result.metrics["mine"] == 0.9
    assert [line["mine"] for line in result.history] == [0.1, 0.9, 0.05]
    record = json.loads((result.classifier.folder / "ptune.json").read_text())
    assert record["training"]["best"] == "mine"
    assert record["metrics"]["mine"] == 0.9
    file = ptune.read_adapter(result.classifier.folder)
    assert file.record.metrics["f2"] == result.metrics["f2"]
    assert "| `mine` | 0.9000 |" in write_card(file, "me/own")


def test_evaluate_measures_own_metrics_too(trained) -> None:
    result, rows = trained
    data = ptune.load_data(rows)
    evaluation = ptune.evaluate(result.classifier, data, metrics={"kappa": cohen_kappa_score})
    predicted = [answer["label"] for answer in result.classifier.predict(data.validation.texts)]
    truth = [data.labels[label] for label in data.validation.labels]
    assert evaluation.metrics["kappa"] == pytest.approx(cohen_kappa_score(truth, predicted))
    assert evaluation.to_dict()["kappa"] == evaluation.metrics["kappa"]
    with pytest.raises(ConfigError, match="one of ptune's"):
        ptune.evaluate(result.classifier, data, metrics={"loss": cohen_kappa_score})


@pytest.mark.parametrize(("rows", "function"), [(topic_rows(32), hamming_loss), (star_rows(24), max_error)])
def test_several_labels_and_numbers_have_own_metrics(rows, function, backbone, tmp_path) -> None:
    name = "stars" if "stars" in rows[0] else "labels"
    data = ptune.load_data(rows, label=name)
    model = ptune.PromptClassifier.for_data(backbone("bert"), data, ptune.PromptConfig(virtual_tokens=3))
    config = ptune.TrainConfig(epochs=1, seeds=2)
    negative = lambda truth, predicted: -function(truth, predicted)  # noqa: E731
    result = ptune.train(model, data, config, output=tmp_path, metrics={"mine": negative}, best="mine")
    assert result.metrics["mine"] <= 0
    assert set(result.history[0]["by_seed"].values()) >= {result.metrics["mine"]}


def test_best_may_name_one_of_ptunes_metrics_and_nothing_unknown(backbone, tmp_path) -> None:
    rows = review_rows(24)
    model = ptune.PromptClassifier.for_data(backbone("bert"), rows, ptune.PromptConfig(virtual_tokens=3))
    result = ptune.train(model, rows, ptune.TrainConfig(epochs=1), output=tmp_path, best="f1_macro")
    assert json.loads((tmp_path / "ptune.json").read_text())["training"]["best"] == "f1_macro"
    assert result.best_epoch == 1
    with pytest.raises(ConfigError, match="`best` 'kappa' is not a metric of this run; use one of accuracy, f1"):
        ptune.train(model, rows, output=tmp_path, best="kappa")
