"""Texts to token ids, written into a template where there is one, cut to what a backbone can hold."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ptune.data.template import Template
from ptune.errors import ConfigError, DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Encoded:
    """Token ids of one row, without padding.

    segments: None where the tokenizer gives none. mask_position: of the template's mask token, where it has one.
    cut: the row was too long and lost its end.
    """

    ids: list[int]
    segments: list[int] | None
    mask_position: int | None = None
    cut: bool = False

    def __len__(self) -> int:
        return len(self.ids)


class TextEncoder:
    """Turns texts and pairs into token ids.

    Encoding changes nothing in the encoder or its tokenizer, so any number of threads may share one.

    Args:
        tokenizer: of the backbone, from `load_tokenizer`, so without truncation and padding of its own.
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
        rows = self._tokenize(texts, pairs)
        for number, row in enumerate(rows):
            if len(row) > self.max_length:
                rows[number] = self._cut(texts[number], None if pairs is None else pairs[number])
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
                rows[number] = self._cut_written(template, text, pair)
        return rows

    def _cut(self, text: str, pair: str | None) -> Encoded:
        """Return the row without its last tokens, those of the longer text first.

        A call of transformers' tokenizer with truncation would switch it on in the Rust tokenizer that other threads
        are using. So its three steps are taken one by one: tokenize without special tokens, cut, add special tokens.
        """
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None:  # tokenizers in Python keep no such state
            options = {"truncation": "longest_first", "max_length": self.max_length}
            (row,) = self._tokenize([text], None if pair is None else [pair], **options)
            return replace(row, cut=True)
        parts = [backend.encode(part, add_special_tokens=False) for part in (text, pair) if part is not None]
        room = self.max_length - backend.num_special_tokens_to_add(pair is not None)
        for part, kept in zip(parts, kept_lengths([len(part.ids) for part in parts], room), strict=True):
            part.truncate(kept)
        row = backend.post_process(*parts, add_special_tokens=True)
        segments = "token_type_ids" in self.tokenizer.model_input_names
        return Encoded(row.ids, row.type_ids if segments else None, cut=True)

    def _cut_written(self, template: Template, text: str, pair: str | None) -> Encoded:
        """Return the row with the most characters of each text that fit, found by bisection."""
        fits, too_many = 0, max(len(text), len(pair or ""))
        (best,) = self._tokenize_written(template, [(text, pair)], limit=0)
        while too_many - fits > 1:
            limit = (fits + too_many) // 2
            (row,) = self._tokenize_written(template, [(text, pair)], limit)
            if len(row) <= self.max_length:
                fits, best = limit, row
            else:
                too_many = limit
        return replace(best, cut=True)

    def _tokenize_written(
        self, template: Template, rows: Sequence[tuple[str, str | None]], limit: int | None = None
    ) -> list[Encoded]:
        written = [template.write(text, pair, limit) for text, pair in rows]
        encoded = self._tokenize([text for text, _ in written], None)
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
                f"{self.max_length}; give a shorter template or a greater `max_length`"
            )

    def _tokenize(self, texts: Sequence[str], pairs: Sequence[str] | None, **cutting: Any) -> list[Encoded]:
        output = self.tokenizer(
            list(texts),
            None if pairs is None else list(pairs),
            **{"padding": False, "truncation": False, **cutting},
            return_attention_mask=False,
            verbose=False,
        )
        segments = output.get("token_type_ids") or [None] * len(texts)
        return [Encoded(ids, part) for ids, part in zip(output["input_ids"], segments, strict=True)]


def kept_lengths(lengths: Sequence[int], room: int) -> list[int]:
    """Return how many tokens of one or two texts are kept so that together they fit into `room`.

    The longer of two loses tokens first; where both are longer than half the room, they share it, and an odd token goes
    to the longer one. This is the rule that the `tokenizers` library calls "longest first".
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
    """Log how many of so many rows were cut, if any were."""
    if cut:
        logger.warning("%d of %d rows were cut to %d tokens", cut, rows, max_length)


def pair_separator_for(tokenizer: PreTrainedTokenizerBase) -> str:
    """A line break where the tokenizer sets two texts side by side with nothing between them (GPT-2, Llama)."""
    together = tokenizer("a", "b", verbose=False)["input_ids"]
    apart = tokenizer("a", verbose=False)["input_ids"] + tokenizer("b", add_special_tokens=False)["input_ids"]
    return "\n" if together == apart else ""
