"""A prompt for each row of a batch, gathered layer by layer.

A batch of 64 rows with prompts of their own needs 47 MB of keys and values in all-MiniLM-L6-v2. Copying them together
before the pass takes six times as long as copying a layer's share right before its attention reads it, when it is still
in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class RowPrompts:
    """The folded prompts of a batch's rows, B of them, of equal shape.

    Args:
        prompts: the prompt of each row: shallow [P, E] or deep [L, 2, P, Hkv]. Rows may share one.
    """

    def __init__(self, prompts: Sequence[Tensor]) -> None:
        self._prompts = list(prompts)

    @property
    def shape(self) -> torch.Size:
        """The shape of the prompts when they are stacked: [B, P, E] or [L, 2, B, P, Hkv]."""
        *layers, tokens, width = self._prompts[0].shape
        return torch.Size([*layers, len(self._prompts), tokens, width])

    def stacked(self) -> Tensor:
        """Return all prompts in one tensor: [B, P, E] or [L, 2, B, P, Hkv]."""
        return torch.stack(self._prompts, dim=-3)

    def split_heads(self, heads: int, width: int) -> SplitPrompts:
        """Return the prompts with their width split into K heads of width D."""
        return SplitPrompts(self._prompts, heads, width)


class SplitPrompts:
    """Deep prompts of rows, which are stacked when a layer is asked for: [L, 2, B, K, P, D].

    Args:
        prompts: of each row, [L, 2, P, Hkv].
        heads: number of heads K.
        width: width D of a head.
    """

    def __init__(self, prompts: Sequence[Tensor], heads: int, width: int) -> None:
        self._prompts = prompts
        self._heads = (heads, width)
        layers, two, tokens, _ = prompts[0].shape
        self.shape = torch.Size([layers, two, len(prompts), heads, tokens, width])

    def __getitem__(self, layer: int) -> Tensor:
        """Return keys and values of a layer, [2, B, K, P, D]."""
        stacked = torch.stack([prompt[layer] for prompt in self._prompts], dim=1)  # [2, B, P, Hkv]
        return stacked.unflatten(-1, self._heads).transpose(2, 3)
