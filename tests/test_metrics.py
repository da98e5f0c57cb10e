"""Figures against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from ptune.metrics import collapsed, confusion, evaluate_logits


def test_two_classes_by_hand() -> None:
    labels = torch.tensor([1, 1, 1, 0, 0])
    logits = torch.tensor([[0.0, 1], [0, 1], [1, 0], [1, 0], [0, 1]])  # predicted 1 1 0 0 1: TP 2, FP 1, FN 1, TN 1
    figures = evaluate_logits(logits, labels)
    assert figures["accuracy"] == pytest.approx(3 / 5)
    assert figures["f1"] == pytest.approx(2 / 3)
    assert figures["f1_macro"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert figures["matthews"] == pytest.approx((2 * 1 - 1 * 1) / math.sqrt(3 * 3 * 2 * 2))
    right, wrong = math.log1p(math.exp(-1)), math.log1p(math.exp(1))
    assert figures["loss"] == pytest.approx((3 * right + 2 * wrong) / 5)
    assert figures["count"] == 5
    assert confusion(logits, labels) == [[1, 1], [1, 2]]


def test_with_more_classes_f1_is_the_macro_mean() -> None:
    labels = torch.tensor([0, 1, 2, 2])
    figures = evaluate_logits(torch.eye(3)[[0, 1, 2, 1]], labels)
    assert figures["f1"] == figures["f1_macro"] == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)


def test_collapse_is_one_prediction_for_several_true_classes() -> None:
    always = torch.tensor([[0.0, 1], [0, 1]])
    assert collapsed(always, torch.tensor([0, 1])) == 1
    assert collapsed(always, torch.tensor([1, 1])) is None
    assert collapsed(torch.eye(2), torch.tensor([0, 1])) is None
