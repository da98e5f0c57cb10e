"""Find the second text of a pair and the mask token from token ids, inside an exported graph.

ptune takes these places from the tokenizer (`data.encode.Encoded`), but a runtime gets only what every tokenizer gives:
ids, mask and segments.

Shapes: B rows, T tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ptune.data.template import Template, parse

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class PairPlace:
    """How the first token of the second text is found.

    Attributes:
        by_segments: the second text is what the segments say.
        separator: ids of the tokens between the two texts; empty if there are none, or segments are used.
        closing: number of special tokens behind the second text.
    """

    by_segments: bool
    separator: tuple[int, ...]
    closing: int

    @property
    def known(self) -> bool:
        """Whether ids and segments show the place. Otherwise it has to be an input of the graph."""
        return self.by_segments or bool(self.separator)

    def find(self, input_ids: Tensor, mask: Tensor, segments: Tensor | None) -> Tensor:
        """Return the position of the second text's first token, or the row's length if it has none, [B].

        Args:
            input_ids: [B, T].
            mask: [B, T], 1 for text.
            segments: [B, T]; needed if `by_segments`.
        """
        length = mask.sum(dim=1)
        if self.by_segments:
            assert segments is not None
            starts = segments > 0
            first = starts.int().argmax(dim=1)
        else:
            columns, count = input_ids.shape[1], len(self.separator)
            padded = nn.functional.pad(input_ids, (0, count), value=-1)
            starts = torch.ones_like(input_ids, dtype=torch.bool)
            for offset, token in enumerate(self.separator):
                starts = starts & (padded[:, offset : offset + columns] == token)
            first = starts.int().argmax(dim=1) + count
        is_there = starts.any(dim=1) & (length - first > self.closing)
        return torch.where(is_there, first, length)


def pair_place(tokenizer: PreTrainedTokenizerBase, has_segments: bool) -> PairPlace:
    """Return how the second text is found in what a tokenizer gives.

    Args:
        tokenizer: a fast tokenizer.
        has_segments: whether the graph is given segments.
    """
    row = tokenizer("a", "b", return_token_type_ids=True, verbose=False)
    texts, ids, segments = row.sequence_ids(0), row["input_ids"], row["token_type_ids"]
    first = texts.index(1)
    end = len(texts) - texts[::-1].index(1)
    begin = len(texts) - texts[::-1].index(0)  # behind the first text
    shown = has_segments and segments[first] > 0 and not any(segments[:first])
    return PairPlace(shown, () if shown else tuple(ids[begin:first]), len(texts) - end)


@dataclass(frozen=True)
class MaskPlace:
    """How the mask token of a template is found among those that the texts may contain.

    Attributes:
        token: id of the mask token.
        last: the template has it behind all texts, so it is the last one of a row. Otherwise it is the first.
    """

    token: int
    last: bool

    def find(self, input_ids: Tensor) -> Tensor:
        """Return the position of the mask token in each row, [B]."""
        there = (input_ids == self.token).int()
        if self.last:
            return input_ids.shape[1] - 1 - there.flip(1).argmax(dim=1)
        return there.argmax(dim=1)


def mask_place(tokenizer: PreTrainedTokenizerBase, template: Template) -> MaskPlace:
    """Return how the mask token is found in rows that are written into a template with {mask}."""
    fields = [field for _, field in parse(template.text) if field is not None]
    return MaskPlace(int(tokenizer.mask_token_id), fields[-1] == "mask")  # type: ignore[arg-type]
