"""Repeats, leaks, conflicts and near-repeats."""

from __future__ import annotations

import pytest

from ptune.data.check.copies import conflicts, leaks, repeats, text_groups
from ptune.data.check.near import near_copies, near_groups
from ptune.data.check.rows import read_rows

TEXT = "the quick train leaves the small station at nine"


def rows_of(train, validation=None, test=None):
    tables = {"train": train, "validation": validation, "test": test}
    return read_rows({name: rows for name, rows in tables.items() if rows}, label="label")


def row(text, label="a", **more):
    return {"text": text, "label": label, **more}


def numbers(finding):
    return [(row.split, row.number) for row in finding.rows]


def test_a_repeat_may_differ_in_capitals_blanks_and_forms_of_characters() -> None:
    rows = rows_of([row("Ａ café"), row("b", "b"), row("a  CAFE\u0301"), row("a cafe")])
    (finding,) = repeats(rows, text_groups(rows))
    assert numbers(finding) == [("train", 3)]
    assert [[row.number for row in group] for group in finding.groups] == [[1, 3]]


def test_a_copy_with_another_label_is_a_conflict_and_no_repeat() -> None:
    rows = rows_of([row("x", "a"), row("X", "b"), row("y", "b")], [row("y", "a"), row("z", "a")])
    groups = text_groups(rows)
    assert list(repeats(rows, groups)) == []
    (finding,) = conflicts(rows, groups)
    assert numbers(finding) == [("train", 1), ("train", 2), ("train", 3), ("validation", 1)]
    assert finding.message == "2 texts have rows with different labels"


def test_a_leak_names_the_rows_that_have_to_go() -> None:
    rows = rows_of([row("x"), row("y", "b")], [row("x"), row("z", "b")], [row("z", "b"), row("x")])
    (finding,) = leaks(rows, text_groups(rows))
    assert numbers(finding) == [("train", 1), ("validation", 1), ("validation", 2)]


def test_both_texts_of_a_pair_have_to_be_the_same() -> None:
    pairs = [("a", "b"), ("a", "c"), ("A", "b")]
    rows = read_rows([{"text": one, "text_pair": two, "label": str(i % 2)} for i, (one, two) in enumerate(pairs)])
    (finding,) = repeats(rows, text_groups(rows))
    assert numbers(finding) == [("train", 3)]


@pytest.mark.parametrize(
    ("other", "near"),
    [
        (f"{TEXT}!", True),
        (f"{TEXT} now", True),
        ("the quick train leaves the small village at ten", False),
        ("another text that has nothing to do with it", False),
    ],
)
def test_a_near_repeat_shares_most_of_its_characters(other, near) -> None:
    rows = rows_of([row(TEXT), row(other, "b")])
    assert len(list(near_copies(rows))) == near


def test_exact_copies_are_no_near_repeats() -> None:
    assert list(near_copies(rows_of([row(TEXT), row(TEXT.upper(), "b")]))) == []


def test_an_exact_copy_beside_a_near_repeat_is_not_counted_twice() -> None:
    (finding,) = near_copies(rows_of([row(TEXT), row(f"{TEXT}!", "b"), row(TEXT.upper()), row(f"{TEXT} now", "b")]))
    assert numbers(finding) == [("train", 2), ("train", 4)]


def test_near_repeats_between_splits_name_the_training_rows() -> None:
    (finding,) = near_copies(rows_of([row("something else entirely"), row(TEXT, "b")], [row(f"{TEXT} now", "b")]))
    assert finding.kind == "near_leaks"
    assert numbers(finding) == [("train", 2)]


def test_near_repeats_in_chinese_differ_in_a_character_or_two() -> None:
    texts = [
        "富力地产与世博同行营造低碳绿色新生活",
        "富力地产与世博同行营造低碳绿色的新生活",
        "股市在线今日股市早班车已经出发",
    ]
    groups = near_groups(rows_of([row(text, str(i)) for i, text in enumerate(texts)]).usable)
    assert [[row.number for row in group] for group in groups] == [[1, 2]]


def test_a_pair_is_near_only_if_both_texts_are() -> None:
    other = "a completely different second sentence of the pair"
    pairs = [(TEXT, f"{TEXT} again"), (f"{TEXT}!", other), (f"{TEXT}?", f"{TEXT} again!")]
    rows = read_rows([{"text": one, "text_pair": two, "label": str(i % 2)} for i, (one, two) in enumerate(pairs)])
    groups = near_groups(rows.usable)
    assert [[row.number for row in group] for group in groups] == [[1, 3]]


def test_texts_may_be_short_or_hold_half_a_character() -> None:
    rows = rows_of([row("a"), row("b", "b"), row("\U0001f642"), row("..", "b"), row(TEXT), row(f"{TEXT}x", "b")])
    assert [[row.number for row in group] for group in near_groups(rows.usable)] == [[5, 6]]
