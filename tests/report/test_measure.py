"""Numbers of a report from logits and targets."""

from __future__ import annotations

import pytest
import torch

from ptune.data.splits import Split
from ptune.data.targets import MULTI, REGRESSION, SINGLE
from ptune.evaluation.metrics import evaluate_logits
from ptune.model.decision import Decision
from ptune.report import measure

LABELS = ["a", "b", "c", "d"]
HALF = Decision()


@pytest.fixture
def single():
    generator = torch.Generator().manual_seed(3)
    return 3 * torch.randn(200, 4, generator=generator), torch.randint(4, (200,), generator=generator)


@pytest.fixture
def several():
    generator = torch.Generator().manual_seed(4)
    return 2 * torch.randn(60, 4, generator=generator), (torch.rand(60, 4, generator=generator) > 0.6).float()


def test_errors_of_calibration_are_those_of_the_metrics(single) -> None:
    logits, targets = single
    found = measure.calibration(logits, targets, SINGLE, 2.5)
    metrics = evaluate_logits(logits, targets, temperature=2.5)
    assert (found.error_before, found.error_after) == pytest.approx((metrics["ece_raw"], metrics["ece"]), abs=1e-6)
    for bins, error in ((found.before, found.error_before), (found.after, found.error_after)):
        assert sum(one.rows for one in bins) == 200
        gaps = sum(one.rows * abs(one.confidence - one.accuracy) for one in bins) / 200
        assert gaps == pytest.approx(error, abs=1e-6)
        assert all(one.low - 1e-9 <= one.confidence <= one.high + 1e-9 for one in bins)


def test_calibration_of_several_labels_looks_at_every_probability(several) -> None:
    found = measure.calibration(*several, MULTI, 1.0)
    assert sum(one.rows for one in found.after) == 240
    assert measure.calibration(torch.zeros(3, 1), torch.zeros(3), REGRESSION, 1.0) is None


def test_coverage_ends_at_the_accuracy_of_all_rows(single) -> None:
    logits, targets = single
    certain, right = measure.certainty(logits, SINGLE, 1.0, HALF), measure.correct(logits, targets, SINGLE, HALF)
    points = measure.coverage(certain, right)
    assert (points[0].share, points[-1].share) == (10 / 200, 1)
    assert points[-1].accuracy == pytest.approx(evaluate_logits(logits, targets)["accuracy"])
    assert [point.share for point in points] == sorted({point.share for point in points})
    half = next(point for point in points if point.share == 0.5)
    kept = certain >= half.certainty
    assert half.accuracy == pytest.approx(float(right[kept].double().mean()))


def test_rows_of_equal_certainty_are_answered_together() -> None:
    (point,) = measure.coverage(torch.full((7,), 0.5), torch.arange(7) < 3)
    assert (point.share, point.accuracy, point.certainty) == (1, pytest.approx(3 / 7), 0.5)


def test_certainty_of_several_labels_is_that_of_the_least_clear_one() -> None:
    logits = torch.tensor([[4.0, -0.2, -4.0, -4.0], [-1.0, -5.0, -5.0, -5.0]])
    decision = Decision((0.5,) * 4, at_least_one=True)
    found = measure.certainty(logits, MULTI, 1.0, decision)
    wanted = [1 - torch.sigmoid(torch.tensor(-0.2)).item(), torch.sigmoid(torch.tensor(-1.0)).item()]
    assert found.tolist() == pytest.approx(wanted)


def test_pairs_count_what_is_taken_for_what() -> None:
    targets = torch.tensor([0, 0, 0, 1, 1, 2])
    logits = torch.nn.functional.one_hot(torch.tensor([1, 1, 0, 0, 1, 2]), 4).float()
    pairs = measure.confused_pairs(logits, targets, LABELS, SINGLE, HALF)
    assert [(pair.truth, pair.predicted, pair.rows) for pair in pairs] == [("a", "b", 2), ("b", "a", 1)]
    assert pairs[0].share == pytest.approx(2 / 3)


def test_pairs_of_several_labels_join_what_is_missing_and_what_is_too_much() -> None:
    truth = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]]).float()
    given = torch.tensor([[0, 1, 1, 0], [0, 0, 1, 1], [0, 0, 0, 1]])
    pairs = measure.confused_pairs(20.0 * given - 10, truth, LABELS, MULTI, HALF)
    assert [(pair.truth, pair.predicted, pair.rows, pair.share) for pair in pairs] == [
        ("a", "c", 2, 1),
        ("a", "d", 1, 0.5),
    ]


def test_telling_rows_are_confident_mistakes_and_uncertain_answers() -> None:
    logits = torch.tensor([[5.0, 0], [0, 3.0], [0.1, 0], [0, 9.0]])
    split = Split(["w", "x", "y", "z"], ["1", "2", "3", "4"], [1, 0, 0, 1])
    mistakes, uncertain = measure.telling_rows(split, logits, torch.tensor([1, 0, 0, 1]), ["n", "p"], SINGLE, 1.0, HALF)
    assert [(row.row, row.texts, row.truth, row.answer) for row in mistakes] == [
        (1, ("w", "1"), "p", "n"),
        (2, ("x", "2"), "n", "p"),
    ]
    assert [row.row for row in uncertain] == [3, 2, 1, 4]
    assert mistakes[0].certainty == pytest.approx(torch.tensor([5.0, 0]).softmax(0)[0].item())


def test_telling_rows_of_a_regression_are_those_with_the_largest_errors() -> None:
    split = Split(["w", "x", "y"], None, [1.0, 2.0, 3.0])
    mistakes, uncertain = measure.telling_rows(
        split, torch.tensor([[1.5], [9.0], [3.0]]), torch.tensor([1.0, 2.0, 3.0]), ["n"], REGRESSION, 1.0, HALF
    )
    assert [(row.row, row.truth, row.answer, row.certainty) for row in mistakes[:2]] == [
        (2, "2", "9", 7),
        (1, "1", "1.5", 0.5),
    ]
    assert uncertain == []


def test_thresholds_are_shown_with_several_labels_alone() -> None:
    scores = {"a": {"precision": 1.0, "recall": 0.5, "f1": 2 / 3, "support": 4}}
    assert measure.label_scores(scores, MULTI, Decision((0.2,)))[0].threshold == 0.2
    assert measure.label_scores(scores, SINGLE, HALF)[0].threshold is None
    assert measure.label_scores(None, REGRESSION, HALF) == []
