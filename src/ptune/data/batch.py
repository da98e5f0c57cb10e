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
class Packed:
    """Encoded rows end to end in flat tensors, out of which a batch is gathered by a few operations. N rows, S tokens.

    Lists of Python's numbers would take ten times as long to become a batch, and a GPU would wait for it.
    """

    ids: Tensor  # [S], int32
    segments: Tensor | None  # [S], int8; None where the tokenizer gives none
    starts: Tensor  # [N], where each row begins
    lengths: Tensor  # [N]
    mask_positions: Tensor | None  # [N], of the template's mask token, where it has one


def pack(encoded: Sequence[Encoded]) -> Packed:
    """Put the rows of a split end to end; there is at least one."""
    first, lengths = encoded[0], torch.tensor([len(row) for row in encoded])
    return Packed(
        torch.tensor([token for row in encoded for token in row.ids], dtype=torch.int32),
        None
        if first.segments is None
        else torch.tensor([part for row in encoded for part in row.segments or []], dtype=torch.int8),
        lengths.cumsum(0) - lengths,
        lengths,
        None if first.mask_position is None else torch.tensor([row.mask_position for row in encoded]),
    )


@dataclass(frozen=True)
class Batch:
    """attention_mask is None where no row is padded.

    mask_position is that of each row's mask token, under a template that has one.
    """

    input_ids: Tensor  # [B, T]
    attention_mask: Tensor | None  # [B, T]
    token_type_ids: Tensor | None  # [B, T]
    labels: Tensor | None  # [B], or [B, C] of a multi-label task
    mask_position: Tensor | None = None  # [B]

    def to(self, device: torch.device) -> Batch:
        return Batch(**{name: None if x is None else moved(x, device) for name, x in vars(self).items()})  # type: ignore[arg-type]

    @property
    def inputs(self) -> dict[str, Tensor | None]:
        """What a PromptClassifier takes, labels aside."""
        return {name: tensor for name, tensor in vars(self).items() if name != "labels"}


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Move a tensor of the CPU to a device. From pinned memory a GPU fetches it while the host goes on."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def collate(packed: Packed, labels: Tensor | None, rows: Sequence[int], pad_id: int, multiple: int = 1) -> Batch:
    """Put the rows of the given numbers into one batch, padded on the right to its longest.

    Args:
        labels: of all rows of the split.
        multiple: pad to a multiple of so many tokens, but never beyond the split's longest row; with a mask always, so
            that all batches are computed alike.
    """
    numbers = torch.tensor(rows)
    lengths = packed.lengths[numbers]
    longest = min(-(-int(lengths.max()) // multiple) * multiple, int(packed.lengths.max()))
    columns = torch.arange(longest)
    text = columns < lengths[:, None]  # [B, T]
    places = (packed.starts[numbers][:, None] + columns).clamp_(max=len(packed.ids) - 1)
    segments = packed.segments
    return Batch(
        packed.ids[places].long().masked_fill_(~text, pad_id),
        None if multiple == 1 and text.all() else text.long(),
        None if segments is None else segments[places].long().masked_fill_(~text, 0),
        None if labels is None else labels[numbers],
        None if packed.mask_positions is None else packed.mask_positions[numbers],
    )


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
    order = _by_length(lengths)
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def filled_batches(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Like `ordered_batches`, with as many rows as come to so many tokens, padding included; at least one."""
    batches: list[list[int]] = []
    for row in _by_length(lengths):  # each is the longest so far
        if batches and (len(batches[-1]) + 1) * lengths[row] <= tokens:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def _by_length(lengths: Sequence[int]) -> list[int]:
    return sorted(range(len(lengths)), key=lambda row: lengths[row])
