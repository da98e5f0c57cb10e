"""Trunks whose scores depend on the distance between two tokens: MPNet and DeBERTa-v2 and v3.

Both have BERT's layers with something added to the scores. The sum is passed to
the fused kernel as a mask of numbers, so deep prompts enter as in other
families. Nothing is added to the columns of a prompt.

Shapes: B rows, T positions, H width, K heads, D head width, W distances.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ptune.model.trunk import Trunk


def _padding(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Return what hides padding when it is added to scores, [B, 1, 1, T], from the padding mask [B, T].

    It is half of the smallest number, so that the sum with a score is still finite.
    """
    if mask is None:
        return None
    shown = mask[:, None, None].bool()
    return torch.zeros(shown.shape, dtype=dtype, device=mask.device).masked_fill(~shown, torch.finfo(dtype).min / 2)


def _rows(tensor: Tensor, read: Tensor) -> Tensor:
    """Return the part of one query of each row, [B, K, 1, T], from a mask [1 or B, K, T, T]."""
    rows = read.shape[0]
    return tensor.expand(rows, -1, -1, -1)[torch.arange(rows, device=read.device), :, read][:, :, None]


class BiasedTrunk(Trunk):
    """The loop over MPNet's layers, which add a bias for each distance. It is the same in all layers."""

    def _attention(self, layer: Any) -> Any:
        return layer.attention.attn

    def _projections(self, layer: Any) -> tuple[nn.Linear, nn.Linear, nn.Linear]:
        attention = layer.attention.attn
        return attention.q, attention.k, attention.v

    def _after_attention(self, layer: Any, context: Tensor, states: Tensor) -> Tensor:
        states = layer.attention.LayerNorm(layer.attention.attn.o(context) + states)
        return layer.output(layer.intermediate(states), states)

    def _attention_mask(self, states: Tensor, mask: Tensor | None) -> Tensor:
        bias = self._encoder[0].compute_position_bias(states[:1])
        padding = _padding(mask, bias.dtype)
        return bias if padding is None else bias + padding

    def _layer_mask(self, *_: Any, mask: Tensor, read: Tensor | None) -> Tensor:
        return mask if read is None else _rows(mask, read)


@dataclass(frozen=True)
class _Distances:
    """What the layers of DeBERTa share.

    table: embeddings of the distances, [W, H].
    index: the row of the table for each query and key, [T, T].
    padding: from `_padding`, [B, 1, 1, T].
    """

    table: Tensor
    index: Tensor
    padding: Tensor | None


class DisentangledTrunk(Trunk):
    """The loop over the layers of DeBERTa-v2 and v3 (arXiv 2006.03654, 2111.09543).

    Two products are added to a query's product with a key: that of the query with an embedding of their distance (c2p),
    and that of the key with another embedding (p2c). Distances beyond the length of the text are left out. This saves
    most of the time: the table has 512 distances, and a text of T tokens needs 2 T - 1.
    """

    @classmethod
    def suits(cls, base: Any) -> bool:
        """Return whether the model has distances, no convolution, and no repeated last layer."""
        attention = base.encoder.layer[0].attention.self
        unextended = base.encoder.conv is None and base.z_steps <= 1
        return bool(attention.relative_attention) and unextended and set(attention.pos_att_type) <= {"c2p", "p2c"}

    def _projections(self, layer: Any) -> tuple[nn.Linear, nn.Linear, nn.Linear]:
        attention = layer.attention.self
        return attention.query_proj, attention.key_proj, attention.value_proj

    def _after_attention(self, layer: Any, context: Tensor, states: Tensor) -> Tensor:
        states = layer.attention.output(context, states)
        return layer.output(layer.intermediate(states), states)

    def _scale(self, layer: Any) -> float:
        attention = layer.attention.self
        return (attention.attention_head_size * (1 + len(attention.pos_att_type))) ** -0.5

    def _attention_mask(self, states: Tensor, mask: Tensor | None) -> _Distances:
        encoder, attention, length = self._encoder[0], self._layers[0].attention.self, states.shape[1]
        span = int(attention.pos_ebd_size)
        table = encoder.get_rel_embedding()[: 2 * span]
        index = (encoder.get_rel_pos(states)[0] + span).clamp(0, 2 * span - 1)
        # Distances up to this have rows of their own.
        exact = attention.position_buckets // 2 if attention.position_buckets > 0 else span
        if not torch.compiler.is_exporting() and length <= exact:
            table, index = table[span - length + 1 : span + length], index - (span - length + 1)
        return _Distances(table, index, _padding(mask, states.dtype))

    def _layer_mask(self, *layer: Any, mask: _Distances, read: Tensor | None) -> Tensor:
        number, query, key = layer
        attention = self._layers[number].attention.self
        scale = self._scale(self._layers[number])
        index = mask.index[None, None] if read is None else mask.index[read][:, None, None]
        terms = []
        if "c2p" in attention.pos_att_type:
            project = attention.key_proj if attention.share_att_key else attention.pos_key_proj
            by_distance = query @ self._by_head(attention, project(mask.table))  # [B, K, T or 1, W]
            rows = index.expand(*by_distance.shape[:3], -1)
            terms.append(by_distance.gather(-1, rows) * self._joined_weights(number)[2])
        if "p2c" in attention.pos_att_type:
            project = attention.query_proj if attention.share_att_key else attention.pos_query_proj
            by_distance = key @ self._by_head(attention, project(mask.table))  # [B, K, T, W]
            rows = index.transpose(-1, -2).expand(*by_distance.shape[:3], -1)
            terms.append(by_distance.gather(-1, rows).transpose(-1, -2) * scale)
        if mask.padding is not None:
            terms.append(mask.padding)
        return sum(terms[1:], terms[0])

    def _by_head(self, attention: Any, vectors: Tensor) -> Tensor:
        """Return vectors [W, H] by head, [K, D, W]."""
        return vectors.unflatten(-1, (attention.num_attention_heads, -1)).permute(1, 2, 0)
