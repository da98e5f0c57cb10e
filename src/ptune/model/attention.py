"""The one attention function, through which deep prompts enter a backbone.

transformers calls a registered attention function in every layer. Ours lets
the layer's prompt keys and values in, in one of two ways:

    shared     they stand in front of the text's, under one softmax: prefix
               tuning (arXiv 2101.00190), P-tuning v2 (arXiv 2110.07602)
    separate   a softmax of their own, whose result is added to the attention
               over the text. The text's attention stays as it was pretrained,
               where a shared softmax takes weight from it: much of it from
               short texts. Addition after arXiv 2110.04366, a start without
               effect after arXiv 2303.16199.

No model's code is copied, and nothing is computed at prompt positions outside
of attention.

Shapes: B rows, T text tokens, P virtual tokens, K key-value heads, D head width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

NAME = "ptune"


class LayerPrompts:
    """Prompt keys and values, handed out layer by layer in one forward pass.

    Layers are counted by their calls, not by `module.layer_idx`: DistilBERT
    has no index and ALBERT runs one set of weights under a single one.
    """

    def __init__(self, values: Tensor, separate: bool = False) -> None:
        """values: [L, 2, B or 1, K, P, D]; one row of B = 1 serves every row of a batch."""
        self._values = values
        self.separate = separate
        self._layer = 0
        self._narrow: Tensor | None = None
        self._wide: Tensor | None = None

    def take(self, key: Tensor) -> tuple[Tensor, Tensor]:
        """The next layer's keys and values [B, K, P, D], in the type and for the batch of `key`."""
        keys, values = self._values[self._layer].to(key.dtype)
        self._layer += 1
        rows = key.shape[0]
        return keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1)

    def widen(self, mask: Tensor | None, queries: int, causal: bool, device: torch.device) -> Tensor | None:
        """Add P columns that every query may read: bool [B, 1, T, T] -> [B, 1, T, P + T].

        No mask stays no mask in a bidirectional model. A causal one relied on
        the kernel's own triangle, which a prompt in front of it shifts.
        """
        if mask is None:
            if not causal or queries == 1:
                return None
            mask = torch.ones(queries, queries, dtype=torch.bool, device=device).tril()[None, None]
            return nn.functional.pad(mask, (self._values.shape[-2], 0), value=True)
        if mask is not self._narrow:  # most models hand the same mask to every layer
            self._narrow = mask
            self._wide = nn.functional.pad(mask, (self._values.shape[-2], 0), value=True)
        return self._wide


def prompt_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    layer_prompts: LayerPrompts | None = None,
    seen: list[Tensor] | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention of text over prompt and text; without a prompt, plain SDPA.

    query: [B, heads, T, D]; key, value: [B, K, T, D]. Returns [B, T, heads, D].
    `seen` is given the layer's keys and values, as attention uses them: [2, B, K, T, D].
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if seen is not None:
        seen.append(torch.stack([key, value]))
    if layer_prompts is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)[0], None
    keys, values = layer_prompts.take(key)
    if layer_prompts.separate:
        output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        return output + _attend(query, keys, values, options.get("scaling")), None
    key = torch.cat([keys, key], dim=2)
    value = torch.cat([values, value], dim=2)
    causal = bool(getattr(module, "is_causal", False))
    attention_mask = layer_prompts.widen(attention_mask, query.shape[2], causal, query.device)
    output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    return output, None


def _attend(query: Tensor, keys: Tensor, values: Tensor, scale: float | None) -> Tensor:
    """Attention of every query over all of its row's virtual tokens, [B, T, heads, D]."""
    grouped = query.shape[1] != keys.shape[1]
    output = nn.functional.scaled_dot_product_attention(
        query, keys.contiguous(), values.contiguous(), scale=scale, enable_gqa=grouped
    )
    return output.transpose(1, 2)


def register() -> str:
    """Make the function known to transformers; returns the name to load models with."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(NAME, prompt_attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, sdpa_mask)
    return NAME
