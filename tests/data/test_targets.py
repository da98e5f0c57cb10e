"""The meaning of the cells of a label column, and the problem type that follows from them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptune.data.targets import (
    MULTI,
    REGRESSION,
    SINGLE,
    label_of,
    labels_of,
    number_of,
    settle_problem_type,
)
from ptune.errors import ConfigError, DataError

WHERE = "train.csv, row 7"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("positive", "positive"),
        (" positive ", "positive"),
        ("3", 3),
        ("-1", -1),
        (4, 4),
        (2.0, 2),
        (True, "true"),
        (False, "false"),
        ("007", "007"),
        ("+5", "+5"),
        ("1.5", "1.5"),
        ("-0", "-0"),
        ("--5", "--5"),
        ("-", "-"),
        ("٣", "٣"),
        ("1" * 5000, "1" * 5000),
    ],
)
def test_labels_that_read_like_whole_numbers_are_numbers(value: object, expected: object) -> None:
    label = label_of(value, "label", WHERE)
    assert label == expected
    assert type(label) is type(expected)


@pytest.mark.parametrize(
    "value", [None, "", "  ", float("nan"), 1.5, float("inf"), ["a", "b"], ("a", "b"), {"a": 1}, b"positive"]
)
def test_what_is_no_label_is_named_by_row(value: object) -> None:
    with pytest.raises(DataError) as caught:
        label_of(value, "label", WHERE)
    assert str(caught.value).startswith(WHERE)


@given(st.integers() | st.text(min_size=1).filter(str.strip))
def test_a_label_means_the_same_as_text_and_as_number(value: int | str) -> None:
    as_text = label_of(str(value), "label", WHERE)
    assert str(as_text) == str(value).strip()


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["good", "bad"], SINGLE),
        ([0, 1, 2], SINGLE),
        (["1", "2"], SINGLE),
        ([1.0, 2.0], SINGLE),
        ([True, False], SINGLE),
        ([0.5, "bad"], SINGLE),
        (["v1.5", "2.5"], SINGLE),
        ([], SINGLE),
        ([None, None], SINGLE),
        ([["a"], []], MULTI),
        ([None, ("a", "b")], MULTI),
        ([[]], MULTI),
        ([0.5, 1, 2], REGRESSION),
        (["3.8", "2", " -1e-1 "], REGRESSION),
        ([None, 1.5, float("nan"), ""], REGRESSION),
        ([Decimal("2.50")], REGRESSION),
    ],
)
def test_the_problem_type_is_guessed_from_the_cells(cells: list[Any], expected: str) -> None:
    assert settle_problem_type(None, None, cells)[0] == expected


def test_what_is_asked_for_wins_over_the_guess() -> None:
    assert settle_problem_type(REGRESSION, None, [1, 2])[0] == REGRESSION
    assert settle_problem_type(SINGLE, None, ["1.5", "2.5"])[0] == SINGLE


def test_a_separator_says_that_there_are_several_labels() -> None:
    assert settle_problem_type(None, "|", ["a|b", "c"]) == (MULTI, "labels are separated by '|'")
    with pytest.raises(ConfigError, match="regression"):
        settle_problem_type(REGRESSION, "|", ["a|b"])
    with pytest.raises(ConfigError, match="empty"):
        settle_problem_type(None, " ", ["a b"])


@pytest.mark.parametrize(
    ("cell", "separator", "expected"),
    [
        (["a", " b "], None, ["a", "b"]),
        ([2, "3"], None, [2, 3]),
        ([], None, []),
        (("a",), "|", ["a"]),
        ("a|b", "|", ["a", "b"]),
        (" a | 4 |", "|", ["a", 4]),
        ("", "|", []),
        (None, "|", []),
        ("a, b", ", ", ["a", "b"]),
    ],
)
def test_several_labels_are_a_list_or_parted_text(cell: Any, separator: str | None, expected: list[Any]) -> None:
    assert labels_of(cell, "topics", WHERE, separator) == expected


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("a|b", "label_separator"),
        (3, "'3'"),
        (None, "nothing"),
        ({"a": 1}, "an object"),
        ([0, 1, 0, 0], "'0' twice"),
        (["a", "a "], "'a' twice"),
        ([["a"]], "a list within a list"),
        ([0.25, 0.75], "0.25 is a fraction"),
        ([None], "has no label"),
    ],
)
def test_what_is_no_list_of_labels_is_named_by_row(cell: Any, expected: str) -> None:
    with pytest.raises(DataError) as caught:
        labels_of(cell, "topics", WHERE)
    assert str(caught.value).startswith(WHERE)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (3, 3.0),
        (2.5, 2.5),
        ("2.5", 2.5),
        (" -.5 ", -0.5),
        ("1e3", 1000.0),
        ("3,5", 3.5),
        ("+7.", 7.0),
        (Decimal("0.1"), 0.1),
    ],
)
def test_numbers_are_numbers_and_text_that_reads_like_one(cell: Any, expected: float) -> None:
    number = number_of(cell, "stars", WHERE)
    assert number == expected
    assert type(number) is float


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("good", "'good'"),
        ("1,234", "'1,234'"),
        ("1_000", "'1_000'"),
        ("nan", "'nan'"),
        ("٣", "'٣'"),
        (True, "'True'"),
        ([1.5], "a list"),
        (None, "no number"),
        (" ", "no number"),
        (float("nan"), "no number"),
        (float("inf"), "inf"),
        ("1e16", "1e+15"),
        (10**400, "1e+15"),
        ("x" * 99, "…"),
    ],
)
def test_what_is_no_number_is_named_by_row(cell: Any, expected: str) -> None:
    with pytest.raises(DataError) as caught:
        number_of(cell, "stars", WHERE)
    assert str(caught.value).startswith(f"{WHERE}: column 'stars'")
    assert expected in str(caught.value)
