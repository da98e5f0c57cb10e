"""Attention of families that do more to their scores than scale and mask them.

    softcap    scores are squeezed into (-softcap, softcap) by a tanh    (Gemma 2)
    sinks      a learned score for each head, which takes weight and gives no value    (gpt-oss)

No fused kernel does either, so these are plain products. `score_function` gives
a function that can stand in for the plain attention of `ptune.model.attention`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

# query, key, value, mask, scale, causal -> [B, T, heads, D]
Attention = Callable[[Tensor, Tensor, Tensor, "Tensor | None", "float | None", bool], Tensor]


def score_function(softcap: float | None = None, sinks: Tensor | None = None) -> Attention | None:
    """Return attention with these, or None where there is neither.

    sinks: [heads].
    """
    if softcap is None and sinks is None:
        return None
    return partial(_attend, softcap=softcap, sinks=sinks)


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scale: float | None,
    causal: bool,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = torch.matmul(query * (query.shape[-1] ** -0.5 if scale is None else scale), key.transpose(2, 3))
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if causal and mask is None:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None and mask.dtype != torch.bool:
        scores = scores + mask
    elif mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    if sinks is not None:
        column = sinks.to(scores)[None, :, None, None].expand(*scores.shape[:-1], 1)
        scores = torch.cat([scores, column], dim=-1)
    weights = scores.softmax(dim=-1)[..., : key.shape[2]]
    return torch.matmul(weights, value).transpose(1, 2)
