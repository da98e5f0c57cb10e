"""The floor of a training step: the time of the matrix products that it cannot do without, and of nothing else.

Counted are the products of the linear layers and of attention, forward and backward with respect to their inputs
(weights are frozen), at the real numbers of tokens, as if nothing were ever padded:

- a head that reads one position needs queries, output and feed-forward products of the last layer there alone;
- below the first position that learns, nothing goes backward: under a deep prompt neither the first layer's
  projections nor its attention among text, under an input prompt the first layer's projections for the prompt only;
- what a decoder's input prompt becomes does not depend on the text behind it: once for all rows.

They run as plain torch.mm and torch.bmm over random numbers. Lengths: l text tokens of a row, P virtual tokens.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from common import clock

from ptune.model.backbone import Backbone
from ptune.model.config import PromptConfig

# [b, m, k] @ [b, k, n]
Product = tuple[int, int, int, int]


@dataclass(frozen=True)
class Sizes:
    """What the products of one layer follow from."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_width: int
    inner: int  # width of the feed-forward network
    matrices: int  # of the feed-forward network: 2, or 3 where it is gated
    decoder: bool


def sizes_of(backbone: Backbone) -> Sizes:
    """Read off a backbone; the feed-forward network's matrices are what is left of a layer's parameters."""
    config, width = backbone.config, backbone.width
    heads = int(config.num_attention_heads)
    inner = int(getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * width)
    own = [
        p for name, p in backbone.base.named_parameters() if p.dim() == 2 and not re.search("embed|wte|wpe|pool", name)
    ]
    attention = 2 * width * (heads + backbone.kv_heads) * backbone.head_width
    matrices, left = divmod(sum(p.numel() for p in own) // backbone.layers - attention, width * inner)
    if left or matrices not in (2, 3):
        raise ValueError(f"the layers of {backbone.name} are of no kind that the floor knows")
    return Sizes(
        backbone.layers, width, heads, backbone.kv_heads, backbone.head_width, inner, matrices, backbone.family.decoder
    )


def floor_runner(
    backbone: Backbone, prompt: PromptConfig, batches: Sequence[Sequence[int]], device: torch.device
) -> Callable[[], float]:
    """Seconds a row of the products of training steps over batches of rows of these lengths."""
    sizes = sizes_of(backbone)
    steps = [list(step_products(sizes, prompt, lengths)) for lengths in batches]
    flat = [product for step in steps for product in step]
    largest = [max(b * x * y for b, *mkn in flat for x, y in [pick(*mkn)]) for pick in _OPERANDS]
    left, right, out = (torch.rand(size, device=device, dtype=backbone.dtype) for size in largest)

    def run() -> float:
        started = clock(device)
        for step in steps:
            for b, m, k, n in step:
                x, y, z = left[: b * m * k], right[: b * k * n], out[: b * m * n]
                if b == 1:
                    torch.mm(x.view(m, k), y.view(k, n), out=z.view(m, n))
                else:
                    torch.bmm(x.view(b, m, k), y.view(b, k, n), out=z.view(b, m, n))
        return (clock(device) - started) / sum(map(len, batches))

    return run


_OPERANDS: tuple[Callable[[int, int, int], tuple[int, int]], ...] = (
    lambda m, k, _: (m, k),
    lambda _, k, n: (k, n),
    lambda m, _, n: (m, n),
)


def step_products(sizes: Sizes, prompt: PromptConfig, lengths: Sequence[int]) -> Iterator[Product]:
    """Every product of one training step over rows of these lengths."""
    tokens, rows = prompt.virtual_tokens, len(lengths)
    text = sum(lengths)
    one_position = prompt.pooling != "mean"
    for layer in range(sizes.layers):
        first, last = layer == 0, layer == sizes.layers - 1
        if not prompt.shallow:
            read = rows if last and one_position else text
            yield from _projections(sizes, read, text, backward=0 if first else None)
            queries = [1] * rows if last and one_position else list(lengths)
            yield from _attention(sizes, queries, lengths, backward=not first)
            yield from _prompt_attention(sizes, sum(queries), tokens)
        elif sizes.decoder:
            read = rows if last else text  # decoders read the last position under either pooling
            yield from _projections(sizes, read, text, backward=0 if first else None)
            queries = [1] * rows if last else list(lengths)
            yield from _attention(sizes, queries, lengths, backward=not first)
            yield from _prompt_attention(sizes, sum(queries), tokens)
            # The prompt's own positions; the last layer needs their keys and values alone.
            yield from _projections(sizes, 0 if last else tokens, tokens, backward=None)
            if not last:
                yield from _attention(sizes, [tokens], [tokens], backward=True)
        else:
            whole = [length + tokens for length in lengths]
            queries = whole if not last else [1] * rows if one_position else list(lengths)
            yield from _projections(sizes, sum(queries), sum(whole), backward=tokens * rows if first else None)
            yield from _attention(sizes, queries, whole, backward=True)


def _projections(sizes: Sizes, queries: int, keys: int, backward: int | None) -> Iterator[Product]:
    """Linear layers: queries, output and feed-forward at some positions, keys and values at others.

    backward: positions at which the gradient goes on below queries, keys and values; None: at all of them.
    """
    width, own, other = sizes.width, sizes.heads * sizes.head_width, sizes.kv_heads * sizes.head_width
    below = [(queries, own), (keys, other), (keys, other)]
    above = (
        [(queries, own, width)]
        + [(queries, width, sizes.inner)] * (sizes.matrices - 1)
        + [(queries, sizes.inner, width)]
    )
    for positions, out in below:
        yield 1, positions, width, out
        yield 1, positions if backward is None else min(backward, positions), out, width
    for positions, k, n in above:
        yield 1, positions, k, n
        yield 1, positions, n, k


def _attention(sizes: Sizes, queries: Sequence[int], keys: Sequence[int], backward: bool) -> Iterator[Product]:
    """Attention inside of rows, each with so many queries over so many keys; rows of the same sizes at once."""
    head = sizes.head_width
    for (m, n), rows in Counter(zip(queries, keys, strict=True)).items():
        b = rows * sizes.heads
        yield b, m, head, n  # scores
        yield b, m, n, head  # values
        if backward:
            yield b, m, head, n  # gradient of the weights
            yield b, m, n, head  # of the queries
            yield b, n, m, head  # of the keys
            yield b, n, m, head  # of the values


def _prompt_attention(sizes: Sizes, queries: int, tokens: int) -> Iterator[Product]:
    """All queries over a prompt that they share, forward and backward to queries, keys and values."""
    b, head = sizes.heads, sizes.head_width
    yield b, queries, head, tokens
    yield b, queries, tokens, head
    yield b, queries, head, tokens
    yield b, queries, tokens, head
    yield b, tokens, queries, head
    yield b, tokens, queries, head
