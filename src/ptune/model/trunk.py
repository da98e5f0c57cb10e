"""The layers of encoders of BERT's build, run without what a frozen, prompted model does not need.

transformers' modules and weights are used as they are. What differs from its own
loop over the layers: queries, keys and values are one product; the last layer is
computed only where the head reads; masks stay [B, 1, 1, T].

Shapes: B rows, T positions, H width, K heads, D head width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ptune.model.attention import LayerPrompts, attend


class Trunk(nn.Module):
    """Runs `base.encoder.layer`.

    The joined weights of queries, keys and values are the layers' own: the
    layers' parameters become views into them, so that nothing is held twice.
    """

    def __init__(self, base: Any) -> None:
        super().__init__()
        self._encoder = [base.encoder]  # in a list, as it belongs to the base
        self._layers = list(base.encoder.layer)  # a list, not a ModuleList: they belong to the base
        for number, layer in enumerate(self._layers):
            parts = self._parts(layer)
            weight = torch.cat([part.weight.detach() for part in parts])
            self.register_buffer(f"weight{number}", weight, persistent=False)
            self.register_buffer(f"bias{number}", torch.cat([part.bias.detach() for part in parts]), persistent=False)
        self._share()

    def forward(
        self,
        states: Tensor,
        mask: Tensor | None,
        layer_prompts: LayerPrompts | None = None,
        read: Tensor | None = None,
        seen: list[Tensor] | None = None,
    ) -> Tensor:
        """Embedded text [B, T, H] -> hidden states [B, T, H].

        Args:
            mask: [B, T], 1 for text; None where nothing is padded.
            read: [B], the position of each row that the head reads: the result is then [B, 1, H].
            seen: is given each layer's keys and values, [2, B, K, T, D].
        """
        visible = self._mask(states, mask)
        last = len(self._layers) - 1
        for number in range(last + 1):
            states = self._layer(number, states, visible, layer_prompts, read if number == last else None, seen)
        return states

    def _layer(
        self,
        number: int,
        states: Tensor,
        visible: Tensor | None,
        layer_prompts: LayerPrompts | None,
        read: Tensor | None,
        seen: list[Tensor] | None,
    ) -> Tensor:
        layer = self._layers[number]
        weight, bias, scale = self._joined(number)
        own = self._own(layer)
        heads = (own.num_attention_heads, own.attention_head_size)
        if read is None:
            joined = nn.functional.linear(states, weight, bias).unflatten(-1, (3, *heads))
            query, key, value = joined.permute(2, 0, 3, 1, 4)
        else:
            width = own.all_head_size
            joined = nn.functional.linear(states, weight[width:], bias[width:])
            key, value = joined.unflatten(-1, (2, *heads)).permute(2, 0, 3, 1, 4)
            states = states[torch.arange(states.shape[0], device=states.device), read][:, None]
            visible = self._mask_of(visible, read)
            query = nn.functional.linear(states, weight[:width], bias[:width]).unflatten(-1, heads).transpose(1, 2)
        if seen is not None:
            seen.append(torch.stack([key, value]))
        context = attend(query, key, value, visible, layer_prompts, scale)
        return self._rest(layer, context.flatten(2), states)

    def _own(self, layer: Any) -> Any:
        """The module of a layer that holds its projections."""
        return layer.attention.self

    def _parts(self, layer: Any) -> tuple[nn.Linear, nn.Linear, nn.Linear]:
        """Projections to queries, keys and values."""
        own = layer.attention.self
        return own.query, own.key, own.value

    def _rest(self, layer: Any, context: Tensor, states: Tensor) -> Tensor:
        """What a layer does with its context [B, T, H]."""
        return layer.feed_forward_chunk(layer.attention.output(context, states))

    def _mask(self, states: Tensor, mask: Tensor | None) -> Tensor | None:  # noqa: ARG002
        """What attention masks or adds to its scores, from the padding mask [B, T]."""
        return None if mask is None else mask[:, None, None].bool()

    def _mask_of(self, mask: Tensor | None, read: Tensor) -> Tensor | None:  # noqa: ARG002
        """The same for one query of each row, at the position `read` [B]."""
        return mask

    def _joined(self, number: int) -> tuple[Tensor, Tensor, float]:
        """Joined weight and bias of a layer, and the scale of its scores.

        In an exported graph the scale is part of the weights of the queries: a product less in each layer.
        """
        weight, bias = self.get_buffer(f"weight{number}"), self.get_buffer(f"bias{number}")
        scale = self._own(self._layers[number]).attention_head_size ** -0.5
        if not torch.compiler.is_exporting():
            return weight, bias, scale
        width = len(bias) // 3
        factor = torch.cat([torch.full((width,), scale), torch.ones(2 * width)])
        return weight * factor[:, None], bias * factor, 1.0

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Trunk:
        """What moves or casts a model moves each tensor by itself; join them again afterwards."""
        super()._apply(fn, recurse)
        self._share()
        return self

    def _share(self) -> None:
        for number, layer in enumerate(self._layers):
            weights = self.get_buffer(f"weight{number}").chunk(3)
            biases = self.get_buffer(f"bias{number}").chunk(3)
            for part, weight, bias in zip(self._parts(layer), weights, biases, strict=True):
                part.weight.data, part.bias.data = weight, bias


class BiasedTrunk(Trunk):
    """Runs layers of MPNet's build: BERT's, with a bias for each distance added to the scores.

    The bias is the same in all layers. It is computed once, joined with the padding mask, and handed to the fused
    kernel as the mask [B, K, T, T].
    """

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
        if mask is None:
            return bias
        hidden = torch.finfo(bias.dtype).min / 2  # together with a score it is still a finite number
        return bias.masked_fill(~mask[:, None, None].bool(), hidden)

    def _mask_of(self, mask: Tensor | None, read: Tensor) -> Tensor | None:
        assert mask is not None
        rows = read.shape[0]
        return mask.expand(rows, -1, -1, -1)[torch.arange(rows, device=read.device), :, read][:, :, None]
