"""Columns, ids and words that give the label away."""

from __future__ import annotations

import random

import pytest

from ptune.data.check.giveaways import columns, order, words
from ptune.data.check.rows import read_rows


def rows_of(**cells):
    rand = random.Random(3)
    labels = [rand.choice(["ham", "spam"]) for _ in range(60)]
    rows = [
        {
            "text": f"text {number}",
            "label": label,
            **{name: cell(number, label, rand) if callable(cell) else cell for name, cell in cells.items()},
        }
        for number, label in enumerate(labels)
    ]
    return read_rows(rows)


def by_label(number, label, rand):
    return {"ham": 1, "spam": 2}[label]


def at_random(number, label, rand):
    return rand.choice("abc")


def number_in_order(number, label, rand):
    return number + (1000 if label == "spam" else 0)


@pytest.mark.parametrize(
    ("cell", "how"),
    [(by_label, "its value"), (lambda number, label, rand: f"{label}_{number}", "its value without digits")],
)
def test_a_column_that_tells_the_label_is_found(cell, how) -> None:
    (finding,) = columns(rows_of(source=cell))
    assert finding.details["column"] == "source"
    assert finding.details["how"] == how


@pytest.mark.parametrize("cell", [at_random, "same", None, lambda number, label, rand: number])
def test_other_columns_are_not(cell) -> None:
    rows = rows_of(source=cell)
    assert [*columns(rows), *order(rows)] == []


def test_ids_in_the_order_of_labels_are_found() -> None:
    (finding,) = order(rows_of(id=number_in_order))
    assert finding.details["how"] == "its order"


def test_a_word_of_all_rows_of_a_label_is_found() -> None:
    rows = rows_of()
    marked = [{"text": f"{'[fwd] ' if row.label == 'spam' else ''}{row.text}", "label": row.label} for row in rows.all]
    (finding,) = words(read_rows(marked))
    assert finding.details["label"] == "spam"
    assert "fwd" in finding.details["words"]


def test_a_word_of_the_label_itself_is_what_should_be_learned() -> None:
    rows = [{"text": f"{'spam' if n % 2 else 'other'} {n}", "label": "spam" if n % 2 else "other"} for n in range(60)]
    assert list(words(read_rows(rows))) == []


def test_a_frequent_label_alone_gives_nothing_away() -> None:
    rows = [{"text": f"t{n}", "label": "rare" if n % 50 == 0 else "often", "lot": n // 10} for n in range(200)]
    assert list(columns(read_rows(rows))) == []
