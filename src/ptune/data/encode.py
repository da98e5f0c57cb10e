"""Texts to token ids, cut to what a backbone can hold."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ptune.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Encoded:
    """Token ids of one row, without padding. segments is None where the tokenizer gives none."""

    ids: list[int]
    segments: list[int] | None

    def __len__(self) -> int:
        return len(self.ids)


class TextEncoder:
    """Encodes texts and pairs; counts the rows that had to be cut.

    Args:
        tokenizer: of the backbone.
        max_length: tokens that a row may have, special tokens included. Longer rows are cut at the end, the
            longer text of a pair first.
        pair_separator: put in front of the second text of a pair. "" where the tokenizer marks the border itself.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int, pair_separator: str = "") -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.pair_separator = pair_separator
        self.cut_rows = 0

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[Encoded]:
        """Token ids of each row, in order.

        Raises:
            DataError: a text has no tokens at all.
        """
        if not texts:
            return []
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
