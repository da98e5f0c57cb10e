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

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn

from ptune.model.scores import Attention

NAME = "ptune"
# torch 2.10 has the kernel for rows of different lengths without a scale. Sharing heads came in a later release than
# 2.11, so it is not used: no encoder does.
_KERNEL_SCALES = "scale" in inspect.signature(varlen_attn).parameters


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

    def take(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The next layer's keys and values, [B or 1, K, P, D]."""
        keys, values = self._values[self._layer].to(dtype)
        self._layer += 1
        return keys, values

    def widen(self, mask: Tensor | None, queries: int, causal: bool, device: torch.device) -> Tensor | None:
        """Add P columns that every query may read: [B, 1, T, T] -> [B, 1, T, P + T]. Numbers are added to scores.

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
            readable = mask.dtype == torch.bool  # as a number, 0 changes nothing
            self._wide = nn.functional.pad(mask, (self._values.shape[-2], 0), value=readable)
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
    The signature is transformers'; it gives masks of bool, made by its function for SDPA.
    `seen` is given the layer's keys and values, as attention uses them: [2, B, K, T, D].
    """
    if seen is not None:
        seen.append(torch.stack([key, value]))
    causal = bool(getattr(module, "is_causal", False)) and options.get("is_causal") is not False
    return attend(query, key, value, attention_mask, layer_prompts, options.get("scaling"), causal), None


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    layer_prompts: LayerPrompts | None,
    scale: float | None,
    causal: bool = False,
    attend_text: Attention | None = None,
) -> Tensor:
    """Attention of text over prompt and text, [B, T, heads, D].

    mask: bool, broadcast to [B, heads, T, T]; None with `causal` is the kernel's own triangle. Numbers that are added
    to the scores, in the query's type, are a mask as well.
    attend_text: attention over the text, of families that have one of their own; see `ptune.model.scores`.
    """
    attend_text = attend_text or _attend_text
    if layer_prompts is None:
        return attend_text(query, key, value, mask, scale, causal)
    keys, values = layer_prompts.take(key.dtype)
    if value.shape[-1] != key.shape[-1]:  # latent attention: the text's values are narrower than its keys
        values = values[..., : value.shape[-1]]
    if layer_prompts.separate:
        return attend_text(query, key, value, mask, scale, causal) + attend_prompt(query, keys, values, scale)
    rows = (key.shape[0], -1, -1, -1)
    mask = layer_prompts.widen(mask, query.shape[2], causal, query.device)
    key = torch.cat([keys.expand(rows), key], dim=2)
    value = torch.cat([values.expand(rows), value], dim=2)
    return attend_text(query, key, value, mask, scale, False)


def _attend_text(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float | None, causal: bool
) -> Tensor:
    groups = query.shape[1] // key.shape[1]
    if mask is not None and mask.shape[-2] == 1 < query.shape[2] and groups == 1 and takes_lengths(query):
        return _attend_ragged(query, key, value, mask, scale)
    slow = kernel_is_slow(query, key)
    if groups > 1 and (slow or mask is not None):  # a GPU's fused kernels take grouped heads only without a mask
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    if slow:
        return _attend_by_products(query, key, value, mask, scale, causal)
    output = nn.functional.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        is_causal=causal and mask is None and query.shape[2] > 1,
        scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return output.transpose(1, 2)


def takes_lengths(query: Tensor) -> bool:
    """Whether there is a kernel for rows of different lengths: FlashAttention, on GPUs of NVIDIA from Ampere on."""
    if not query.is_cuda or query.dtype not in (torch.bfloat16, torch.float16):
        return False
    if query.shape[-1] % 8 or not _KERNEL_SCALES:
        return False
    return torch.version.hip is None and torch.cuda.get_device_capability(query.device) >= (8, 0)


def _attend_ragged(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float | None) -> Tensor:
    """Attention of rows padded on the right, [B, T, heads, D], without their mask.

    A fused kernel with a mask is a slower one, as it reads a score's mask with every score. Here the batch is one list
    of 2 B sequences, each row's text and then its padding, which has nobody to read it: no token is moved, shapes
    are the batch's, so that a CUDA graph can hold it, and the host need not know a length.

    mask: [B, 1, 1, S], true for the first positions of a row's S keys: those of its prompt and its text.
    """
    rows, _, length, _ = query.shape
    longest = key.shape[2]  # P more than T, where a prompt stands in front
    keys = mask.sum(dim=-1).view(rows)
    text = keys - (longest - length)
    query, key, value = (tensor.transpose(1, 2).flatten(0, 1) for tensor in (query, key, value))
    output: Tensor = varlen_attn(  # type: ignore[assignment]
        query,
        key,
        value,
        _borders(text, length),
        _borders(keys, longest),
        length,
        longest,
        scale=scale,
    )
    return output.unflatten(0, (rows, length))


def _borders(lengths: Tensor, longest: int) -> Tensor:
    """Where sequences begin and end, int32 [2 B + 1]: each row's `lengths` [B] and what is left of `longest`."""
    parts = torch.stack([lengths, longest - lengths], dim=1).flatten()
    return nn.functional.pad(parts.cumsum(0), (1, 0)).int()


def attend_prompt(query: Tensor, keys: Tensor, values: Tensor, scale: float | None) -> Tensor:
    """Attention of every query over all of its row's virtual tokens, [B, T, heads, D].

    Where all rows share a prompt, their queries are one long list for each key-value head: two large products
    instead of B small ones. In an exported graph B small ones are faster than moving the queries about.
    """
    rows, heads, length, width = query.shape
    if keys.shape[0] > 1 or torch.compiler.is_exporting():
        return _attend_text(query, keys.contiguous(), values.contiguous(), None, scale, causal=False)
    shared = keys.shape[1]
    listed = query.unflatten(1, (shared, heads // shared)).transpose(0, 1).reshape(shared, -1, width)
    scores = torch.bmm(listed, keys[0].transpose(1, 2) * (width**-0.5 if scale is None else scale))
    output = torch.bmm(scores.softmax(dim=-1), values[0])  # [K, B * heads / K * T, D]
    return output.view(shared, rows, heads // shared, length, values.shape[-1]).permute(1, 3, 0, 2, 4).flatten(2, 3)


# Longest text for which training on a CPU keeps scores [B, heads, T, T] for the way back, instead of using the fused
# kernel, whose way back takes six times as long in bfloat16. In float32 both take as long.
PRODUCTS_LENGTH = {torch.bfloat16: 512}


def kernel_is_slow(query: Tensor, key: Tensor) -> bool:
    """Whether training meets the CPU's fused kernel where plain products are faster."""
    longest = PRODUCTS_LENGTH.get(query.dtype, 0)
    return query.device.type == "cpu" and torch.is_grad_enabled() and key.shape[2] <= longest


def _attend_by_products(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float | None, causal: bool
) -> Tensor:
    if causal and mask is None:
        mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()
    scores = torch.matmul(query * (query.shape[-1] ** -0.5 if scale is None else scale), key.transpose(2, 3))
    if mask is not None and mask.dtype != torch.bool:
        scores = scores + mask
    elif mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return torch.matmul(scores.softmax(dim=-1), value).transpose(1, 2)


def register() -> str:
    """Make the function known to transformers; returns the name to load models with."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(NAME, prompt_attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, make_mask)
    return NAME


def make_mask(**options: Any) -> Tensor | None:
    """Make transformers' mask for SDPA, bool [B, 1, T, T], without looking into the padding mask.

    transformers looks whether it hides anything, and leaves it out if not. That makes the host wait for a GPU in every
    forward pass. ptune passes a padding mask only where rows are padded, so there is nothing to find.
    """
    from transformers.masking_utils import sdpa_mask

    if options.get("attention_mask") is not None:
        options |= {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
    return sdpa_mask(**options)
