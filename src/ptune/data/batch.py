"""Batches of rows of like length, in an order that can be taken up again.

The order of an epoch follows from (seed, epoch) alone, so that a run is
resumed at a batch by its number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ptune.data.encode import Encoded
from ptune.errors import ConfigError

# Rows are shuffled, then sorted by length inside windows of this many batches: random enough, little padding.
WINDOW = 50


@dataclass(frozen=True)
class Batch:
    """attention_mask is None where no row is padded; rows are the rows' numbers in their split.

    mask_position is that of each row's mask token, under a template that has one.
    """

    input_ids: Tensor  # [B, T]
    attention_mask: Tensor | None  # [B, T]
    token_type_ids: Tensor | None  # [B, T]
    labels: Tensor | None  # [B], or [B, C] of a multi-label task
    rows: list[int]
    mask_position: Tensor | None = None  # [B]

    def to(self, device: torch.device) -> Batch:
        moved = {name: None if tensor is None else tensor.to(device) for name, tensor in self.inputs.items()}
        labels = None if self.labels is None else self.labels.to(device)
        return Batch(**moved, labels=labels, rows=self.rows)  # type: ignore[arg-type]

    @property
    def inputs(self) -> dict[str, Tensor | None]:
        """What a PromptClassifier takes, labels aside."""
        return {
            "input_ids": self.input_ids,
            "attention_mask": self.attention_mask,
            "token_type_ids": self.token_type_ids,
            "mask_position": self.mask_position,
        }


def collate(
    encoded: Sequence[Encoded], labels: Tensor | Sequence[int] | None, rows: Sequence[int], pad_id: int
) -> Batch:
    """Put the given rows into one batch, padded on the right to its longest. labels: of all rows of the split."""
    chosen = [encoded[row] for row in rows]
    length = max(len(row) for row in chosen)
    padded = any(len(row) < length for row in chosen)
    segments = None
    if chosen[0].segments is not None:
        segments = torch.tensor([(row.segments or []) + [0] * (length - len(row)) for row in chosen])
    return Batch(
        torch.tensor([row.ids + [pad_id] * (length - len(row)) for row in chosen]),
        torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in chosen]) if padded else None,
        segments,
        None if labels is None else _pick(labels, list(rows)),
        list(rows),
        None if chosen[0].mask_position is None else torch.tensor([row.mask_position for row in chosen]),
    )


def _pick(labels: Tensor | Sequence[int], rows: list[int]) -> Tensor:
    return labels[rows] if isinstance(labels, Tensor) else torch.tensor([labels[row] for row in rows])


def training_batches(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Row numbers of each batch of an epoch (counted from 1): every row once, in a fresh order.

    Batches of one place have the same number of rows, of about the same length, under every seed, so that several
    seeds can share a forward pass.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(len(lengths), generator=generator).tolist()
    batches = []
    for start in range(0, len(order), WINDOW * batch_size):
        window = sorted(order[start : start + WINDOW * batch_size], key=lambda row: lengths[row])
        batches += [window[i : i + batch_size] for i in range(0, len(window), batch_size)]
    generator.manual_seed(epoch)
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


def ordered_batches(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Row numbers of each batch for evaluation: sorted by length, so hardly any padding."""
    if batch_size < 1:
        raise ConfigError(f"batch size {batch_size} does not work; give 1 or more")
    order = sorted(range(len(lengths)), key=lambda row: lengths[row])
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
