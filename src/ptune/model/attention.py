"""The attention function through which deep prompts enter a backbone.

transformers calls a registered attention function in every layer. Ours adds
the keys and values of the layer's prompt in one of two ways:

    shared     They come before the keys and values of the text, under one
               softmax, as in prefix tuning (arXiv 2101.00190) and P-tuning v2
               (arXiv 2110.07602).
    separate   They have a separate softmax, whose result is added to the
               attention over the text. The text's attention stays as it was
               pretrained. A shared softmax takes weight from it, and most from
               short texts. The addition follows arXiv 2110.04366, the start
               without an effect arXiv 2303.16199.

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

from ptune.model.row_prompts import SplitPrompts
from ptune.model.scores import Attention

NAME = "ptune"
# In torch 2.10 the kernel for rows of different lengths does not take a scale. Its support for key-value heads that
# several query heads share came later than torch 2.11. It is not used here, because no encoder shares heads.
_KERNEL_SCALES = "scale" in inspect.signature(varlen_attn).parameters


class Seen:
    """The keys and values of the layers of one pass, [2, B, K, T, D] each, in their order.

    It is not a list, because FSDP copies lists on their way to a layer.
    """

    def __init__(self) -> None:
        self.layers: list[Tensor] = []

    def note(self, key: Tensor, value: Tensor) -> None:
        """Note what a layer's attention uses, [B, K, T, D] each."""
        self.layers.append(torch.stack([key, value]))


class LayerPrompts:
    """The keys and values of a prompt, which one forward pass takes layer by layer.

    Layers are counted by their calls, not by `module.layer_idx`: DistilBERT
    has no index, and ALBERT runs one set of weights under a single index.

    Args:
        values: [L, 2, B or 1, K, P, D], or what gives [2, B, K, P, D] for each layer; with 1 all rows of a batch share
            the prompt.
        separate: True if the prompt has a separate softmax.
    """

    def __init__(self, values: Tensor | SplitPrompts, separate: bool = False) -> None:
        self._keys_and_values = values
        self.separate = separate
        self._layer = 0
        self._text_mask: Tensor | None = None
        self._full_mask: Tensor | None = None

    def take(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return the keys and values of the next layer, both [B or 1, K, P, D]."""
        keys, values = self._keys_and_values[self._layer].to(dtype)
        self._layer += 1
        return keys, values

    def widen(self, mask: Tensor | None, queries: int, causal: bool, device: torch.device) -> Tensor | None:
        """Return a mask with P more columns that every query may read: [B, 1, T, T] -> [B, 1, T, P + T].

        Without a mask a bidirectional model still needs none. A causal model
        needs one, because the kernel's causal triangle does not allow for a
        prompt in front of the text.

        Args:
            mask: bool, or numbers that are added to the scores; None: nothing is masked.
            queries: number of queries T.
            causal: True if a query may not read the text that follows it.
            device: where a new mask is made.
        """
        if mask is None:
            if not causal or queries == 1:
                return None
            mask = torch.ones(queries, queries, dtype=torch.bool, device=device).tril()[None, None]
            return nn.functional.pad(mask, (self._keys_and_values.shape[-2], 0), value=True)
        if mask is not self._text_mask:  # most models pass the same mask to every layer
            self._text_mask = mask
            readable = mask.dtype == torch.bool  # False is 0, which changes no score
            self._full_mask = nn.functional.pad(mask, (self._keys_and_values.shape[-2], 0), value=readable)
        return self._full_mask


def prompt_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    layer_prompts: LayerPrompts | None = None,
    seen: Seen | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Return the attention of the text over prompt and text, [B, T, heads, D]. Without a prompt this is plain SDPA.

    The signature is the one that transformers calls.

    Args:
        module: the attention layer.
        query: [B, heads, T, D].
        key: [B, K, T, D].
        value: [B, K, T, D].
        attention_mask: bool [B, 1, T, T], made by `make_mask`, or None.
        layer_prompts: the prompt; None: there is none.
        seen: is given the layer's keys and values as attention uses them.
        options: further arguments of transformers. `scaling` and `is_causal` are used.
    """
    if seen is not None:
        seen.note(key, value)
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
    """Return the attention of the text over prompt and text, [B, T, heads, D].

    Args:
        query: [B, heads, T, D].
        key: [B, K, T, D].
        value: [B, K, T, D].
        mask: bool, or numbers of the query's type that are added to the scores; broadcast to [B, heads, T, T]. None
            with `causal`: the kernel's causal triangle.
        layer_prompts: the prompt; None: there is none.
        scale: factor of the scores; None: 1 / sqrt(D).
        causal: True if a query may not read the text that follows it.
        attend_text: attention over the text, for families that compute it in another way; see `ptune.model.scores`.
    """
    attend_text = attend_text or _attend_text
    if layer_prompts is None:
        return attend_text(query, key, value, mask, scale, causal)
    keys, values = layer_prompts.take(key.dtype)
    if value.shape[-1] != key.shape[-1]:  # in latent attention the text's values are narrower than its keys
        values = values[..., : value.shape[-1]]
    if layer_prompts.separate:
        return attend_text(query, key, value, mask, scale, causal) + attend_prompt(query, keys, values, scale)
    shape = (key.shape[0], -1, -1, -1)
    mask = layer_prompts.widen(mask, query.shape[2], causal, query.device)
    key = torch.cat([keys.expand(shape), key], dim=2)
    value = torch.cat([values.expand(shape), value], dim=2)
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
    """Return whether FlashAttention's kernel for rows of different lengths is available (NVIDIA GPUs since Ampere)."""
    if not query.is_cuda or query.dtype not in (torch.bfloat16, torch.float16):
        return False
    if query.shape[-1] % 8 or not _KERNEL_SCALES:
        return False
    return torch.version.hip is None and torch.cuda.get_device_capability(query.device) >= (8, 0)


def _attend_ragged(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float | None) -> Tensor:
    """Return the attention for rows that are padded on the right, [B, T, heads, D], computed from their lengths.

    With a mask a fused kernel is slower, because it reads a value of the mask for every score. Here the batch is a
    list of 2 B sequences instead: the text of each row, then its padding, which no other sequence reads. No token is
    moved. The shapes are those of the batch, so a CUDA graph can record them, and the host needs no lengths.

    Args:
        query: [B, heads, T, D].
        key: [B, heads, S, D], where S is T, or P + T with a prompt in front.
        value: [B, heads, S, D].
        mask: [B, 1, 1, S], true for the prompt and the text of a row, which come first.
        scale: factor of the scores; None: 1 / sqrt(D).
    """
    rows, _, length, _ = query.shape
    key_length = key.shape[2]
    keys = mask.sum(dim=-1).view(rows)
    queries = keys - (key_length - length)
    query, key, value = (tensor.transpose(1, 2).flatten(0, 1) for tensor in (query, key, value))
    output: Tensor = varlen_attn(  # type: ignore[assignment]
        query,
        key,
        value,
        _borders(queries, length),
        _borders(keys, key_length),
        length,
        key_length,
        scale=scale,
    )
    return output.unflatten(0, (rows, length))


def _borders(lengths: Tensor, longest: int) -> Tensor:
    """Return where the sequences of text and of padding begin and end, int32 [2 B + 1].

    Args:
        lengths: [B], the number of positions of each row that are not padding.
        longest: number of positions of a row with its padding.
    """
    sizes = torch.stack([lengths, longest - lengths], dim=1).flatten()
    return nn.functional.pad(sizes.cumsum(0), (1, 0)).int()


def attend_prompt(query: Tensor, keys: Tensor, values: Tensor, scale: float | None) -> Tensor:
    """Return the attention of every query over all virtual tokens of its row, [B, T, heads, D].

    If all rows share a prompt, the queries of each key-value head form one long list. This takes two large products
    instead of B small ones. In an exported graph B small products are faster than rearranging the queries.

    Args:
        query: [B, heads, T, D].
        keys: [B or 1, K, P, D].
        values: [B or 1, K, P, D].
        scale: factor of the scores; None: 1 / sqrt(D).
    """
    rows, heads, length, width = query.shape
    if keys.shape[0] > 1 or torch.compiler.is_exporting():
        keys, values = keys.contiguous(), values.contiguous()
        if _prefers_products(query, keys):
            return _attend_by_products(query, keys, values, None, scale, False)
        return _attend_text(query, keys, values, None, scale, causal=False)
    shared = keys.shape[1]
    queries = query.unflatten(1, (shared, heads // shared)).transpose(0, 1).reshape(shared, -1, width)
    scores = torch.bmm(queries, keys[0].transpose(1, 2) * (width**-0.5 if scale is None else scale))
    output = torch.bmm(scores.softmax(dim=-1), values[0])  # [K, B * heads / K * T, D]
    return output.view(shared, rows, heads // shared, length, values.shape[-1]).permute(1, 3, 0, 2, 4).flatten(2, 3)


# Longest text for which training on a CPU keeps scores [B, heads, T, T] for the backward pass, instead of using the
# fused kernel. In bfloat16 the kernel's backward pass takes six times as long. In float32 both take the same time.
PRODUCTS_LENGTH = {torch.bfloat16: 512}


def kernel_is_slow(query: Tensor, key: Tensor) -> bool:
    """Return whether plain products are faster than the fused kernel: in training on a CPU, for short texts."""
    longest = PRODUCTS_LENGTH.get(query.dtype, 0)
    return query.device.type == "cpu" and torch.is_grad_enabled() and key.shape[2] <= longest


def _prefers_products(query: Tensor, keys: Tensor) -> bool:
    """Return whether plain products are faster for short prompts of rows: on a CPU, by a fifth to a half."""
    on_cpu = query.device.type == "cpu" and query.dtype in (torch.float32, torch.bfloat16)
    plain = on_cpu and query.shape[1] == keys.shape[1] and not torch.is_grad_enabled()
    return plain and not torch.compiler.is_exporting() and (query.dtype == torch.float32 or len(query) > 1)


def _attend_by_products(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float | None, causal: bool
) -> Tensor:
    """Return the attention by plain products, [B, T, heads, D].

    The scale and the mask are part of the first product: passes of their own over all scores would cost as much time.
    """
    rows, heads, length, width = query.shape
    if causal and mask is None:
        mask = torch.ones(length, key.shape[2], dtype=torch.bool, device=query.device).tril()[None, None]
    queries, keys, values = (tensor.reshape(rows * heads, -1, tensor.shape[-1]) for tensor in (query, key, value))
    factor = width**-0.5 if scale is None else scale
    if mask is None:
        scores = torch.baddbmm(queries.new_zeros(1, 1, 1), queries, keys.transpose(1, 2), beta=0, alpha=factor)
    else:
        if mask.dtype == torch.bool:
            mask = query.new_zeros(()).masked_fill(~mask, torch.finfo(query.dtype).min)
        mask = mask.to(query.dtype).expand(rows, heads, -1, -1).flatten(0, 1)
        scores = torch.baddbmm(mask, queries, keys.transpose(1, 2), alpha=factor)
    output = torch.bmm(scores.softmax(dim=-1), values)
    return output.view(rows, heads, length, -1).transpose(1, 2)


def register() -> str:
    """Register the attention function with transformers and return the name to load models with."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(NAME, prompt_attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, make_mask)
    return NAME


def make_mask(**options: Any) -> Tensor | None:
    """Return transformers' mask for SDPA, bool [B, 1, T, T], without reading the values of the padding mask.

    transformers checks whether anything is masked and leaves the mask out if not. The host then waits for the GPU in
    every forward pass. ptune passes a padding mask only if rows are padded, so the check is not needed.
    """
    from transformers.masking_utils import sdpa_mask

    if options.get("attention_mask") is not None:
        options |= {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
    return sdpa_mask(**options)
