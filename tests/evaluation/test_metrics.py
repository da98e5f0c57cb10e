"""Metrics, compared with values computed by hand and with other libraries."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ptune.data.targets import MULTI, REGRESSION, SINGLE
from ptune.evaluation.metrics import by_label, collapsed, confusion, describe_collapse, evaluate_logits


def test_metrics_of_two_classes_equal_values_computed_by_hand() -> None:
    labels = torch.tensor([1, 1, 1, 0, 0])
    logits = torch.tensor([[0.0, 1], [0, 1], [1, 0], [1, 0], [0, 1]])  # predicted 1 1 0 0 1: TP 2, FP 1, FN 1, TN 1
    metrics = evaluate_logits(logits, labels)
    assert metrics["accuracy"] == pytest.approx(3 / 5)
    assert metrics["f1"] == pytest.approx(2 / 3)
    assert metrics["f1_macro"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert metrics["matthews"] == pytest.approx((2 * 1 - 1 * 1) / math.sqrt(3 * 3 * 2 * 2))
    right, wrong = math.log1p(math.exp(-1)), math.log1p(math.exp(1))
    assert metrics["loss"] == pytest.approx((3 * right + 2 * wrong) / 5)
    assert metrics["count"] == 5
    assert confusion(logits, labels) == [[1, 1], [1, 2]]


def test_with_more_classes_f1_is_the_macro_mean() -> None:
    labels = torch.tensor([0, 1, 2, 2])
    metrics = evaluate_logits(torch.eye(3)[[0, 1, 2, 1]], labels)
    assert metrics["f1"] == metrics["f1_macro"] == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)


def test_collapse_is_one_prediction_for_several_true_classes() -> None:
    always = torch.tensor([[0.0, 1], [0, 1]])
    assert collapsed(always, torch.tensor([0, 1])) == 1
    assert collapsed(always, torch.tensor([1, 1])) is None
    assert collapsed(torch.eye(2), torch.tensor([0, 1])) is None


def test_multi_label_metrics_equal_values_computed_by_hand() -> None:
    labels = torch.tensor([[1.0, 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 0]])
    logits = torch.tensor([[2.0, -1, 3], [1, 2, -1], [-1, -2, -3], [1, -1, -1]])
    metrics = evaluate_logits(logits, labels, MULTI)
    assert metrics["accuracy"] == 0.5
    assert metrics["f1"] == pytest.approx(2 * 4 / (2 * 4 + 1 + 1))
    assert metrics["f1_macro"] == pytest.approx((4 / 5 + 2 / 3 + 1) / 3)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits.double(), labels.double())
    assert metrics["loss"] == pytest.approx(float(expected))
    assert metrics["count"] == 4
    assert by_label(logits, labels) == [
        {"precision": pytest.approx(2 / 3), "recall": 1.0, "f1": pytest.approx(4 / 5), "support": 2},
        {"precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "support": 2},
        {"precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 1},
    ]


def test_a_multi_label_task_may_have_a_single_label() -> None:
    metrics = evaluate_logits(torch.tensor([[1.0], [-1.0]]), torch.tensor([[1.0], [1.0]]), MULTI)
    assert (metrics["accuracy"], metrics["f1"]) == (0.5, pytest.approx(2 / 3))


@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=3, max_size=30))
@settings(deadline=None, max_examples=60)
def test_regression_metrics_equal_those_of_scipy_and_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    from scipy.stats import pearsonr, spearmanr
    from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

    predicted, truth = ([float(pair[place]) for pair in pairs] for place in (0, 1))
    metrics = evaluate_logits(torch.tensor(predicted)[:, None], torch.tensor(truth), REGRESSION)
    assert metrics["mse"] == metrics["loss"] == pytest.approx(mean_squared_error(truth, predicted))
    assert metrics["mae"] == pytest.approx(mean_absolute_error(truth, predicted))
    assert metrics["r2"] == pytest.approx(r2_score(truth, predicted))
    if len(set(predicted)) > 1 and len(set(truth)) > 1:
        assert metrics["pearson"] == pytest.approx(pearsonr(truth, predicted).statistic, abs=1e-9)
        assert metrics["spearman"] == pytest.approx(spearmanr(truth, predicted).statistic, abs=1e-9)
    else:
        assert (metrics["pearson"], metrics["spearman"]) == (0, 0)


def test_one_row_and_constant_predictions_have_finite_metrics() -> None:
    for rows in (1, 3):
        metrics = evaluate_logits(torch.full((rows, 1), 0.1), torch.arange(rows).float(), REGRESSION)
        assert all(math.isfinite(value) for value in metrics.values())
        assert metrics["pearson"] == 0


def test_collapse_is_described_if_the_labels_vary() -> None:
    names = ["low", "high"]
    assert describe_collapse(torch.tensor([[0.0, 1], [0, 1]]), torch.tensor([0, 1]), names, SINGLE) == (
        "every prediction is 'high'"
    )
    truth = torch.tensor([[1.0, 0], [0, 1]])
    for row, described in (
        ([1.0, 1.0], "'low', 'high'"),
        ([-1.0, 1.0], "'high'"),
        ([-1.0, -1.0], "that no label applies"),
    ):
        logits = torch.tensor([row, row])
        assert describe_collapse(logits, truth, names, MULTI) == f"every prediction is {described}"
        assert describe_collapse(logits, torch.ones(2, 2), names, MULTI) is None
    assert describe_collapse(torch.tensor([[1.0, 1], [1, -1]]), truth, names, MULTI) is None
    numbers = torch.tensor([1.0, 5.0])
    assert describe_collapse(torch.tensor([[3.0], [3.0001]]), numbers, ["x"], REGRESSION) == "every prediction is 3"
    assert describe_collapse(torch.tensor([[3.0], [3.1]]), numbers, ["x"], REGRESSION) is None
    assert describe_collapse(torch.tensor([[3.0], [3.0]]), torch.ones(2), ["x"], REGRESSION) is None


def test_multi_label_metrics_equal_those_of_scikit_learn() -> None:
    from sklearn.metrics import f1_score, precision_recall_fscore_support

    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(50, 4, generator=generator) - torch.tensor([0.0, 1, 9, 0])
    labels = (torch.rand(50, 4, generator=generator) < torch.tensor([0.5, 0.2, 0.1, 0])).float()
    metrics, named = evaluate_logits(logits, labels, MULTI), (logits > 0).int()
    for name, average in (("f1", "micro"), ("f1_macro", "macro")):
        assert metrics[name] == pytest.approx(f1_score(labels.int(), named, average=average, zero_division=0))
    columns = precision_recall_fscore_support(labels.int(), named, zero_division=0)
    rows = [list(row.values()) for row in by_label(logits, labels)]
    assert rows == [pytest.approx(row) for row in zip(*columns, strict=True)]
