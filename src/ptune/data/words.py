"""The words of a text, and which token of an encoded row belongs to which of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ptune.data.encode import Encoded, TextEncoder, kept_lengths
from ptune.errors import ConfigError

# A character of a script without blanks, a word with an apostrophe in it, or a single sign.
_WORD = re.compile(r"[\u0e00-\u0e7f]+|[\u3040-\u30ff\u3400-\u9fff]|\w[\w\u0300-\u036f]*(?:['’]\w+)*|[^\w\s]")
_SPLIT = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\u3040-\u30ff\u3400-\u9fff]+")


@dataclass(frozen=True)
class Word:
    """A word of a row.

    part: 0 for the text, 1 for the second text of a pair.
    start, end: where it is in its text.
    """

    part: int
    start: int
    end: int


def words_of(texts: Sequence[str]) -> list[Word]:
    """Return the words of a text or of both texts of a pair. Punctuation marks and Chinese characters are words."""
    words = []
    for part, text in enumerate(texts):
        for match in _WORD.finditer(text):
            for piece in _SPLIT.finditer(match[0]):
                words.append(Word(part, match.start() + piece.start(), match.start() + piece.end()))
    return words


def token_words(
    encoder: TextEncoder, texts: Sequence[str], encoded: Encoded, words: Sequence[Word]
) -> list[int | None]:
    """Return for each token of an encoded row the index of its word; None for special tokens and those of a template.

    Args:
        encoder: the encoder that gave the row.
        texts: the text, or both texts of a pair.
        encoded: the row.
        words: from `words_of`.

    Raises:
        ConfigError: the tokenizer does not say where its tokens are in a text.
    """
    places = _token_places(encoder, texts, encoded)
    return [None if place is None else _word_at(place, words) for place in places]


def _word_at(place: Word, words: Sequence[Word]) -> int | None:
    """Return the index of the word that shares most characters with a token."""
    best, most = None, 0
    for index, word in enumerate(words):
        shared = min(place.end, word.end) - max(place.start, word.start)
        if word.part == place.part and shared > most:
            best, most = index, shared
    return best


def _token_places(encoder: TextEncoder, texts: Sequence[str], encoded: Encoded) -> list[Word | None]:
    """Return where each token is in its text; None for tokens that are in none."""
    if not getattr(encoder.tokenizer, "is_fast", False):
        raise ConfigError(
            "the tokenizer of the backbone does not say where its tokens are in a text; use `method='leave-out'`",
            field="method",
            expected="leave-out",
        )
    pair = texts[1] if len(texts) > 1 else None
    places = _in_template(encoder, texts[0], pair) if encoder.template else _in_pair(encoder, texts[0], pair, encoded)
    # A row without any token is encoded as a special one.
    return places if len(places) == len(encoded) else [None] * len(encoded)


def _in_pair(encoder: TextEncoder, text: str, pair: str | None, encoded: Encoded) -> list[Word | None]:
    separator = encoder.pair_separator
    output = encoder.tokenizer(
        text,
        None if pair is None else separator + pair,
        return_offsets_mapping=True,
        truncation=False,
        padding=False,
        verbose=False,
    )
    parts, offsets = output.sequence_ids(0), output["offset_mapping"]
    kept = [len(parts), len(parts)]
    if encoded.cut:
        lengths = [parts.count(part) for part in range(1 if pair is None else 2)]
        special = len(parts) - sum(lengths)
        kept = kept_lengths(lengths, encoder.max_length - special)
    seen = [0, 0]
    places: list[Word | None] = []
    for part, (start, end) in zip(parts, offsets, strict=True):
        if part is None:
            places.append(None)
            continue
        seen[part] += 1
        if seen[part] <= kept[part]:
            shift = len(separator) if part == 1 else 0
            places.append(Word(part, start - shift, end - shift))
    return places


def _in_template(encoder: TextEncoder, text: str, pair: str | None) -> list[Word | None]:
    written, starts = encoder.written(text, pair)
    offsets = encoder.tokenizer(written, return_offsets_mapping=True, truncation=False, padding=False, verbose=False)[
        "offset_mapping"
    ]
    places: list[Word | None] = []
    for start, end in offsets:
        found = None
        for part, (first, source, length) in enumerate(starts):
            if start < first + length and end > first:
                found = Word(part, start - first + source, end - first + source)
        places.append(found)
    return places
