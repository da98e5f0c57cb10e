"""The choice of columns, and the text of a row."""

from __future__ import annotations

import pytest

from ptune.data.columns import Columns, choose_columns, text_of
from ptune.errors import DataError

WHERE = "train.csv, row 7"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["text", "label"], Columns("text", None, "label")),
        (["id", "sentence", "label"], Columns("sentence", None, "label")),
        (["label", "sentence1", "sentence2", "idx"], Columns("sentence1", "sentence2", "label")),
        (["premise", "hypothesis", "label"], Columns("premise", "hypothesis", "label")),
        (["question", "sentence", "label"], Columns("question", "sentence", "label")),
        (["question1", "question2", "target"], Columns("question1", "question2", "target")),
        (["utterance", "intent"], Columns("utterance", None, "intent")),
        (["Review", "Sentiment"], Columns("Review", None, "Sentiment")),
        (["words of mine", "class"], Columns("words of mine", None, "class")),
        (["title", "text", "label"], Columns("text", None, "label")),
    ],
)
def test_columns_are_guessed_from_common_names(names: list[str], expected: Columns) -> None:
    assert choose_columns(names, where="a.csv") == expected


def test_named_columns_win_over_guesses() -> None:
    names = ["text", "label", "body", "mood", "reply"]
    assert choose_columns(names, "body", "reply", "mood", where="a.csv") == Columns("body", "reply", "mood")


def test_a_named_text_stands_alone_even_where_a_pair_could_be_guessed() -> None:
    assert choose_columns(["sentence1", "sentence2", "label"], "sentence2", where="a.csv").text_pair is None


def test_the_label_column_is_never_guessed_as_text() -> None:
    assert choose_columns(["topic", "text"], label="text", where="a.csv") == Columns("topic", None, "text")


def test_no_label_is_looked_for_where_none_is_needed() -> None:
    assert choose_columns(["text", "other"], where="a.csv", need_label=False) == Columns("text")


@pytest.mark.parametrize(("field", "place"), [("text", 0), ("text_pair", 1), ("label", 2)])
def test_an_unknown_column_is_named_with_its_setting_and_the_nearest_one(field: str, place: int) -> None:
    wanted: list[str | None] = [None, None, None]
    wanted[place] = "txet"
    with pytest.raises(DataError) as caught:
        choose_columns(["text", "label"], *wanted, where="a.csv")
    assert str(caught.value).startswith(f"a.csv: `{field}` names column 'txet'")
    assert (caught.value.field, caught.value.value, caught.value.expected) == (field, "txet", "'text', 'label'")
    assert "'text', 'label'" in str(caught.value)
    assert "did you mean 'text'?" in str(caught.value)


@pytest.mark.parametrize(
    ("names", "missing"), [(["text", "mark"], "no label column"), (["a", "b", "label"], "no text column")]
)
def test_what_cannot_be_guessed_is_asked_for_by_its_setting(names: list[str], missing: str) -> None:
    with pytest.raises(DataError) as caught:
        choose_columns(names, where="a.csv")
    assert missing in str(caught.value)
    assert f"`{missing.split()[1]}`" in str(caught.value)
    assert all(f"'{name}'" in str(caught.value) for name in names)


def test_columns_describe_themselves() -> None:
    assert str(Columns("a", "b", "c")) == "text 'a', text pair 'b', label 'c'"


def test_a_text_is_taken_as_it_is() -> None:
    assert text_of({"text": "  good \n"}, "text", WHERE) == "  good \n"


def test_a_number_is_a_text_too() -> None:
    assert text_of({"text": 12}, "text", WHERE) == "12"


@pytest.mark.parametrize("value", [None, float("nan"), "", " \t\n", ["a"], {"a": "b"}, b"bytes"])
def test_a_missing_text_is_named_by_row_and_column(value: object) -> None:
    with pytest.raises(DataError) as caught:
        text_of({"text": value}, "text", WHERE)
    assert str(caught.value).startswith(f"{WHERE}: column 'text'")


def test_half_a_character_is_named_by_row_and_column() -> None:
    """JSON may contain a single surrogate, "\\ud800", which neither UTF-8 nor a tokenizer can encode."""
    with pytest.raises(DataError) as caught:
        text_of({"text": "good \ud800 film"}, "text", WHERE)
    assert str(caught.value).startswith(f"{WHERE}: column 'text'")
    assert str(caught.value).isascii()


def test_a_row_without_the_column_has_no_text() -> None:
    with pytest.raises(DataError, match="row 7: column 'text' has no text"):
        text_of({"label": "1"}, "text", WHERE)


def test_a_column_named_twice_is_refused() -> None:
    for names in (("a", "a", None), ("a", None, "a"), (None, "a", "a")):
        with pytest.raises(DataError, match="'a' is named twice"):
            choose_columns(["a", "b"], *names, where="file")


def test_the_column_that_is_named_as_the_text_is_not_guessed_as_the_label() -> None:
    columns = choose_columns(["topic", "sentiment"], "topic", None, None, where="a.csv")
    assert (columns.text, columns.label) == ("topic", "sentiment")
    with pytest.raises(DataError, match="no label column found"):
        choose_columns(["text", "label"], "label", None, None, where="a.csv")
