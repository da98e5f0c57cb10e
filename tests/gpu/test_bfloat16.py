"""bfloat16, the default on GPUs, answers as float32 does, but for the error of its eight bits."""

from __future__ import annotations

import pytest

from tests.gpu.conftest import CASES, IDS, MASK, ROUNDING, answer, classifier, distance

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]

LOGITS, SLOPES = ROUNDING


@pytest.mark.parametrize(("family", "method"), CASES)
def test_bfloat16_is_float32_within_its_error(family, method, load, backbone) -> None:
    logits, slopes = answer(classifier(load(family, dtype="bfloat16"), method), IDS, MASK)
    expected, expected_slopes = answer(classifier(backbone(family), method), IDS, MASK)
    assert 0 < distance(logits, expected) < LOGITS  # 0: it was not computed in bfloat16
    assert distance(slopes, expected_slopes) < SLOPES


@pytest.mark.parametrize(("family", "method"), CASES)
def test_a_padded_row_is_answered_as_alone(family, method, load) -> None:
    model = classifier(load(family, dtype="bfloat16"), method)
    together, _ = answer(model, IDS, MASK)
    for row, ids in enumerate(IDS):
        alone, _ = answer(model, ids[None, ids > 0], None)
        assert distance(together[row], alone[0]) < LOGITS
