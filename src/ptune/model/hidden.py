"""The hidden states of a batch, and which of them a head reads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

# Which hidden states of each row are wanted: those at one position [B], which counts from the first virtual token of a
# shallow prompt; the mean over the text; that mean and those of the two texts of a pair; or None for all.
Read = Tensor | Literal["mean", "pair"] | None


@dataclass(frozen=True)
class Hidden:
    """The hidden states of a batch.

    states: [B, offset + T, H]. If `picked`: [B, 1, H], or [B, 3, H] for the three means of a pair.
    mask: [B, T], 1 for text; None: no row is padded.
    offset: number of positions that a shallow prompt takes before the text.
    pooler_output: [B, H], for families with a pretrained pooler over position 0.
    mask_position: [B], the position of each row's mask token, counted from the first token of the text.
    pair_position: [B], the position of the first token of each row's second text, counted in the same way.
    picked: True if the states are those at the position that was asked for, or the means.
    """

    states: Tensor
    mask: Tensor | None
    offset: int
    pooler_output: Tensor | None = None
    mask_position: Tensor | None = None
    pair_position: Tensor | None = None
    picked: bool = False

    def averaged(self, read: Literal["mean", "pair"] = "mean") -> Hidden:
        """Return a copy with means over the text in place of the states, in float32.

        Args:
            read: mean: [B, 1, H]. pair: the means over the whole row, its first and its second text, [B, 3, H].

        Raises:
            ValueError: the positions of the second texts are not given, but they are needed.
        """
        text = self.states[:, self.offset :]
        weights = text_weights(text.shape[0], text.shape[1], self.mask, text.device)[:, None]
        if read == "pair":
            weights = pair_weights(weights[:, 0], self.pair_position)
        with torch.autocast(text.device.type, enabled=False):  # autocast would compute the mean in bfloat16
            return replace(self, states=torch.bmm(weights, text.float()), picked=True)

    def rows(self, start: int, end: int) -> Hidden:
        """Return the hidden states of some rows of the batch."""
        tensors: dict[str, Any] = {name: x[start:end] for name, x in vars(self).items() if isinstance(x, Tensor)}
        return replace(self, **tensors)


def text_weights(rows: int, length: int, mask: Tensor | None, device: torch.device) -> Tensor:
    """Return the weight of each position in the mean over a row's text, [B, T]. Special tokens count as text."""
    mask = torch.ones(rows, length, device=device) if mask is None else mask.float()
    return mask / mask.sum(dim=1, keepdim=True)


def pair_weights(weights: Tensor, pair_position: Tensor | None) -> Tensor:
    """Return the weights of the means over a row, its first and its second text, [B, 3, T].

    Special tokens belong to the text that they follow or begin. A text without tokens has the weights 0.

    Args:
        weights: [B, T], from `text_weights`.
        pair_position: [B], the position of the first token of each row's second text.

    Raises:
        ValueError: the positions are not given.
    """
    if pair_position is None:
        raise ValueError(
            "`pooling='pair'` needs the positions of the second texts: give pair_position or token_type_ids, or make "
            "the model with `pooling='mean'`"
        )
    second = torch.arange(weights.shape[1], device=weights.device) >= pair_position[:, None]
    parts = torch.stack([weights * ~second, weights * second], dim=1)
    return torch.cat([weights[:, None], parts / parts.sum(dim=2, keepdim=True).clamp_min(1e-9)], dim=1)
