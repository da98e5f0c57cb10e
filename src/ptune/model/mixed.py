"""Forward passes for a batch whose rows belong to different classifiers over the same backbone.

The prompts of a batch may enter in different ways and have different lengths, and the heads may differ in pooling and
number of classes. Rows share a forward pass if their prompts enter in the same way and have the same number of virtual
tokens, and if their heads read the same hidden states: all, their mean, the means of a pair, or single positions. Each
such group is one pass. Prompts of different lengths are not padded to share a pass, because a virtual token of zeros
would still receive attention under either softmax.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from ptune.data.batch import Inputs
from ptune.model.backbone import Backbone
from ptune.model.entry import Entry
from ptune.model.head import Reads
from ptune.model.hidden import Hidden, Read
from ptune.model.many_heads import Headed, head_key, read_all
from ptune.model.pending import Pending
from ptune.model.row_prompts import RowPrompts

Start = Callable[[Inputs, Tensor, Entry, Read], Pending[Hidden]]


class Prompted(Headed, Protocol):
    """The part of `PromptClassifier` that is needed here. `PromptClassifier` itself imports this module."""

    @property
    def backbone(self) -> Backbone:
        """The frozen model."""

    @property
    def entry(self) -> Entry:
        """How the classifier's prompt enters the backbone."""


@dataclass(frozen=True)
class Group:
    """What rows must have in common to share a forward pass."""

    entry: Entry
    virtual_tokens: int
    reads: Reads


def group_of(classifier: Prompted, prompt: Tensor) -> Group:
    """Return the group that the rows of a classifier with this folded prompt belong to."""
    return Group(classifier.entry, prompt.shape[-2], classifier.head.reads)


def start_logits(
    classifiers: Sequence[Prompted],
    prompts: Sequence[Tensor],
    owners: Sequence[int],
    inputs: Inputs,
    start: Start | None = None,
) -> Pending[dict[int, Tensor]]:
    """Start to compute the logits of a batch, each row with its own classifier.

    Args:
        classifiers: any number of classifiers over one backbone.
        prompts: the folded prompt of each classifier, from `PromptClassifier.prompt`.
        owners: [B], for each row the index of its classifier.
        inputs: B rows.
        start: called instead of `Backbone.start`, e.g. a compiled forward pass.

    Returns:
        A handle to the logits [B_i, C_i] by classifier index, for each classifier with rows in the batch. Rows keep
        their order.
    """
    rows: dict[int, list[int]] = defaultdict(list)
    for row, owner in enumerate(owners):
        rows[owner].append(row)
    groups: dict[Group, list[int]] = defaultdict(list)
    for owner in sorted(rows):
        groups[group_of(classifiers[owner], prompts[owner])].append(owner)
    if not torch.is_grad_enabled():  # heads that are next to each other can be applied together
        for members in groups.values():
            if len(members) > 1:
                members.sort(key=lambda owner: head_key(classifiers[owner]))
    passes = {
        group: _start_group(
            group,
            [classifiers[owner] for owner in members],
            [prompts[owner] for owner in members],
            [rows[owner] for owner in members],
            inputs,
            start,
        )
        for group, members in groups.items()
    }

    def collect() -> dict[int, Tensor]:
        return {
            owner: logits
            for group, members in groups.items()
            for owner, logits in zip(members, passes[group].result(), strict=True)
        }

    return Pending(collect)


def batch_logits(classifier: Prompted, prompt: Tensor, inputs: Inputs) -> Tensor:
    """Return the logits [B, C] of a batch whose rows all belong to one classifier.

    The number of rows is never read, so `torch.export` can trace this function for batches of any size.

    Args:
        classifier: the classifier.
        prompt: its folded prompt, from `PromptClassifier.prompt`.
        inputs: B rows.
    """
    group = group_of(classifier, prompt)
    hidden = classifier.backbone(inputs, prompt, group.entry, _read(group, [classifier], inputs, []))
    return classifier.read(replace(hidden, mask_position=inputs.mask_position, pair_position=inputs.pair_position))


def _start_group(
    group: Group,
    classifiers: Sequence[Prompted],
    prompts: Sequence[Tensor],
    rows: Sequence[Sequence[int]],
    inputs: Inputs,
    start: Start | None,
) -> Pending[list[Tensor]]:
    """Start one forward pass for several classifiers. `rows` has each classifier's row numbers in the batch."""
    order = [row for numbers in rows for row in numbers]
    if order != list(range(len(inputs))):
        inputs = inputs.select(order)
    counts = [len(numbers) for numbers in rows]
    borders = list(pairwise([sum(counts[:number]) for number in range(len(counts) + 1)]))
    read = _read(group, classifiers, inputs, borders)
    if start is not None:
        pending = start(inputs, _by_row(prompts, counts), group.entry, read)
    elif torch.is_grad_enabled() or len(prompts) == 1:
        pending = classifiers[0].backbone.start(inputs, _by_row(prompts, counts), group.entry, read)
    else:
        by_row = RowPrompts([prompt for prompt, count in zip(prompts, counts, strict=True) for _ in range(count)])
        pending = classifiers[0].backbone.start(inputs, by_row, group.entry, read)

    def logits(hidden: Hidden) -> list[Tensor]:
        hidden = replace(hidden, mask_position=inputs.mask_position, pair_position=inputs.pair_position)
        return read_all(classifiers, hidden, borders)

    return pending.then(logits)


def _by_row(prompts: Sequence[Tensor], counts: Sequence[int]) -> Tensor:
    """Return the prompt if there is only one, otherwise one prompt per row: [B, P, E] or [L, 2, B, P, Hkv]."""
    if len(prompts) == 1:
        return prompts[0]
    stacked = torch.stack(list(prompts), dim=-3)
    if len(set(counts)) == 1:  # the gradient is then a plain sum, which a GPU always adds in the same order
        return stacked.repeat_interleave(counts[0], dim=-3)
    times = torch.tensor(counts, device=stacked.device)
    return stacked.repeat_interleave(times, dim=-3, output_size=sum(counts))


def _read(group: Group, classifiers: Sequence[Prompted], inputs: Inputs, borders: Sequence[tuple[int, int]]) -> Read:
    """Return what a group's heads read: the mean, the means of a pair, None for all, or the position of each row."""
    if group.reads in ("mean", "pair"):
        return group.reads
    if group.reads == "all":
        return None
    offset = group.entry.offset(group.virtual_tokens)
    if len({classifier.head.place for classifier in classifiers}) == 1:
        return classifiers[0].head.positions(inputs, offset)
    positions = [
        classifier.head.positions(inputs.slice(*border), offset)
        for classifier, border in zip(classifiers, borders, strict=True)
    ]
    return torch.cat(positions)
