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

    @classmethod
    def suits(cls, base: Any) -> bool:  # noqa: ARG003
        """Whether a model of such a family has nothing that is not run here."""
        return True

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
        visible: Any,
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
            query = nn.functional.linear(states, weight[:width], bias[:width]).unflatten(-1, heads).transpose(1, 2)
        if seen is not None:
            seen.append(torch.stack([key, value]))
        mask = self._layer_mask(number, query, key, visible=visible, read=read)
        context = attend(query, key, value, mask, layer_prompts, scale)
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

    def _scale(self, layer: Any) -> float:
        """What scores are multiplied with."""
        return self._own(layer).attention_head_size ** -0.5

    def _mask(self, states: Tensor, mask: Tensor | None) -> Any:  # noqa: ARG002
        """What all layers' masks are made of, from the padding mask [B, T]."""
        return None if mask is None else mask[:, None, None].bool()

    def _layer_mask(self, *layer: Any, visible: Any, read: Tensor | None) -> Tensor | None:  # noqa: ARG002
        """What a layer masks or adds to its scores, of all queries or, at the position `read` [B], of one a row.

        layer: its number, queries [B, K, T or 1, D] and keys [B, K, T, D].
        """
        return visible

    def _joined(self, number: int) -> tuple[Tensor, Tensor, float]:
        """Joined weight and bias of a layer, and the scale of its scores.

        In an exported graph the scale is part of the weights of the queries: a product less in each layer.
        """
        weight, bias = self.get_buffer(f"weight{number}"), self.get_buffer(f"bias{number}")
        scale = self._scale(self._layers[number])
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
