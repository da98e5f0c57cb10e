"""Thresholds are fitted where the F1 is highest, and follow the common one where a label has few rows."""

from __future__ import annotations

import pytest
import torch

from ptune.evaluation import thresholds
from ptune.evaluation.thresholds import fit_thresholds
from ptune.model.decision import Decision


def f1(applied, truth) -> float:
    return float(2 * (applied & truth).sum() / (applied.sum() + truth.sum()))


def draws(rows: int, seed: int = 0):
    """Logits and labels [rows, 4] whose labels are rare, so that no probability comes near one half."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.rand(rows, 4, generator=generator) < torch.tensor([0.2, 0.1, 0.05, 0.02])
    logits = torch.tensor([-3.5, -4.0, -4.5, -5.0]) + 1.5 * truth + 0.4 * torch.randn(rows, 4, generator=generator)
    return logits, truth


def test_alone_a_label_gets_the_threshold_with_the_highest_f1(monkeypatch) -> None:
    monkeypatch.setattr(thresholds, "EVIDENCE", 0.0)
    logits, truth = draws(300)
    fitted = fit_thresholds(logits, truth.float())
    for label, threshold in enumerate(fitted):
        probabilities = logits[:, label].double().sigmoid()
        best = max(f1(probabilities > value, truth[:, label]) for value in [0.0, *probabilities.tolist()])
        assert f1(probabilities > threshold, truth[:, label]) == pytest.approx(best)


def test_with_few_rows_all_labels_get_about_the_threshold_of_the_highest_micro_f1(monkeypatch) -> None:
    monkeypatch.setattr(thresholds, "EVIDENCE", 1e9)
    logits, truth = draws(60)
    fitted = fit_thresholds(logits, truth.float())
    probabilities = logits.double().sigmoid()
    best = max(f1(probabilities > value, truth) for value in [0.0, *probabilities.flatten().tolist()])
    assert f1(Decision(fitted).applies(logits), truth) == pytest.approx(best, abs=0.03)


def test_fitted_thresholds_answer_where_one_half_answers_nothing() -> None:
    logits, truth = draws(60)
    other, other_truth = draws(400, seed=1)
    assert not Decision().applies(other).any()
    decision = Decision(fit_thresholds(logits, truth.float()))
    assert f1(decision.applies(other), other_truth) > 0.4
    assert all(0 < threshold < 0.5 for threshold in decision.thresholds)


def test_equal_probabilities_and_missing_labels_are_no_trouble() -> None:
    assert fit_thresholds(torch.zeros(6, 3), torch.zeros(6, 3)) == (0.5, 0.5, 0.5)
    (one, other) = fit_thresholds(torch.full((6, 2), -3.0), torch.tensor([[1.0, 0.0]] * 6))
    assert 0 < one < 0.0475
    assert 0 < other < 0.0475
    assert fit_thresholds(torch.tensor([[100.0], [-100.0]]), torch.tensor([[1.0], [0.0]]))[0] == pytest.approx(0.5)
