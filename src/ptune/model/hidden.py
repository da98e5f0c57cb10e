"""The hidden states of a batch, and which of them a head reads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

# Which hidden states of each row are wanted: those at one position [B], which counts from the first virtual token of a
# shallow prompt; the mean over the text; or None for all.
Read = Tensor | Literal["mean"] | None


@dataclass(frozen=True)
class Hidden:
    """The hidden states of a batch.

    states: [B, offset + T, H], or [B, 1, H] if `picked`.
    mask: [B, T], 1 for text; None: no row is padded.
    offset: number of positions that a shallow prompt takes before the text.
    pooler_output: [B, H], for families with a pretrained pooler over position 0.
    mask_position: [B], the position of each row's mask token, counted from the first token of the text.
    picked: True if the states are those at the position that was asked for, or the mean over the text.
    """

    states: Tensor
    mask: Tensor | None
    offset: int
    pooler_output: Tensor | None = None
    mask_position: Tensor | None = None
    picked: bool = False

    def averaged(self) -> Hidden:
        """Return a copy with the mean over the text in place of the states, in float32."""
        text = self.states[:, self.offset :]
        weights = text_weights(text.shape[0], text.shape[1], self.mask, text.device)
        with torch.autocast(text.device.type, enabled=False):  # autocast would compute the mean in bfloat16
            return replace(self, states=torch.bmm(weights[:, None], text.float()), picked=True)

    def rows(self, start: int, end: int) -> Hidden:
        """Return the hidden states of some rows of the batch."""
        tensors: dict[str, Any] = {name: x[start:end] for name, x in vars(self).items() if isinstance(x, Tensor)}
        return replace(self, **tensors)


def text_weights(rows: int, length: int, mask: Tensor | None, device: torch.device) -> Tensor:
    """Return the weight of each position in the mean over a row's text, [B, T]. Special tokens count as text."""
    mask = torch.ones(rows, length, device=device) if mask is None else mask.float()
    return mask / mask.sum(dim=1, keepdim=True)
