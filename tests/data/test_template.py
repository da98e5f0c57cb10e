"""Templates: the words around a text, and how long texts are cut."""

from __future__ import annotations

import pytest

from ptune.data.encode import TextEncoder
from ptune.data.template import Template, around_answer, fields_of, with_pair
from ptune.errors import ConfigError, DataError
from ptune.model.locate import locate
from ptune.model.tokenizer import load_tokenizer


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("Label:", r"has no \{text\}"),
        ("{text} {", "Single '{'|expected '}'"),
        ("{text} {label}", r"has \{label\}; it may contain \{text\}, \{text_pair\}, \{mask\}"),
        ("{text!r}", r"has \{text!r\}"),
        ("{text:>9}", r"has \{text:>9\}"),
        ("{text} {}", r"has \{\}"),
        ("{text} {text}", r"\{text\} more than once"),
    ],
)
def test_a_wrong_template_is_refused(template, reason) -> None:
    with pytest.raises(ValueError, match=reason):
        fields_of(template)


def test_texts_are_written_as_they_are_braces_and_all() -> None:
    template = Template("{{x}} {text}: {text_pair}!")
    assert template.write(" a {text_pair} {0} ", "{mask}") == ("{x} a {text_pair} {0}: {mask}!", 0)


def test_a_second_text_without_a_place_stands_on_a_line_of_its_own() -> None:
    assert Template("{text}\nLabel:").write("one", "two")[0] == "one\ntwo\nLabel:"


def test_what_stands_in_front_of_the_answer() -> None:
    assert around_answer("Review: {text} It was") == ("Review: a It was", False)
    assert around_answer("{text} It was {mask}. {text_pair}") == ("a It was ", True)


@pytest.fixture
def encoder(language_model_folder, backbone_folder):
    def make(template: str, max_length: int = 12, decoder: bool = False) -> TextEncoder:
        folder = backbone_folder("gpt2") if decoder else language_model_folder("bert")
        return TextEncoder(load_tokenizer(locate(str(folder))), max_length, template=template)

    return make


def words(encoder: TextEncoder, text: str, pair: str | None = None) -> str:
    (row,) = encoder.encode([text], None if pair is None else [pair])
    return " ".join(encoder.tokenizer.convert_ids_to_tokens(row.ids))


def test_only_the_texts_are_cut_the_longer_first(encoder) -> None:
    made = encoder("the {text} was {text_pair} what {mask}", max_length=9)
    assert words(made, "good film", "bad") == "<s> the good film was bad what <mask> </s>"
    assert words(made, "film film film film", "bad") == "<s> the film film was bad what <mask> </s>"
    rows = made.encode(["good film", "film film film film"], ["bad", "bad"])
    assert [row.cut for row in rows] == [False, True]


def test_a_long_row_keeps_its_answers_place_and_its_start(encoder) -> None:
    cut = words(encoder("the {text} was", max_length=6, decoder=True), "film " * 500)
    assert cut == "the film film film film was"


def test_the_masks_place_is_the_templates_own_even_where_a_text_has_masks(encoder) -> None:
    made = encoder("{mask} was {text}")
    assert made.encode(["<mask> film"])[0].mask_position == 1
    made = encoder("{text} was {mask} what {text_pair}")
    (row,) = made.encode(["a <mask> film"], ["<mask>"])
    assert [place for place, token in enumerate(row.ids) if token == made.tokenizer.mask_token_id] == [2, 5, 7]
    assert row.mask_position == 5


def test_what_cannot_be_written_is_explained(encoder) -> None:
    with pytest.raises(DataError, match=r"has \{text_pair\}, but these are single texts"):
        encoder("{text} {text_pair}").encode(["film"])
    with pytest.raises(ConfigError, match="tokenizer has no mask token"):
        encoder("{text} {mask}", decoder=True)
    with pytest.raises(ConfigError, match="leaves no room for text in 5"):
        encoder("the {text} was very", max_length=5)


@pytest.mark.parametrize("text", ["a {text} b", "{{{text}}} is", "{{text}} {text} {mask}", "{text}"])
def test_a_template_gets_a_place_for_the_second_text_where_it_is_written_anyway(text) -> None:
    assert Template(with_pair(text), "[M]").write("A", "B") == Template(text, "[M]").write("A", "B")
