"""Token ids of texts: rows have no padding and are cut at the end with one warning, and pairs are separated."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from ptune.data.encode import TextEncoder, pair_separator_for, warn_of_cuts
from ptune.errors import ConfigError
from ptune.model.locate import locate
from ptune.model.tokenizer import load_tokenizer

START, END = 2, 3
A_LONG_TEXT = "a good film and a quick plot"  # 7 words


@pytest.fixture
def encoder_tokens(backbone_folder: Callable[..., Path]) -> PreTrainedTokenizerBase:
    """Return a tokenizer that writes <s> text </s> pair </s>."""
    return load_tokenizer(locate(str(backbone_folder("bert"))))


@pytest.fixture
def decoder_tokens(backbone_folder: Callable[..., Path]) -> PreTrainedTokenizerBase:
    """Return a tokenizer without special tokens."""
    return load_tokenizer(locate(str(backbone_folder("gpt2"))))


@pytest.fixture(autouse=True)
def heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let caplog see the messages of ptune even if a command has taken over its logger in this process."""
    monkeypatch.setattr(logging.getLogger("ptune"), "propagate", True)


def words(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    return " ".join(tokenizer.convert_ids_to_tokens(ids))


def test_rows_come_in_order_and_without_padding(encoder_tokens: PreTrainedTokenizerBase) -> None:
    rows = TextEncoder(encoder_tokens, 30).encode(["good", A_LONG_TEXT, "bad film"])
    assert [len(row) for row in rows] == [3, 9, 4]
    assert words(encoder_tokens, rows[2].ids) == "<s> bad film </s>"


def test_a_pair_has_segments(encoder_tokens: PreTrainedTokenizerBase) -> None:
    row = TextEncoder(encoder_tokens, 30).encode(["good film"], ["bad"])[0]
    assert words(encoder_tokens, row.ids) == "<s> good film </s> bad </s>"
    assert row.segments in (None, [0, 0, 0, 0, 1, 1])


def test_a_row_of_just_max_length_is_whole(encoder_tokens: PreTrainedTokenizerBase) -> None:
    encoder = TextEncoder(encoder_tokens, 9)
    (row,) = encoder.encode([A_LONG_TEXT])
    assert (words(encoder_tokens, row.ids), row.cut) == (f"<s> {A_LONG_TEXT} </s>", False)


@pytest.mark.parametrize("max_length", [3, 5, 8])
def test_a_longer_row_is_cut_at_its_end_and_keeps_its_special_tokens(
    encoder_tokens: PreTrainedTokenizerBase, max_length: int
) -> None:
    encoder = TextEncoder(encoder_tokens, max_length)
    rows = encoder.encode([A_LONG_TEXT, "bad"])
    kept = " ".join(A_LONG_TEXT.split()[: max_length - 2])
    assert words(encoder_tokens, rows[0].ids) == f"<s> {kept} </s>"
    assert words(encoder_tokens, rows[1].ids) == "<s> bad </s>"
    assert [row.cut for row in rows] == [True, False]


def test_the_longer_text_of_a_pair_is_cut_first(encoder_tokens: PreTrainedTokenizerBase) -> None:
    encoder = TextEncoder(encoder_tokens, 8)
    rows = encoder.encode([A_LONG_TEXT, "very bad"], ["very bad", A_LONG_TEXT])
    assert words(encoder_tokens, rows[0].ids) == "<s> a good film </s> very bad </s>"
    assert words(encoder_tokens, rows[1].ids) == "<s> very bad </s> a good film </s>"


def test_a_decoders_pair_is_cut_longest_first_too(decoder_tokens: PreTrainedTokenizerBase) -> None:
    rows = TextEncoder(decoder_tokens, 5).encode([A_LONG_TEXT], ["very bad"])
    assert words(decoder_tokens, rows[0].ids) == "a good film very bad"


def test_cut_rows_are_said_in_one_warning_and_nothing_is_said_where_none_is_cut(
    caplog: pytest.LogCaptureFixture,
) -> None:
    warn_of_cuts(0, 5, 6)
    assert not caplog.records
    warn_of_cuts(3, 5, 6)
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [("WARNING", "3 of 5 rows were cut to 6 tokens")]


@given(
    first=st.lists(st.sampled_from(A_LONG_TEXT.split()), min_size=1, max_size=20),
    second=st.none() | st.lists(st.sampled_from(A_LONG_TEXT.split()), min_size=1, max_size=20),
    max_length=st.integers(4, 24),
)
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_are_cut_as_the_tokenizer_itself_would_and_the_tokenizer_stays_as_it_is(
    encoder_tokens: PreTrainedTokenizerBase, first: list[str], second: list[str] | None, max_length: int
) -> None:
    text, pair = " ".join(first), None if second is None else " ".join(second)
    (row,) = TextEncoder(encoder_tokens, max_length).encode([text], None if pair is None else [pair])
    assert encoder_tokens.backend_tokenizer.truncation is None
    reference = copy.deepcopy(encoder_tokens)(text, pair, truncation="longest_first", max_length=max_length)
    assert row.ids == reference["input_ids"]
    assert row.segments == reference.get("token_type_ids")


def test_padding_and_cutting_of_the_tokenizer_file_do_not_count(encoder_tokens: PreTrainedTokenizerBase) -> None:
    encoder_tokens.backend_tokenizer.enable_padding(length=20)
    encoder_tokens.backend_tokenizer.enable_truncation(max_length=4)
    rows = TextEncoder(encoder_tokens, 30).encode(["good", A_LONG_TEXT])
    assert [len(row) for row in rows] == [3, 9]


def test_a_tokenizer_that_parts_the_texts_needs_no_separator(encoder_tokens: PreTrainedTokenizerBase) -> None:
    assert pair_separator_for(encoder_tokens) == ""


def test_texts_that_a_tokenizer_sets_side_by_side_are_parted_by_a_line_break(
    decoder_tokens: PreTrainedTokenizerBase,
) -> None:
    assert pair_separator_for(decoder_tokens) == "\n"


def test_the_separator_goes_before_the_second_text_alone(decoder_tokens: PreTrainedTokenizerBase) -> None:
    encoder = TextEncoder(decoder_tokens, 30, "and ")
    assert words(decoder_tokens, encoder.encode(["good film"], ["bad plot"])[0].ids) == "good film and bad plot"
    assert words(decoder_tokens, encoder.encode(["good film"])[0].ids) == "good film"


def test_a_cut_pair_keeps_its_separator(decoder_tokens: PreTrainedTokenizerBase) -> None:
    row = TextEncoder(decoder_tokens, 6, "and ").encode([A_LONG_TEXT], ["bad"])[0]
    assert words(decoder_tokens, row.ids) == "a good film and and bad"


@pytest.mark.parametrize("text", ["", " "])
def test_a_text_without_tokens_is_one_special_token(decoder_tokens: PreTrainedTokenizerBase, text: str) -> None:
    rows = TextEncoder(decoder_tokens, 30).encode(["good", text, "bad"])
    assert rows[1].ids == [decoder_tokens.bos_token_id]
    assert words(decoder_tokens, rows[2].ids) == "bad"


def test_no_texts_give_no_rows(encoder_tokens: PreTrainedTokenizerBase) -> None:
    assert TextEncoder(encoder_tokens, 30).encode([]) == []


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("template", [None, "film {text} plot", "{text} {text_pair}"])
@pytest.mark.parametrize("paired", [False, True])
def test_of_very_long_texts_only_what_is_kept_is_tokenized(side, template, paired, encoder_tokens) -> None:
    if template is not None and ("text_pair" in template) != paired:
        pytest.skip("not for these texts")
    encoder = TextEncoder(encoder_tokens, 12, template=template)
    words_ = [A_LONG_TEXT.split()[number % 7] for number in range(40)]
    texts = [" ".join(words_), "good", " ".join(words_[:20])]
    pairs = [" ".join(words_[::-1])[:150], "bad " * 80, "bad"] if paired else None
    expected = encoder.encode(texts, pairs, side)
    longer = [f"{text} {'x ' * 5000}" if side == "right" else f"{'x ' * 5000}{text}" for text in texts[:1]]
    seen: list[int] = []
    original = encoder._tokenize
    encoder._tokenize = lambda texts, pairs, **options: (  # type: ignore[method-assign]
        seen.extend(map(len, texts)) or original(texts, pairs, **options)
    )
    (row,) = encoder.encode(longer, pairs and pairs[:1], side)
    assert row.cut
    assert max(seen, default=0) < 2000
    if not paired:  # of a pair, the longer text is cut first, so another length may keep more of it
        assert row == expected[0]


@pytest.mark.parametrize("paired", [False, True])
def test_a_text_of_few_tokens_is_whole_however_many_characters_it_has(paired, encoder_tokens) -> None:
    encoder = TextEncoder(encoder_tokens, 12)
    (row,) = encoder.encode([f"good{' ' * 5000}film"], ["bad"] if paired else None)
    assert not row.cut
    assert words(encoder_tokens, row.ids) == ("<s> good film </s> bad </s>" if paired else "<s> good film </s>")
    (row,) = TextEncoder(encoder_tokens, 12, template="quick {text}").encode([f"good{' ' * 5000}film"])
    assert "film" in words(encoder_tokens, row.ids)


def test_special_tokens_that_leave_no_room_are_named(encoder_tokens: PreTrainedTokenizerBase) -> None:
    with pytest.raises(ConfigError, match="leaves no room for text beside 3 special tokens"):
        TextEncoder(encoder_tokens, 3).encode(["good"], ["bad"])


def test_a_template_of_the_text_alone_takes_an_empty_text(decoder_tokens: PreTrainedTokenizerBase) -> None:
    rows = TextEncoder(decoder_tokens, 12, template="{text}").encode(["", "good"])
    assert [len(row) for row in rows] == [1, 1]
