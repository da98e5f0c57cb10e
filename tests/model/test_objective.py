"""The loss of each problem type: it equals transformers' loss by default, and each option changes it as documented."""

from __future__ import annotations

import numpy
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor
from torch.nn import functional

from ptune.data.targets import MULTI, REGRESSION, SINGLE, ProblemType
from ptune.model.objective import LARGEST_WEIGHT, Objective, balanced_weights

TYPES: tuple[ProblemType, ...] = (SINGLE, MULTI, REGRESSION)


def batch(problem_type: ProblemType, rows: int = 12, classes: int = 4) -> tuple[Tensor, Tensor]:
    torch.manual_seed(2)
    if problem_type == REGRESSION:
        return torch.randn(rows, 1), torch.randn(rows)
    logits = torch.randn(rows, classes) * 2
    if problem_type == MULTI:
        return logits, torch.randint(0, 2, (rows, classes)).float()
    return logits, torch.randint(0, classes, (rows,))


@pytest.mark.parametrize("problem_type", TYPES)
def test_without_options_the_loss_is_that_of_transformers(problem_type: ProblemType) -> None:
    from transformers import BertConfig
    from transformers.loss.loss_utils import ForSequenceClassificationLoss

    logits, targets = batch(problem_type)
    config = BertConfig(num_labels=logits.shape[1], problem_type=problem_type)
    expected = ForSequenceClassificationLoss(targets, logits, config)
    torch.testing.assert_close(Objective(problem_type)(logits, targets), expected)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("problem_type", [SINGLE, MULTI])
def test_focal_loss_with_gamma_0_is_the_plain_loss_and_with_a_tiny_gamma_close_to_it(problem_type, weighted) -> None:
    logits, targets = batch(problem_type)
    weights = torch.tensor([1.0, 2.0, 0.5, 3.0]) if weighted else None
    plain = Objective(problem_type, weights)(logits, targets)
    assert torch.equal(Objective(problem_type, weights, focal=0.0)(logits, targets), plain)
    torch.testing.assert_close(Objective(problem_type, weights, focal=1e-5)(logits, targets), plain, rtol=1e-4, atol=0)


def test_focal_loss_follows_the_formula_of_its_paper() -> None:
    logits, targets = batch(SINGLE)
    correct = logits.softmax(dim=1)[torch.arange(len(targets)), targets]
    expected = (-((1 - correct) ** 2) * correct.log()).mean()
    torch.testing.assert_close(Objective(SINGLE, focal=2.0)(logits, targets), expected)

    logits, targets = batch(MULTI)
    correct = torch.where(targets == 1, logits.sigmoid(), 1 - logits.sigmoid())
    expected = (-((1 - correct) ** 1.5) * correct.log()).mean()
    torch.testing.assert_close(Objective(MULTI, focal=1.5)(logits, targets), expected)


@pytest.mark.parametrize("gamma", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("problem_type", [SINGLE, MULTI])
def test_focal_loss_has_finite_gradients_for_confident_predictions(problem_type, gamma) -> None:
    targets = torch.tensor([0, 1]) if problem_type == SINGLE else torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    logits = torch.tensor([[90.0, -90.0], [90.0, -90.0]], requires_grad=True)
    loss = Objective(problem_type, focal=gamma)(logits, targets)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_class_weights_multiply_row_losses_without_being_normalised() -> None:
    logits, targets = batch(SINGLE)
    weights = torch.tensor([1.0, 2.0, 0.5, 3.0])
    rows = functional.cross_entropy(logits, targets, reduction="none")
    expected = (rows * weights[targets]).sum() / len(targets)
    torch.testing.assert_close(Objective(SINGLE, weights)(logits, targets), expected)


@pytest.mark.parametrize(
    "objective",
    [
        Objective(SINGLE, torch.tensor([1.0, 2.0, 0.5, 3.0]), focal=2.0, label_smoothing=0.1),
        Objective(MULTI, torch.tensor([1.0, 2.0, 0.5, 3.0]), focal=2.0),
        Objective(REGRESSION, scale=3.0),
    ],
    ids=lambda objective: objective.problem_type,
)
def test_the_losses_of_the_parts_of_a_batch_add_up_to_the_loss_of_the_batch(objective: Objective) -> None:
    logits, targets = batch(objective.problem_type)
    parts = [slice(0, 5), slice(5, 7), slice(7, 12)]
    total = sum(objective(logits[part], targets[part]) * (part.stop - part.start) / 12 for part in parts)
    torch.testing.assert_close(total, objective(logits, targets))


def test_label_smoothing_spreads_a_share_over_all_classes() -> None:
    logits, targets = batch(SINGLE)
    expected = 0.8 * functional.cross_entropy(logits, targets) - 0.2 * logits.log_softmax(dim=1).mean()
    torch.testing.assert_close(Objective(SINGLE, label_smoothing=0.2)(logits, targets), expected)


def test_positive_weights_multiply_the_losses_of_labels_that_apply() -> None:
    logits, targets = batch(MULTI)
    weights = torch.tensor([1.0, 2.0, 0.5, 3.0])
    expected = functional.binary_cross_entropy_with_logits(logits, targets, pos_weight=weights)
    torch.testing.assert_close(Objective(MULTI, weights)(logits, targets), expected)


def test_regression_errors_are_measured_in_units_of_the_scale() -> None:
    logits, targets = batch(REGRESSION)
    expected = functional.mse_loss(logits[:, 0], targets) / 9
    torch.testing.assert_close(Objective(REGRESSION, scale=3.0)(logits, targets), expected)


def test_balanced_class_weights_equal_those_of_scikit_learn() -> None:
    targets = torch.tensor([0] * 50 + [1] * 3 + [2] * 7)
    expected = compute_class_weight("balanced", classes=numpy.arange(3), y=targets.numpy())
    weights = balanced_weights(SINGLE, targets, 3)
    torch.testing.assert_close(weights, torch.tensor(expected).float())
    assert weights[targets].mean() == pytest.approx(1)


def test_a_class_without_rows_does_not_change_the_weights_of_the_others() -> None:
    targets = torch.tensor([0, 0, 0, 2])
    weights = balanced_weights(SINGLE, targets, 4)
    assert weights.isfinite().all()
    assert weights[[0, 2]].tolist() == pytest.approx([4 / (2 * 3), 4 / 2])


def test_positive_weights_are_negatives_divided_by_positives_up_to_a_limit() -> None:
    targets = torch.zeros(100, 4)
    targets[:20, 0] = targets[:80, 1] = targets[:1, 2] = 1
    assert balanced_weights(MULTI, targets, 4).tolist() == pytest.approx([4, 0.25, LARGEST_WEIGHT, LARGEST_WEIGHT])
