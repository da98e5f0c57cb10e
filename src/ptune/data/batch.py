"""Batches of rows of similar length, in an order that can be reproduced.

The order of an epoch depends on (seed, epoch) alone, so a run can be resumed
at any batch by its number.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ptune.data.encode import Encoded
from ptune.errors import ConfigError

# Rows are shuffled, then sorted by length within windows of this many batches. This is random enough and needs little
# padding.
WINDOW = 50


@dataclass(frozen=True)
class Packed:
    """Encoded rows, N rows of S tokens in all, end to end in flat tensors.

    A few tensor operations gather a batch from them. A batch made from Python lists takes ten times as long, and a GPU
    would wait for it.
    """

    ids: Tensor  # [S], int32
    segments: Tensor | None  # [S], int8; None if the tokenizer has no segments
    starts: Tensor  # [N], index of each row's first token
    lengths: Tensor  # [N], tokens
    mask_positions: Tensor | None  # [N], position of the mask token in each row; None without {mask} in the template
    pair_positions: Tensor | None = None  # [N], position of the second text in each row; None for single texts


def pack(encoded: Sequence[Encoded]) -> Packed:
    """Return the rows of a split, at least one, end to end."""
    first, lengths = encoded[0], torch.tensor([len(row) for row in encoded])
    return Packed(
        torch.tensor([token for row in encoded for token in row.ids], dtype=torch.int32),
        None
        if first.segments is None
        else torch.tensor([segment for row in encoded for segment in row.segments or []], dtype=torch.int8),
        lengths.cumsum(0) - lengths,
        lengths,
        _positions([row.mask_position for row in encoded]),
        _positions([row.pair_position for row in encoded]),
    )


def _positions(positions: Sequence[int | None]) -> Tensor | None:
    """Return the positions [N], or None if no row has one. Adapters that share a batch may not all have them."""
    if all(position is None for position in positions):
        return None
    return torch.tensor([position or 0 for position in positions])


@dataclass(frozen=True)
class Inputs:
    """The model inputs of a batch: B rows, padded on the right to T tokens."""

    input_ids: Tensor  # [B, T]
    attention_mask: Tensor | None = None  # [B, T], 1 for text, 0 for padding; None if no row is padded
    token_type_ids: Tensor | None = None  # [B, T], segments of a pair; None if the tokenizer has no segments
    mask_position: Tensor | None = None  # [B], position of the mask token; None without {mask} in the template
    pair_position: Tensor | None = None  # [B], position of the second text's first token; None for single texts

    def __len__(self) -> int:
        """Return B, the number of rows."""
        return len(self.input_ids)

    @property
    def length(self) -> int:
        """Return T, the number of tokens of the longest row."""
        return self.input_ids.shape[1]

    def to(self, device: torch.device) -> Inputs:
        """Return the same batch on a device."""
        return self._map(lambda tensor: moved(tensor, device))

    def select(self, rows: Sequence[int]) -> Inputs:
        """Return the given rows in the given order, with the padding of this batch."""
        indices = torch.tensor(rows, device=self.input_ids.device)
        return self._map(lambda tensor: tensor[indices])

    def slice(self, start: int, end: int) -> Inputs:
        """Return the rows from `start` up to, but not including, `end`."""
        return self._map(lambda tensor: tensor[start:end])

    def _map(self, change: Callable[[Tensor], Tensor]) -> Inputs:
        return Inputs(**{name: None if x is None else change(x) for name, x in vars(self).items()})  # type: ignore[arg-type]


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device. A GPU copies it from pinned memory while the host continues."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def collate(packed: Packed, rows: Sequence[int], pad_id: int, multiple: int = 1) -> Inputs:
    """Return a batch of the given rows, padded on the right to the length of its longest row.

    Args:
        packed: all rows of the split.
        rows: indices of the batch's rows, in order.
        pad_id: the token id of padding.
        multiple: pad to a multiple of this many tokens, but never beyond the longest row of the split. Unless it is 1,
            every batch has an attention mask, so that all batches take the same path through the model.
    """
    indices = torch.tensor(rows)
    lengths = packed.lengths[indices]
    longest = min(-(-int(lengths.max()) // multiple) * multiple, int(packed.lengths.max()))
    positions = torch.arange(longest)
    is_text = positions < lengths[:, None]  # [B, T]
    sources = (packed.starts[indices][:, None] + positions).clamp_(max=len(packed.ids) - 1)
    segments = packed.segments
    return Inputs(
        packed.ids[sources].long().masked_fill_(~is_text, pad_id),
        None if multiple == 1 and is_text.all() else is_text.long(),
        None if segments is None else segments[sources].long().masked_fill_(~is_text, 0),
        None if packed.mask_positions is None else packed.mask_positions[indices],
        None if packed.pair_positions is None else packed.pair_positions[indices],
    )


def training_batches(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Return the row indices of each batch of an epoch. Every row occurs once, and every epoch has a new order.

    The n-th batch has the same number of rows, of about the same length, for every seed, so that several seeds can
    share a forward pass.

    Args:
        lengths: tokens of each row.
        batch_size: rows per batch; the last batch of a window may have fewer.
        seed: of the run.
        epoch: counted from 1.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(len(lengths), generator=generator).tolist()
    batches = []
    for start in range(0, len(order), WINDOW * batch_size):
        window = sorted(order[start : start + WINDOW * batch_size], key=lambda row: lengths[row])
        batches += [window[i : i + batch_size] for i in range(0, len(window), batch_size)]
    generator.manual_seed(epoch)
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


def class_batches(labels: Sequence[int], batch_size: int, seed: int, epoch: int, count: int) -> list[list[int]]:
    """Return the row indices of `count` batches in which every class has several rows, so that rows can be compared.

    With few rows a batch has all of them. Otherwise it has as many rows of each class as there is room for, at least
    two, of as many classes as there is room for, chosen at random.

    Args:
        labels: class index of each row.
        batch_size: most rows of a batch.
        seed: of the run.
        epoch: counted from 1.
        count: number of batches.
    """
    if len(labels) <= batch_size:
        return [list(range(len(labels)))] * count
    rows: dict[int, list[int]] = {}
    for row, label in enumerate(labels):
        rows.setdefault(label, []).append(row)
    generator = random.Random(seed * 1_000_003 + epoch)
    each = max(2, batch_size // len(rows))
    batches = []
    for _ in range(count):
        classes = generator.sample(sorted(rows), min(len(rows), batch_size // each))
        batches.append([row for label in classes for row in generator.sample(rows[label], min(each, len(rows[label])))])
    return batches


def ordered_batches(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Return the row indices of each batch for evaluation. Rows are sorted by length, so there is little padding.

    Args:
        lengths: tokens of each row.
        batch_size: rows per batch; the last batch may have fewer.

    Raises:
        ConfigError: the batch size is less than 1.
    """
    if batch_size < 1:
        raise ConfigError(
            f"`batch_size` is {batch_size}; give 1 or more", field="batch_size", value=batch_size, expected="1 or more"
        )
    order = _by_length(lengths)
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def filled_batches(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Return the row indices of batches of at most `tokens` tokens each, padding included. Rows are sorted by length.

    A row that is longer than `tokens` is a batch of its own.
    """
    batches: list[list[int]] = []
    for row in _by_length(lengths):  # each row is the longest so far, so the batch is padded to its length
        if batches and (len(batches[-1]) + 1) * lengths[row] <= tokens:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def _by_length(lengths: Sequence[int]) -> list[int]:
    """Return row indices, the shortest row first."""
    return sorted(range(len(lengths)), key=lambda row: lengths[row])
