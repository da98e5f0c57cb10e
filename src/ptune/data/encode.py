"""Encode texts as token ids: write them into the template, if there is one, and cut them to the maximum length."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ptune.data.template import Side, Template
from ptune.errors import ConfigError, DataError, short

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

# Characters of a text that are tokenized for each token that it may keep, before all of it is: a token has four or five
# on average. Tokenizing a text of a million characters takes seconds.
_CHARACTERS_A_TOKEN = 20


@dataclass(frozen=True)
class Encoded:
    """One row as token ids, without padding.

    ids: token ids, special tokens included.
    segments: the segment of each token; None if the tokenizer has no segments.
    mask_position: index of the mask token; None without {mask} in the template.
    pair_position: index of the first token of the second text; None for single texts, and in a template.
    cut: whether the row was too long and lost its end.
    """

    ids: list[int]
    segments: list[int] | None
    mask_position: int | None = None
    pair_position: int | None = None
    cut: bool = False

    def __len__(self) -> int:
        return len(self.ids)


class TextEncoder:
    """An encoder of texts and pairs as token ids.

    Encoding changes neither the encoder nor its tokenizer, so threads may share an encoder.

    Args:
        tokenizer: the backbone's, from `load_tokenizer`, which switches off the tokenizer's truncation and padding.
        max_length: the largest number of tokens in a row, special tokens included. Longer rows are cut at the end, or
            at the beginning if `encode` is asked to, the longer text of a pair first.
        pair_separator: put in front of the second text of a pair; "" if the tokenizer separates the texts itself.
            Ignored if there is a template.
        template: see `ptune.data.template`; None: the texts as they are.

    Raises:
        ConfigError: the words of the template leave no room for text.
        ConfigError: the template has {mask}, but the tokenizer has no mask token.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        pair_separator: str = "",
        template: str | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.pair_separator = pair_separator
        self.template = None if template is None else Template(template, tokenizer.mask_token)
        if self.template is not None:
            self._check_template(self.template)

    def shorter(self, max_length: int) -> TextEncoder:
        """Return an encoder that cuts to fewer tokens, or this one if it does already.

        Raises:
            ConfigError: the template leaves no room for text.
        """
        if max_length >= self.max_length:
            return self
        template = None if self.template is None else self.template.text
        return TextEncoder(self.tokenizer, max_length, self.pair_separator, template)

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None, side: Side = "right") -> list[Encoded]:
        """Return the token ids of each row, in order. A row without any token, such as "", becomes one special token.

        Args:
            texts: the text of each row.
            pairs: the second text of each row; None for single texts.
            side: the end at which texts that are too long are cut.

        Raises:
            DataError: the template has {text_pair}, but the texts are single texts.
            ConfigError: a row is too long, and the special tokens leave no room for text.
        """
        if not texts:
            return []
        if self.template is not None:
            return self._encode_with_template(self.template, texts, pairs, side)
        if pairs is not None and self.pair_separator:
            pairs = [self.pair_separator + pair for pair in pairs]
        both = [(text, None if pairs is None else pairs[number]) for number, text in enumerate(texts)]
        whole = [
            number for number, one in enumerate(both) if self._backend is None or self._beginning(one, side) == one
        ]
        found = self._tokenize(
            [texts[number] for number in whole], None if pairs is None else [pairs[number] for number in whole]
        )
        rows = dict(zip(whole, found, strict=True))
        for number, (text, pair) in enumerate(both):
            if number not in rows or len(rows[number]) > self.max_length:
                rows[number] = self._cut(text, pair, side)
        return [rows[number] if len(rows[number]) else self.without_text() for number in range(len(both))]

    @property
    def _backend(self) -> Any:
        """The tokenizer in Rust; None for tokenizers written in Python."""
        return getattr(self.tokenizer, "backend_tokenizer", None)

    def _beginning(self, texts: tuple[str, str | None], side: Side) -> tuple[str, str | None]:
        """Return a text and its pair without what is almost certainly cut off."""
        most = _CHARACTERS_A_TOKEN * self.max_length
        kept = slice(0, most) if side == "right" else slice(-most, None)
        text, pair = texts
        return text[kept], None if pair is None else pair[kept]

    def without_text(self) -> Encoded:
        """Return what stands for a row without tokens, which only tokenizers that add no special tokens give."""
        tokenizer = self.tokenizer
        ids = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
        segments = [0] if "token_type_ids" in tokenizer.model_input_names else None
        return Encoded([next(int(token) for token in ids if token is not None)], segments)

    def _encode_with_template(
        self, template: Template, texts: Sequence[str], pairs: Sequence[str] | None, side: Side
    ) -> list[Encoded]:
        """Return each row as one sequence, written into the template. Only the texts of a long row are cut."""
        if pairs is None and "text_pair" in template.fields:
            raise DataError(f"template {short(template.text)} has {{text_pair}}, but these are single texts")
        texts_and_pairs = [(text, None if pairs is None else pairs[number]) for number, text in enumerate(texts)]
        beginnings = [self._beginning(both, side) for both in texts_and_pairs]
        rows = self._tokenize_with_template(template, beginnings)
        for number, (beginning, both) in enumerate(zip(beginnings, texts_and_pairs, strict=True)):
            if len(rows[number]) <= self.max_length and beginning != both:
                (rows[number],) = self._tokenize_with_template(template, [both])
            if len(rows[number]) > self.max_length:
                rows[number] = self._cut_with_template(template, *both, side)
        return [row if len(row) else self.without_text() for row in rows]

    def _cut(self, text: str, pair: str | None, side: Side) -> Encoded:
        """Return a row that is cut at one end of its texts, the longer text first. One that fits stays whole.

        A call of transformers' tokenizer with truncation would switch it on in the Rust tokenizer that other threads
        are using. This method therefore takes its three steps one by one: tokenize without special tokens, cut, add
        special tokens.
        """
        backend = self._backend
        if backend is None:  # tokenizers written in Python keep no such state
            options = {"truncation": "longest_first", "max_length": self.max_length, "truncation_side": side}
            (row,) = self._tokenize([text], None if pair is None else [pair], **options)
            return replace(row, cut=True)
        room = self.max_length - backend.num_special_tokens_to_add(pair is not None)
        if room < 1:
            raise ConfigError(
                f"`max_length={self.max_length}` leaves no room for text beside {self.max_length - room} special "
                "tokens; give a larger `max_length`",
                field="max_length",
                value=self.max_length,
                expected=f"at least {self.max_length - room + 1}",
            )
        encodings = []
        for one, beginning in zip((text, pair), self._beginning((text, pair), side), strict=True):
            if one is not None:
                encoding = backend.encode(beginning, add_special_tokens=False)
                if beginning != one and len(encoding.ids) <= room:
                    encoding = backend.encode(one, add_special_tokens=False)
                encodings.append(encoding)
        lengths = kept_lengths([len(encoding.ids) for encoding in encodings], room)
        too_long = sum(len(encoding.ids) for encoding in encodings) > room
        for encoding, length in zip(encodings, lengths, strict=True):
            encoding.truncate(length, direction=side)
        row = backend.post_process(*encodings, add_special_tokens=True)
        has_segments = "token_type_ids" in self.tokenizer.model_input_names
        second = None if pair is None else _second_text(row.sequence_ids)
        return Encoded(row.ids, row.type_ids if has_segments else None, pair_position=second, cut=too_long)

    def written(self, text: str, pair: str | None = None) -> tuple[str, list[tuple[int, int, int]]]:
        """Return a row as it is written into the template, cut to what fits, and where its texts are.

        Returns:
            The row, and for each text its first character in the row, the number of characters that were removed in
            front of it, and the number that is left of it.
        """
        assert self.template is not None
        (row,) = self._tokenize_with_template(self.template, [(text, pair)])
        limit = None if len(row) <= self.max_length else self._fitting(self.template, text, pair)
        return self.template.write(text, pair, limit)[0], self.template.places(text, pair, limit)

    def _cut_with_template(self, template: Template, text: str, pair: str | None, side: Side) -> Encoded:
        """Return the row with as many characters of each text as fit."""
        fitting = self._fitting(template, text, pair, side)
        (row,) = self._tokenize_with_template(template, [(text, pair)], fitting, side)
        return replace(row, cut=True)

    def _fitting(self, template: Template, text: str, pair: str | None, side: Side = "right") -> int:
        """Return how many characters of each text fit. Their number is found by bisection."""
        fits, too_many = 0, max(len(text), len(pair or ""))
        most = _CHARACTERS_A_TOKEN * self.max_length
        if (
            too_many > most
            and len(self._tokenize_with_template(template, [(text, pair)], most, side)[0]) > self.max_length
        ):
            too_many = most
        while too_many - fits > 1:
            limit = (fits + too_many) // 2
            (row,) = self._tokenize_with_template(template, [(text, pair)], limit, side)
            if len(row) <= self.max_length:
                fits = limit
            else:
                too_many = limit
        return fits

    def _tokenize_with_template(
        self,
        template: Template,
        rows: Sequence[tuple[str, str | None]],
        limit: int | None = None,
        side: Side = "right",
    ) -> list[Encoded]:
        """Return each (text, pair) written into the template, with at most `limit` characters of each text."""
        written = [template.write(text, pair, limit, side) for text, pair in rows]
        encoded = self._tokenize([text for text, _ in written], None)
        if "mask" not in template.fields:
            return encoded
        mask_id = self.tokenizer.mask_token_id
        return [
            Encoded(row.ids, row.segments, [index for index, token in enumerate(row.ids) if token == mask_id][before])
            for row, (_, before) in zip(encoded, written, strict=True)
        ]

    def _check_template(self, template: Template) -> None:
        if "mask" in template.fields and self.tokenizer.mask_token is None:
            raise ConfigError(
                f"template {short(template.text)} has {{mask}}, but the backbone's tokenizer has no mask token; only "
                "masked language models have one. Leave {mask} out",
                field="template",
                value=template.text,
                expected="a template without {mask}",
            )
        (empty,) = self._tokenize_with_template(template, [("", "")])
        if len(empty) >= self.max_length:
            raise ConfigError(
                f"template {short(template.text)} has {len(empty)} tokens without a text, which leaves no room for "
                f"text in {self.max_length} tokens; give a shorter template or a larger `max_length`",
                field="template",
                value=template.text,
                expected=f"fewer than {self.max_length} tokens",
            )

    def _tokenize(self, texts: Sequence[str], pairs: Sequence[str] | None, **truncation: Any) -> list[Encoded]:
        if not texts:
            return []
        output = self.tokenizer(
            list(texts),
            None if pairs is None else list(pairs),
            **{"padding": False, "truncation": False, **truncation},
            return_attention_mask=False,
            verbose=False,
        )
        segments = output.get("token_type_ids") or [None] * len(texts)
        return [
            Encoded(ids, row_segments, pair_position=second)
            for ids, row_segments, second in zip(
                output["input_ids"], segments, self._pair_positions(output, texts, pairs), strict=True
            )
        ]

    def _pair_positions(self, output: Any, texts: Sequence[str], pairs: Sequence[str] | None) -> list[int | None]:
        """Return the position of the first token of the second text in each row, None for single texts."""
        if pairs is None:
            return [None] * len(texts)
        if output.is_fast:
            return [_second_text(output.sequence_ids(number)) for number in range(len(texts))]
        # Tokenizers written in Python do not say which text a token is of. The first text is as long as it is alone,
        # without what would end it there.
        alone = self.tokenizer(list(texts), padding=False, truncation=False, verbose=False)["input_ids"]
        return [min(len(ids), len(row)) for ids, row in zip(alone, output["input_ids"], strict=True)]


def _second_text(sequence_ids: Sequence[int | None]) -> int:
    """Return the index of the first token of the second text, or the number of tokens if it has none."""
    return sequence_ids.index(1) if 1 in sequence_ids else len(sequence_ids)


def kept_lengths(lengths: Sequence[int], room: int) -> list[int]:
    """Return how many tokens of one or two texts are kept so that together they fit into `room`.

    The longer of two texts loses tokens first. If both are longer than half of `room`, each gets half, and an odd token
    goes to the longer one. The `tokenizers` library calls this rule "longest first".

    Args:
        lengths: tokens of each text.
        room: the largest number of tokens in all.
    """
    if sum(lengths) <= room:
        return list(lengths)
    if len(lengths) == 1:
        return [room]
    short, long = sorted(lengths)
    kept_of_short = min(short, room // 2)
    kept = [kept_of_short, min(long, room - kept_of_short)]
    return kept if lengths[0] <= lengths[1] else kept[::-1]


def warn_of_cuts(cut: int, rows: int, max_length: int) -> None:
    """Log a warning with the number of rows that were cut, if any were."""
    if cut:
        logger.warning("%d of %d rows were cut to %d tokens", cut, rows, max_length)


def pair_separator_for(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return what has to separate two texts: a line break if the tokenizer puts nothing between them, else "".

    GPT-2's and Llama's tokenizers, for example, put nothing between them.
    """
    together = tokenizer("a", "b", verbose=False)["input_ids"]
    apart = tokenizer("a", verbose=False)["input_ids"] + tokenizer("b", add_special_tokens=False)["input_ids"]
    return "\n" if together == apart else ""
