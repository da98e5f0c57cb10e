"""Splitting rows that have several labels or a number, and targets as tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ptune.data.columns import Columns
from ptune.data.splits import Split, TextData, hold_back, sample
from ptune.data.targets import MULTI, REGRESSION, SINGLE, ProblemType, Target
from ptune.errors import DataError


def data_of(labels: Sequence[Target], names: int, problem_type: ProblemType) -> TextData:
    """Return data with a row for each target. All texts are different."""
    train = Split([f"text {number}" for number in range(len(labels))], None, labels)
    return TextData({"train": train}, [f"l{n}" for n in range(names)], Columns("text"), "a.csv", (), problem_type)


def count(split: Split) -> Counter[int]:
    return Counter(label for own in split.labels or [] for label in own)  # type: ignore[union-attr]


LABEL_SETS = st.lists(st.sets(st.integers(0, 4), max_size=3), min_size=8, max_size=120)


@given(LABEL_SETS, st.integers(0, 3), st.data())
@settings(deadline=None, max_examples=60)
def test_every_label_of_two_rows_and_more_is_in_both_parts(sets, seed, draw) -> None:
    labels = [tuple(sorted(own)) for own in sets]
    data = hold_back(data_of(labels, 5, MULTI), seed)
    total, kept, held = count(data_of(labels, 5, MULTI).train), count(data.train), count(data.validation)
    assert kept + held == total
    assert len(data.train) + len(data.validation) == len(labels)
    assert len(data.validation) == max(5, round(len(labels) / 10))
    if len(labels) >= 40:  # with fewer rows, five labels may need more rows than a part has
        assert all(kept[label] and held[label] for label, rows in total.items() if rows > 1)
    rows = draw.draw(st.integers(1, len(data.train)))
    assert len(sample(data, seed, rows).train) == rows


def test_labels_are_shared_out_by_their_counts() -> None:
    generator = torch.Generator().manual_seed(0)
    shares = torch.tensor([0.5, 0.2, 0.05, 0.01])
    drawn = torch.rand(2000, 4, generator=generator) < shares
    labels = [tuple(row.nonzero()[:, 0].tolist()) for row in drawn]
    data = hold_back(data_of(labels, 4, MULTI), seed=1)
    held, total = count(data.validation), drawn.sum(dim=0)
    assert len(data.validation) == 200
    assert [held[label] for label in range(4)] == pytest.approx((total / 10).tolist(), rel=0.05, abs=1)
    empty = sum(not own for own in data.validation.labels or [])
    assert abs(empty - sum(not own for own in labels) / 10) < 3  # rows without labels come last and fill both parts
    small = count(sample(data, 1, 100).train)
    assert [small[label] for label in range(4)] == pytest.approx((total / 20).tolist(), rel=0.15, abs=1)


@pytest.mark.parametrize("problem_type", [MULTI, REGRESSION])
def test_the_same_seed_parts_alike_and_another_otherwise(problem_type: ProblemType) -> None:
    labels: list[Target] = [(n % 3,) if n % 5 else () for n in range(60)] if problem_type == MULTI else [*range(60)]
    data = data_of(labels, 3 if problem_type == MULTI else 1, problem_type)
    assert hold_back(data, 4) == hold_back(data, 4)
    assert hold_back(data, 4).validation != hold_back(data, 5).validation
    held = hold_back(data, 4)
    numbers = [[int(text.split()[1]) for text in held.split(name).texts] for name in ("train", "validation")]
    assert numbers == [sorted(numbers[0]), sorted(numbers[1])]
    assert sorted(numbers[0] + numbers[1]) == list(range(60))
    assert held.notes[-1].startswith("split: 6 of 60 rows held back")


def test_numbers_of_all_sizes_are_in_both_parts() -> None:
    targets = [float(n * 37 % 100) ** 2 for n in range(100)]
    data = hold_back(data_of(targets, 1, REGRESSION), seed=3)
    held = sorted(data.validation.labels or [])  # type: ignore[type-var]
    assert [int(value**0.5) // 10 for value in held] == list(range(10))  # type: ignore[operator]
    assert sorted([*held, *(data.train.labels or [])]) == sorted(targets)  # type: ignore[type-var]
    few = sorted(sample(data, 3, 9).train.labels or [])  # type: ignore[type-var]
    assert [int(value**0.5) // 10 for value in few] == pytest.approx(range(9), abs=1)  # type: ignore[operator]


@pytest.mark.parametrize(("labels", "problem_type"), [([(0,), (1,)], MULTI), ([1.0, 2.0], REGRESSION)])
def test_too_few_rows_to_part_are_refused(labels: list[Target], problem_type: ProblemType) -> None:
    with pytest.raises(DataError, match=r"'a\.csv': 2 rows cannot be split into 0 and 2; give more rows"):
        hold_back(data_of(labels, 2, problem_type), 0)


def test_targets_are_indices_or_zeros_and_ones_or_numbers() -> None:
    assert data_of([1, 0], 2, SINGLE).targets("train").tolist() == [1, 0]
    several = data_of([(0, 2), (), (1,)], 3, MULTI).targets("train")
    assert several.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert several.dtype == torch.float32
    assert data_of([(), ()], 3, MULTI).targets("train").tolist() == [[0] * 3] * 2
    numbers = data_of([1.5, 2], 1, REGRESSION).targets("train")
    assert (numbers.tolist(), numbers.dtype) == ([1.5, 2.0], torch.float32)


def test_targets_of_rows_without_labels_are_refused() -> None:
    data = TextData({"test": Split(["a"], None, None)}, ["a", "b"], Columns("text"), "a.csv")
    with pytest.raises(DataError, match="the rows of test have no labels"):
        data.targets("test")


def test_the_commonest_answer_of_several_labels_is_a_set_and_of_numbers_none() -> None:
    assert data_of([(0, 1), (0,), (0, 1), ()], 2, MULTI).majority_share("train") == 0.5
    assert data_of([1.0, 1.0], 1, REGRESSION).majority_share("train") is None
