"""Trunks whose scores know how far apart two tokens are: MPNet's and DeBERTa's.

Both are BERT's layers with something added to the scores. It is handed to the
fused kernel as a mask of numbers, so that deep prompts enter as everywhere
else; to a prompt's columns nothing is added.

Shapes: B rows, T positions, H width, K heads, D head width, W distances.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ptune.model.trunk import Trunk


def _padding(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Padding mask [B, T] -> what hides it when it is added to scores, [B, 1, 1, T]: together still a finite number."""
    if mask is None:
        return None
    shown = mask[:, None, None].bool()
    return torch.zeros(shown.shape, dtype=dtype, device=mask.device).masked_fill(~shown, torch.finfo(dtype).min / 2)


def _rows(tensor: Tensor, read: Tensor) -> Tensor:
    """[1 or B, K, T, T] -> [B, K, 1, T], of one query of each row."""
    rows = read.shape[0]
    return tensor.expand(rows, -1, -1, -1)[torch.arange(rows, device=read.device), :, read][:, :, None]


class BiasedTrunk(Trunk):
    """Runs MPNet's layers, which add one bias for each distance, the same in all layers."""

    def _own(self, layer: Any) -> Any:
        return layer.attention.attn

    def _parts(self, layer: Any) -> tuple[nn.Linear, nn.Linear, nn.Linear]:
        own = layer.attention.attn
        return own.q, own.k, own.v

    def _rest(self, layer: Any, context: Tensor, states: Tensor) -> Tensor:
        states = layer.attention.LayerNorm(layer.attention.attn.o(context) + states)
        return layer.output(layer.intermediate(states), states)

    def _mask(self, states: Tensor, mask: Tensor | None) -> Tensor:
        bias = self._encoder[0].compute_position_bias(states[:1])
        padding = _padding(mask, bias.dtype)
        return bias if padding is None else bias + padding

    def _layer_mask(self, *_: Any, visible: Tensor, read: Tensor | None) -> Tensor:
        return visible if read is None else _rows(visible, read)


@dataclass(frozen=True)
class _Distances:
    """table: embeddings [W, H]; index: the row of it for each query and key, [T, T]; padding: [B, 1, 1, T]."""

    table: Tensor
    index: Tensor
    padding: Tensor | None


class DisentangledTrunk(Trunk):
    """Runs the layers of DeBERTa-v2 and v3 (arXiv 2006.03654, 2111.09543).

    To a query's product with a key two others are added: the query's with an embedding of their distance (c2p), and the
    key's with another (p2c). Distances beyond a text's length are left out of these products, which saves most of the
    time: the table has 512 of them, and a text of T tokens needs 2 T - 1.
    """

    @classmethod
    def suits(cls, base: Any) -> bool:
        """Whether it has distances, and neither a convolution nor steps of the last layer."""
        own = base.encoder.layer[0].attention.self
        plain = base.encoder.conv is None and base.z_steps <= 1
        return bool(own.relative_attention) and plain and set(own.pos_att_type) <= {"c2p", "p2c"}

    def _parts(self, layer: Any) -> tuple[nn.Linear, nn.Linear, nn.Linear]:
        own = layer.attention.self
        return own.query_proj, own.key_proj, own.value_proj

    def _rest(self, layer: Any, context: Tensor, states: Tensor) -> Tensor:
        states = layer.attention.output(context, states)
        return layer.output(layer.intermediate(states), states)

    def _scale(self, layer: Any) -> float:
        own = layer.attention.self
        return (own.attention_head_size * (1 + len(own.pos_att_type))) ** -0.5

    def _mask(self, states: Tensor, mask: Tensor | None) -> _Distances:
        encoder, own, length = self._encoder[0], self._layers[0].attention.self, states.shape[1]
        span = int(own.pos_ebd_size)
        table = encoder.get_rel_embedding()[: 2 * span]
        index = (encoder.get_rel_pos(states)[0] + span).clamp(0, 2 * span - 1)
        exact = own.position_buckets // 2 if own.position_buckets > 0 else span  # up to it each distance has its row
        if not torch.compiler.is_exporting() and length <= exact:
            table, index = table[span - length + 1 : span + length], index - (span - length + 1)
        return _Distances(table, index, _padding(mask, states.dtype))

    def _layer_mask(self, *layer: Any, visible: _Distances, read: Tensor | None) -> Tensor:
        number, query, key = layer
        own = self._layers[number].attention.self
        scale = self._scale(self._layers[number])
        index = visible.index[None, None] if read is None else visible.index[read][:, None, None]
        parts = []
        if "c2p" in own.pos_att_type:
            project = own.key_proj if own.share_att_key else own.pos_key_proj
            by_distance = query @ self._by_head(own, project(visible.table))  # [B, K, T or 1, W]
            chosen = index.expand(*by_distance.shape[:3], -1)
            parts.append(by_distance.gather(-1, chosen) * self._joined(number)[2])
        if "p2c" in own.pos_att_type:
            project = own.query_proj if own.share_att_key else own.pos_query_proj
            by_distance = key @ self._by_head(own, project(visible.table))  # [B, K, T, W]
            chosen = index.transpose(-1, -2).expand(*by_distance.shape[:3], -1)
            parts.append(by_distance.gather(-1, chosen).transpose(-1, -2) * scale)
        if visible.padding is not None:
            parts.append(visible.padding)
        return sum(parts[1:], parts[0])

    def _by_head(self, own: Any, vectors: Tensor) -> Tensor:
        """[W, H] -> [K, D, W]."""
        return vectors.unflatten(-1, (own.num_attention_heads, -1)).permute(1, 2, 0)
