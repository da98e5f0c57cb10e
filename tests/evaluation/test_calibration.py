"""Calibration, compared with values computed by hand and with a direct search."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

import ptune
from ptune.evaluation.calibration import COLDEST, FEWEST_ROWS, HOTTEST, expected_calibration_error, fit_temperature
from tests.conftest import review_rows, write_jsonl


def test_the_calibration_error_equals_a_value_computed_by_hand() -> None:
    # Two bins have rows: (0.5, 0.6] with confidences 0.55 and 0.58, one of them correct; (0.9, 1] with 0.95, correct.
    probabilities = torch.tensor([[0.55, 0.45], [0.42, 0.58], [0.95, 0.05]])
    labels = torch.tensor([0, 0, 0])
    expected = (abs(0.55 + 0.58 - 1) + abs(0.95 - 1)) / 3
    assert expected_calibration_error(probabilities, labels, bins=10) == pytest.approx(expected, abs=1e-6)


def test_the_error_is_0_if_certain_and_correct_and_1_if_certain_and_wrong() -> None:
    certain = torch.eye(3)[[0, 1, 2]]
    assert expected_calibration_error(certain, torch.tensor([0, 1, 2])) == 0
    assert expected_calibration_error(certain, torch.tensor([1, 2, 0])) == 1


@pytest.mark.parametrize("scale", [0.4, 1.0, 3.0])
def test_the_temperature_reverses_a_scale(scale) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4000, 4, generator=generator) * 2
    labels = torch.multinomial(logits.softmax(dim=1), 1, generator=generator)[:, 0]
    temperature = fit_temperature(logits * scale, labels)
    assert temperature == pytest.approx(scale, rel=0.06)
    losses = [float(cross_entropy(logits * scale / (temperature * factor), labels)) for factor in (0.97, 1, 1.03)]
    assert min(losses) == losses[1]


def test_the_temperature_stays_in_bounds() -> None:
    labels = torch.arange(FEWEST_ROWS) % 2
    correct = torch.eye(2)[labels]
    assert fit_temperature(correct / 500, labels) == pytest.approx(COLDEST)
    assert fit_temperature(correct, 1 - labels) == pytest.approx(HOTTEST)


def test_the_temperature_is_1_if_there_are_too_few_rows() -> None:
    labels = torch.arange(FEWEST_ROWS) % 2
    logits = torch.eye(2)[1 - labels]
    assert fit_temperature(logits[1:], labels[1:]) == 1
    assert fit_temperature(logits, labels) > 1


@pytest.mark.parametrize("rows", [50, 98])
def test_rows_that_are_all_correct_do_not_lead_to_certainty(rows) -> None:
    labels = torch.arange(rows) % 2
    logits = torch.eye(2)[labels] * 5
    probabilities = (logits / fit_temperature(logits, labels)).softmax(dim=1)
    assert probabilities.max(dim=1).values.tolist() == pytest.approx([1 - 1 / (rows + 2)] * rows)


def test_the_adapter_stores_its_temperature_and_predicts_with_it(backbone, tmp_path) -> None:
    write_jsonl(tmp_path / "train.jsonl", review_rows(48, seed=1))
    write_jsonl(tmp_path / "validation.jsonl", review_rows(FEWEST_ROWS, seed=2))
    data = ptune.load_data(tmp_path)
    model = ptune.PromptClassifier.from_backbone(backbone("bert"), labels=data.labels)
    result = ptune.train(model, data, ptune.TrainConfig(epochs=2, lr=0.1, head_lr=0.1), output=tmp_path)
    temperature = result.classifier.temperature
    assert temperature != 1
    loaded = ptune.load(tmp_path, device="cpu")
    assert loaded.temperature == temperature
    text = data.validation.texts[0]
    expected = (loaded.logits([text])[0] / temperature).softmax(dim=0)
    assert list(loaded.predict(text)[0]["scores"].values()) == pytest.approx(expected.tolist())
    logits, truth = loaded.split_logits(data.validation), torch.tensor(data.validation.labels)
    calibrated, raw = cross_entropy(logits / temperature, truth), cross_entropy(logits, truth)
    assert calibrated <= raw + 1e-6
