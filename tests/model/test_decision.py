"""Which labels apply: a threshold for each label, and the most probable one where a row must have one."""

from __future__ import annotations

import pytest
import torch

from ptune.errors import ConfigError
from ptune.model.decision import Decision

LOGITS = torch.logit(torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.1, 0.05]]))  # [2, 3]


def test_labels_apply_above_one_half_unless_they_have_thresholds() -> None:
    assert Decision().applies(LOGITS).tolist() == [[True, False, False], [False, False, False]]
    assert Decision((0.7, 0.2, 0.04)).applies(LOGITS).tolist() == [[False, True, True], [False, False, True]]


def test_the_most_probable_label_applies_where_every_row_has_one() -> None:
    assert Decision((), True).applies(LOGITS).tolist() == [[True, False, False], [True, False, False]]
    assert Decision((0.9, 0.9, 0.04), True).applies(LOGITS).tolist() == [[False, False, True], [False, False, True]]
    assert Decision((), True).applies(LOGITS[:0]).shape == (0, 3)


def test_thresholds_are_replaced_for_all_labels_or_for_some() -> None:
    fitted = Decision((0.1, 0.2, 0.3), True)
    assert fitted.with_threshold(0.4, ["a", "b", "c"]) == Decision((0.4, 0.4, 0.4), False)
    assert fitted.with_threshold({"b": 0.4}, ["a", "b", "c"]) == Decision((0.1, 0.4, 0.3), True)
    assert Decision().with_threshold({"b": 0.4}, ["a", "b", "c"]) == Decision((0.5, 0.4, 0.5), False)


@pytest.mark.parametrize(
    ("threshold", "message"),
    [(0.0, "`threshold` is 0.0; a probability between 0 and 1"), (1, "is 1"), ({"d": 0.3}, "names label 'd'")],
)
def test_a_threshold_that_is_no_probability_or_of_no_label_is_refused(threshold, message) -> None:
    with pytest.raises(ConfigError, match=message):
        Decision().with_threshold(threshold, ["a", "b", "c"])
