"""Texts to token ids, written into a template where there is one, cut to what a backbone can hold."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ptune.data.template import Template
from ptune.errors import ConfigError, DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Encoded:
    """Token ids of one row, without padding. segments is None where the tokenizer gives none.

    mask_position is that of the template's mask token, where it has one.
    """

    ids: list[int]
    segments: list[int] | None
    mask_position: int | None = None

    def __len__(self) -> int:
        return len(self.ids)


class TextEncoder:
    """Encodes texts and pairs; counts the rows that had to be cut.

    Args:
        tokenizer: of the backbone.
        max_length: tokens that a row may have, special tokens included. Longer rows are cut at the end, the
            longer text of a pair first.
        pair_separator: put in front of the second text of a pair. "" where the tokenizer marks the border itself, and
            of no effect where a template sets the texts.
        template: see `ptune.data.template`; None: the texts as they are.

    Raises:
        ConfigError: the template's own words leave no room for text, or it has a mask and the tokenizer none.
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
        self.cut_rows = 0
        if self.template is not None:
            self._check_template(self.template)

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[Encoded]:
        """Token ids of each row, in order.

        Raises:
            DataError: a text has no tokens at all; a template with {text_pair} meets single texts.
        """
        if not texts:
            return []
        if self.template is not None:
            return self._encode_written(self.template, texts, pairs)
        if pairs is not None and self.pair_separator:
            pairs = [self.pair_separator + pair for pair in pairs]
        rows = self._tokenize(texts, pairs, truncate=False)
        long = [number for number, row in enumerate(rows) if len(row) > self.max_length]
        if long:
            cut = self._tokenize(
                [texts[n] for n in long], None if pairs is None else [pairs[n] for n in long], truncate=True
            )
            for number, row in zip(long, cut, strict=True):
                rows[number] = row
            self.cut_rows += len(long)
        for number, row in enumerate(rows, 1):
            if not len(row):
                raise DataError(f"text {number} has no tokens: {texts[number - 1][:40]!r}")
        return rows

    def _encode_written(self, template: Template, texts: Sequence[str], pairs: Sequence[str] | None) -> list[Encoded]:
        """Each row in its template, in one sequence; of a row that is too long the texts are cut, nothing else."""
        if pairs is None and "text_pair" in template.fields:
            raise DataError(f"template {template.text!r} has {{text_pair}}, but these are single texts")
        both = [(text, None if pairs is None else pairs[number]) for number, text in enumerate(texts)]
        rows = self._tokenize_written(template, both)
        for number, (text, pair) in enumerate(both):
            if len(rows[number]) > self.max_length:
                rows[number] = self._cut(template, text, pair)
                self.cut_rows += 1
        return rows

    def _cut(self, template: Template, text: str, pair: str | None) -> Encoded:
        """The row with the most characters of each text that fit, so the longer text is cut first. By bisection."""
        fits, too_many = 0, max(len(text), len(pair or ""))
        (best,) = self._tokenize_written(template, [(text, pair)], limit=0)
        while too_many - fits > 1:
            limit = (fits + too_many) // 2
            (row,) = self._tokenize_written(template, [(text, pair)], limit)
            if len(row) <= self.max_length:
                fits, best = limit, row
            else:
                too_many = limit
        return best

    def _tokenize_written(
        self, template: Template, rows: Sequence[tuple[str, str | None]], limit: int | None = None
    ) -> list[Encoded]:
        written = [template.write(text, pair, limit) for text, pair in rows]
        encoded = self._tokenize([text for text, _ in written], None, truncate=False)
        if "mask" not in template.fields:
            return encoded
        mask = self.tokenizer.mask_token_id
        return [
            Encoded(row.ids, row.segments, [place for place, token in enumerate(row.ids) if token == mask][before])
            for row, (_, before) in zip(encoded, written, strict=True)
        ]

    def _check_template(self, template: Template) -> None:
        if "mask" in template.fields and self.tokenizer.mask_token is None:
            raise ConfigError(
                f"template {template.text!r} has {{mask}}, but the backbone's tokenizer has no mask token; only masked "
                "language models read one: leave {mask} out"
            )
        (empty,) = self._tokenize_written(template, [("", "")])
        if len(empty) >= self.max_length:
            raise ConfigError(
                f"template {template.text!r} has {len(empty)} tokens of its own, which leaves no room for text in "
                f"{self.max_length}; give a shorter template or a greater --max-length"
            )

    def warn_of_cuts(self, rows: int) -> None:
        """One warning for all that was cut since the last."""
        if self.cut_rows:
            logger.warning("%d of %d rows were cut to %d tokens", self.cut_rows, rows, self.max_length)
            self.cut_rows = 0

    def _tokenize(self, texts: Sequence[str], pairs: Sequence[str] | None, truncate: bool) -> list[Encoded]:
        cutting = {"truncation": "longest_first", "max_length": self.max_length} if truncate else {"truncation": False}
        output = self.tokenizer(
            list(texts),
            None if pairs is None else list(pairs),
            padding=False,  # said outright: a tokenizer file may bring padding and cutting of its own
            return_attention_mask=False,
            verbose=False,
            **cutting,
        )
        segments = output.get("token_type_ids") or [None] * len(texts)
        return [Encoded(ids, part) for ids, part in zip(output["input_ids"], segments, strict=True)]


def pair_separator_for(tokenizer: PreTrainedTokenizerBase) -> str:
    """A line break where the tokenizer sets two texts side by side with nothing between them (GPT-2, Llama)."""
    together = tokenizer("a", "b", verbose=False)["input_ids"]
    apart = tokenizer("a", verbose=False)["input_ids"] + tokenizer("b", add_special_tokens=False)["input_ids"]
    return "\n" if together == apart else ""
