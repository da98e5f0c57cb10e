"""The heads of many classifiers over the hidden states of one batch.

Heads that consist of one linear layer of the same shape are applied as one batched product.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Protocol

import torch
from torch import Tensor, nn

from ptune.model.head import PeftHead, TextHead
from ptune.model.hidden import Hidden

Border = tuple[int, int]
# Weights that are copied at most so that heads can be applied together. Two heads of 150 classes on 64 rows each take
# 45 times as long together as one by one, and heads of two classes half as long.
MOST_COPIED = 2**18


class Headed(Protocol):
    """The part of a classifier that turns hidden states into logits."""

    @property
    def head(self) -> TextHead | PeftHead:
        """The head, which decides what hidden states are read."""

    @property
    def only_layer(self) -> nn.Linear | None:
        """The linear layer that has all weights of the head, if `read` gives its output in the unit of the targets."""

    def read(self, hidden: Hidden) -> Tensor:
        """Return the logits [B, C] for hidden states."""

    def in_unit(self, logits: Tensor) -> Tensor:
        """Return logits [B, C] of the head in the unit of the targets."""


def head_key(classifier: Headed) -> tuple[str, ...]:
    """Return what heads have in common that can be applied together. Heads of several layers have an empty key."""
    layer = classifier.only_layer
    if layer is None:
        return ()
    return (
        type(classifier.head).__name__,
        classifier.head.place,
        str(tuple(layer.weight.shape)),
        str(layer.bias is None),
    )


def read_all(classifiers: Sequence[Headed], hidden: Hidden, borders: Sequence[Border]) -> list[Tensor]:
    """Return the logits [B_i, C_i] of each classifier.

    Args:
        classifiers: those whose heads can be applied together are next to each other.
        hidden: the hidden states of B rows.
        borders: the rows of each classifier, from one number up to another.
    """
    if torch.is_grad_enabled() or len(classifiers) == 1:
        return [classifier.read(hidden.rows(*border)) for classifier, border in zip(classifiers, borders, strict=True)]
    logits: list[Tensor] = []
    for key, group in groupby(range(len(classifiers)), lambda number: head_key(classifiers[number])):
        numbers = list(group)
        if key and len(numbers) > 1 and _is_small(classifiers, borders, numbers):
            logits += _read_together(classifiers, hidden, borders, numbers)
        else:
            logits += [classifiers[number].read(hidden.rows(*borders[number])) for number in numbers]
    return logits


def _is_small(classifiers: Sequence[Headed], borders: Sequence[Border], numbers: Sequence[int]) -> bool:
    """Return whether copying the weights of a linear layer for each row takes less time than a product for each."""
    layer = classifiers[numbers[0]].only_layer
    assert layer is not None
    return (borders[numbers[-1]][1] - borders[numbers[0]][0]) * layer.weight.numel() <= MOST_COPIED


def _read_together(
    classifiers: Sequence[Headed], hidden: Hidden, borders: Sequence[Border], numbers: Sequence[int]
) -> list[Tensor]:
    """Return the logits of classifiers whose heads are linear layers of the same shape."""
    first = borders[numbers[0]][0]
    vectors = classifiers[numbers[0]].head.layer_inputs(hidden.rows(first, borders[numbers[-1]][1]))
    of_rows = [number for number in numbers for _ in range(*borders[number])]
    layers = [classifiers[number].only_layer for number in of_rows]
    weights = torch.stack([layer.weight for layer in layers])  # type: ignore[union-attr]
    logits = torch.bmm(weights, vectors[:, :, None])[:, :, 0]
    if layers[0].bias is not None:  # type: ignore[union-attr]
        logits += torch.stack([layer.bias for layer in layers])  # type: ignore[union-attr]
    return [
        classifiers[number].in_unit(logits[start - first : end - first])
        for number in numbers
        for start, end in [borders[number]]
    ]
