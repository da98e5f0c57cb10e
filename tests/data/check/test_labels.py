"""Labels that are spelled in two ways, rare, unknown or unequal."""

from __future__ import annotations

from collections import Counter

from ptune.data.check.labels import few_rows, imbalance, one_label, same_names, spellings, typing_errors
from ptune.data.check.rows import read_rows


def rows_of(counts, validation=None):
    def table(some):
        return [
            {"text": f"{label} {number}", "label": label} for label, count in some.items() for number in range(count)
        ]

    return read_rows({"train": table(counts), **({"validation": table(validation)} if validation else {})})


def test_the_most_frequent_spelling_is_the_right_one() -> None:
    counts = Counter({"Pay bill": 3, "pay_bill": 20, "PAY-BILL": 1, "paid": 9})
    assert same_names(counts) == {"Pay bill": "pay_bill", "PAY-BILL": "pay_bill"}


def test_ways_to_write_true_are_one_label_anyway() -> None:
    assert same_names(Counter({"true": 2, "True": 3, "1": 4, "1.0": 2})) == {}


def test_a_rare_label_with_a_wrong_letter_is_a_typing_error() -> None:
    counts = Counter({"business": 40, "busines": 2, "sport": 50, "sports": 45, "class_1": 30, "class_2": 1, "spot": 9})
    assert typing_errors(counts) == {"busines": "business"}


def test_spellings_name_the_rows_of_the_rarer_ones() -> None:
    (finding,) = spellings(rows_of({"news": 20, "News": 2, "other": 20}))
    assert [row.number for row in finding.rows] == [21, 22]
    assert "'News' (2) and 'news' (20)" in finding.message


def test_names_that_come_with_the_data_are_settled() -> None:
    from datasets import ClassLabel, Dataset, Features, Value

    features = Features({"text": Value("string"), "label": ClassLabel(names=["a b", "A B"])})
    data = Dataset.from_dict({"text": ["x", "y"], "label": [0, 1]}, features=features)
    assert list(spellings(read_rows(data))) == []


def test_few_and_unknown_labels() -> None:
    unknown, rare = few_rows(rows_of({"a": 12, "b": 3}, {"a": 2, "c": 1}))
    assert (unknown.kind, [(row.split, row.label) for row in unknown.rows]) == ("unknown_labels", [("validation", "c")])
    assert (rare.kind, rare.details) == ("rare_labels", {"labels": {"b": 3}})


def test_a_single_label_cannot_be_learned() -> None:
    (finding,) = one_label(rows_of({"a": 12}))
    assert finding.message == "all training rows have the label 'a'; a classifier needs at least two"
    assert list(one_label(rows_of({"a": 12, "b": 1}))) == []
    assert list(one_label(read_rows([{"text": "x", "label": 1.5}, {"text": "y", "label": 1.5}]))) == []


def test_labels_are_unequal_from_twenty_times_the_rows() -> None:
    assert list(imbalance(rows_of({"a": 190, "b": 10}))) == []
    (finding,) = imbalance(rows_of({"a": 200, "b": 10}))
    assert finding.message == "label 'a' has 200 training rows (95%) and 'b' 10"


def test_numbers_and_several_labels() -> None:
    numbers = read_rows([{"text": str(n), "label": n + 0.5} for n in range(30)])
    assert [*spellings(numbers), *few_rows(numbers), *imbalance(numbers)] == []
    several = read_rows([{"text": str(n), "label": ["red", "Red"] if n == 0 else ["red"]} for n in range(30)])
    (finding,) = spellings(several)
    assert [row.number for row in finding.rows] == [1]
