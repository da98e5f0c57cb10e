"""A faster loop over the layers of BERT and similar encoders, for a frozen model with a prompt.

It uses the modules and weights of transformers. It differs from transformers'
loop in three ways: queries, keys and values are computed in one product, the
last layer is computed only at the position that the head reads, and masks keep
the shape [B, 1, 1, T].

Shapes: B rows, T positions, H width, K heads, D head width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ptune.model.attention import LayerPrompts, Seen, attend
from ptune.model.recompute import run_layer


class Trunk(nn.Module):
    """The loop over `base.encoder.layer`.

    The projections to queries, keys and values of a layer are joined. The layer's
    parameters become views of the joined weights, so that no weight is stored twice.
    """

    def __init__(self, base: Any) -> None:
        super().__init__()
        # Plain lists, so that the encoder and its layers are submodules of the base only.
        self._encoder = [base.encoder]
        self._layers = list(base.encoder.layer)
        for number, layer in enumerate(self._layers):
            projections = self._projections(layer)
            weight = torch.cat([projection.weight.detach() for projection in projections])
            bias = torch.cat([projection.bias.detach() for projection in projections])
            self.register_buffer(f"weight{number}", weight, persistent=False)
            self.register_buffer(f"bias{number}", bias, persistent=False)
        self._share_weights()

    @classmethod
    def suits(cls, base: Any) -> bool:  # noqa: ARG003
        """Return whether this loop computes everything that a model of the family has."""
        return True

    def forward(
        self,
        states: Tensor,
        mask: Tensor | None,
        layer_prompts: LayerPrompts | None = None,
        read: Tensor | None = None,
        seen: Seen | None = None,
    ) -> Tensor:
        """Return the hidden states [B, T, H] for embedded text [B, T, H].

        Args:
            states: the embedded text.
            mask: [B, T], 1 for text; None: no row is padded.
            layer_prompts: a deep prompt; None: there is none.
            read: [B], the position of each row that the head reads. The result is then [B, 1, H].
            seen: is given the keys and values of each layer.
        """
        attention_mask = self._attention_mask(states, mask)
        last = len(self._layers) - 1
        for number in range(last + 1):
            wanted = read if number == last else None
            states = run_layer(self._layer, layer_prompts, number, states, attention_mask, layer_prompts, wanted, seen)
        return states

    def _layer(
        self,
        number: int,
        states: Tensor,
        mask: Any,
        layer_prompts: LayerPrompts | None,
        read: Tensor | None,
        seen: Seen | None,
    ) -> Tensor:
        layer = self._layers[number]
        weight, bias, scale = self._joined_weights(number)
        attention = self._attention(layer)
        heads = (attention.num_attention_heads, attention.attention_head_size)
        if read is None:
            joined = nn.functional.linear(states, weight, bias).unflatten(-1, (3, *heads))
            query, key, value = joined.permute(2, 0, 3, 1, 4)
        else:
            width = attention.all_head_size
            joined = nn.functional.linear(states, weight[width:], bias[width:])
            key, value = joined.unflatten(-1, (2, *heads)).permute(2, 0, 3, 1, 4)
            states = states[torch.arange(states.shape[0], device=states.device), read][:, None]
            query = nn.functional.linear(states, weight[:width], bias[:width]).unflatten(-1, heads).transpose(1, 2)
        if seen is not None:
            seen.note(key, value)
        layer_mask = self._layer_mask(number, query, key, mask=mask, read=read)
        context = attend(query, key, value, layer_mask, layer_prompts, scale)
        return self._after_attention(layer, context.flatten(2), states)

    def _attention(self, layer: Any) -> Any:
        """Return the module of a layer that has its projections."""
        return layer.attention.self

    def _projections(self, layer: Any) -> tuple[nn.Linear, nn.Linear, nn.Linear]:
        """Return the projections of a layer to queries, keys and values."""
        attention = self._attention(layer)
        return attention.query, attention.key, attention.value

    def _after_attention(self, layer: Any, context: Tensor, states: Tensor) -> Tensor:
        """Return a layer's output [B, T, H] for its input `states` and the result of its attention, both [B, T, H]."""
        return layer.feed_forward_chunk(layer.attention.output(context, states))

    def _scale(self, layer: Any) -> float:
        """Return what scores are multiplied by."""
        return self._attention(layer).attention_head_size ** -0.5

    def _attention_mask(self, states: Tensor, mask: Tensor | None) -> Any:  # noqa: ARG002
        """Return what the masks of all layers are made of, from the padding mask [B, T]."""
        return None if mask is None else mask[:, None, None].bool()

    def _layer_mask(self, *layer: Any, mask: Any, read: Tensor | None) -> Tensor | None:  # noqa: ARG002
        """Return the mask of a layer, bool or added to the scores.

        Args:
            layer: its number, queries [B, K, T or 1, D] and keys [B, K, T, D].
            mask: from `_attention_mask`.
            read: [B], the position of the single query of each row; None: all positions are queries.
        """
        return mask

    def _joined_weights(self, number: int) -> tuple[Tensor, Tensor, float]:
        """Return the joined weight and bias of a layer, and the scale of its scores.

        In an exported graph the queries' weights are scaled instead of the scores. This saves a product per layer.
        """
        weight, bias = self.get_buffer(f"weight{number}"), self.get_buffer(f"bias{number}")
        scale = self._scale(self._layers[number])
        if not torch.compiler.is_exporting():
            return weight, bias, scale
        width = len(bias) // 3
        factor = torch.cat([torch.full((width,), scale), torch.ones(2 * width)])
        return weight * factor[:, None], bias * factor, 1.0

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Trunk:
        """Move or cast the trunk. PyTorch does this tensor by tensor, so the weights have to be shared again."""
        super()._apply(fn, recurse)
        self._share_weights()
        return self

    def _share_weights(self) -> None:
        """Make the parameters of the layers views of the joined weights."""
        for number, layer in enumerate(self._layers):
            weights = self.get_buffer(f"weight{number}").chunk(3)
            biases = self.get_buffer(f"bias{number}").chunk(3)
            for projection, weight, bias in zip(self._projections(layer), weights, biases, strict=True):
                projection.weight.data, projection.bias.data = weight, bias
