"""Deep prompts for layers that are handed none: by hooks, and by what the running call of each thread holds.

A prompt with a softmax of its own needs two things of a layer: the layer's
query, and the place before its output projection, where the attention over the
prompt is added to the layer's context. Hooks on the two projections give both,
so no model's code is copied:

    query projection     forward hook: note the query
    output projection    forward pre-hook: add attention over the layer's prompt

`LAYOUTS` says where the projections are. Rotary embeddings and relative
positions do not reach the noted query; a prompt has no position, so it needs
none.

The prompts of a call are in a thread-local variable and nowhere on the modules:
threads that share a model do not see each other's. Outside of `entering` the
hooks do nothing. (A context variable would do as well, but torch.compile cannot
trace one.)

Shapes: B rows, T text tokens, heads, D head width; see `ptune.model.attention`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ptune.model.attention import LayerPrompts, Seen, attend, attend_prompt
from ptune.model.scores import score_function

# The name under which `context_attention` is registered with transformers.
NAME = "ptune-context"

Split = Literal["whole", "first_third", "grouped"]
Scale = Literal["width", "terms", "none"]


@dataclass(frozen=True)
class Layout:
    """Where the projections of a family's attention are, as the ends of their modules' names.

    split: what of the query projection's output is the query. `whole`: all of it. `first_third`: queries, keys and
    values one after the other. `grouped`: for each key-value head its queries, its key and its value.
    scale: of the layer's scores. `width`: D ** -0.5. `terms`: DeBERTa's, whose scores are sums of as many terms as
    `pos_att_type` says and one more. `none`: they are not scaled.
    join: the module that takes a layer's context and its input side by side, [B, T, H] each. Behind it no position
    reads another, so in the last layer it can be given the positions that the head reads, and no others.
    """

    query: str
    output: str
    split: Split = "whole"
    scale: Scale = "width"
    join: str = ""

    def pairs(self, base: nn.Module) -> list[tuple[nn.Module, nn.Module]]:
        """Query and output projection of each layer, in order; none where the names do not fit."""
        named = dict(base.named_modules())
        queries = [module for name, module in named.items() if f".{name}".endswith(f".{self.query}")]
        outputs = [module for name, module in named.items() if f".{name}".endswith(f".{self.output}")]
        return list(zip(queries, outputs, strict=True)) if len(queries) == len(outputs) else []

    def query_of(self, projected: Tensor, heads: int, head_width: int) -> Tensor:
        """The query projection's output [B, T, width] -> queries [B, heads, T, D]."""
        if self.split == "first_third":
            projected = projected[..., : projected.shape[-1] // 3]
        elif self.split == "grouped":
            groups = (projected.shape[-1] // head_width - heads) // 2
            projected = projected.unflatten(-1, (groups, -1, head_width))[..., :-2, :].flatten(-3)
        return projected.unflatten(-1, (heads, head_width)).transpose(1, 2)


# A row for each way in which models lay out their attention; the first that fits is taken.
LAYOUTS = (
    # DeBERTa-v2, v3; DeBERTa, whose query has a bias besides, which the prompt does without
    Layout("attention.self.query_proj", "attention.output.dense", scale="terms", join="attention.output"),
    Layout("attention.self.in_proj", "attention.output.dense", "grouped", scale="terms", join="attention.output"),
    Layout("attention.self.query", "attention.output.dense"),  # BERT's many relatives
    Layout("attn.attention.q_proj", "attn.attention.out_proj", scale="none"),  # GPT-Neo
    Layout("attn.q_proj", "attn.out_proj"),  # GPT-J
    Layout("self_attention.query_key_value", "self_attention.dense", "grouped"),  # BLOOM, Falcon
    Layout("attn.Wqkv", "attn.out_proj", "first_third"),  # MPT
    Layout("attn.c_attn", "attn.c_proj", "first_third"),  # the first GPT
    Layout("attn.q", "attn.o"),  # MPNet
    Layout("q_lin", "out_lin"),  # XLM, FlauBERT
)


@dataclass(frozen=True)
class LayerCall:
    """What one layer's attention was seen to work with."""

    heads: int
    kv_heads: int
    key_width: int  # of one head
    value_width: int
    options: frozenset[str] = frozenset()  # what the attention function was given beside the usual
    hooked: bool = False  # seen by hooks, not by the attention function


@dataclass
class Pass:
    """One forward pass of one thread."""

    layer_prompts: LayerPrompts | None = None
    seen: Seen | None = None
    calls: list[LayerCall] | None = None
    read: Tensor | None = None
    projected: Tensor | None = None  # the query projection's output, until the layer's context is there


class _Thread(threading.local):
    current: Pass | None = None


_THREAD = _Thread()


@contextmanager
def entering(
    layer_prompts: LayerPrompts | None = None,
    seen: Seen | None = None,
    calls: list[LayerCall] | None = None,
    read: Tensor | None = None,
) -> Iterator[None]:
    """Let prompts into the layers that are run inside of the block, by this thread alone.

    Args:
        seen: is given each layer's keys and values where layers call `context_attention`.
        calls: is given what each layer works with.
        read: [B], the only position of each row that is wanted of the last layer, where the layout has a `join`.
    """
    with resumed(Pass(layer_prompts, seen, calls, read)):
        yield


@contextmanager
def resumed(current: Pass | None) -> Iterator[None]:
    """Go on with a pass inside of the block, e.g. in the thread of the backward pass."""
    before, _THREAD.current = _THREAD.current, current
    try:
        yield
    finally:
        _THREAD.current = before


def current_pass() -> Pass | None:
    """The pass of this thread that is under way; None outside of `entering`."""
    return _THREAD.current


# What transformers hands to every attention function, and what `context_attention` heeds.
_USUAL = {"scaling", "dropout", "is_causal", "softcap", "s_aux", "sliding_window", "position_ids", "use_cache"}
_USUAL |= {"cache_position", "output_attentions", "deterministic"}


def context_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Attention as `ptune.model.attention.prompt_attention`, with the prompts of the pass that is under way.

    For families of which it is not known that they hand their options down to every layer.
    """
    current = _THREAD.current or Pass()
    if current.calls is not None:
        unusual = {name for name, value in options.items() if value is not None} - _USUAL
        sizes = (query.shape[1], key.shape[1], key.shape[3], value.shape[3])
        current.calls.append(LayerCall(*sizes, frozenset(unusual)))
    if current.seen is not None:
        padded = nn.functional.pad(value, (0, key.shape[3] - value.shape[3]))
        current.seen.note(key, padded)
    causal = bool(getattr(module, "is_causal", False)) and options.get("is_causal") is not False
    own = score_function(options.get("softcap"), options.get("s_aux"))
    context = attend(
        query, key, value, attention_mask, current.layer_prompts, options.get("scaling"), causal, attend_text=own
    )
    return context.contiguous(), None  # as transformers' functions give it, and some models need it


def register() -> str:
    """Make `context_attention` known to transformers; returns the name to load models with."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(NAME, context_attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, sdpa_mask)
    return NAME


def install(layout: Layout, base: Any, heads: int) -> list[RemovableHandle]:
    """Put the hooks on a model's layers; none where the layout's names do not fit, or hooks are there already."""
    handles = []
    terms = 1 + len(getattr(base.config, "pos_att_type", None) or ()) if layout.scale == "terms" else 1
    pairs = layout.pairs(base)
    if layout.join and pairs:
        joins = [module for name, module in base.named_modules() if f".{name}".endswith(f".{layout.join}")]
        if _pick not in joins[-1]._forward_pre_hooks.values():
            handles.append(joins[-1].register_forward_pre_hook(_pick))
    for query, output in pairs:
        if not any(getattr(hook, "func", None) is _add_prompt for hook in output._forward_pre_hooks.values()):
            handles.append(query.register_forward_hook(_note_query))
            handles.append(output.register_forward_pre_hook(partial(_add_prompt, layout, heads, terms)))
    return handles


def layout_of(base: nn.Module) -> Layout:
    """The first layout whose names fit a model that is known to have one."""
    return next(layout for layout in LAYOUTS if layout.pairs(base))


def _note_query(_module: nn.Module, _inputs: Any, projected: Any) -> None:
    """Keep the first output since the last layer: DeBERTa projects its relative positions by the same module, later."""
    current = _THREAD.current
    if current is not None and current.projected is None and isinstance(projected, Tensor):
        current.projected = projected


def _pick(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Tensor, ...] | None:
    """Leave only the wanted position of each row: [B, T, H] -> [B, 1, H]."""
    current = _THREAD.current
    if current is None or current.read is None:
        return None
    rows = torch.arange(current.read.shape[0], device=current.read.device)
    if current.projected is not None:
        current.projected = current.projected[rows, current.read][:, None]
    return tuple(tensor[rows, current.read][:, None] for tensor in inputs)


def _add_prompt(
    layout: Layout, heads: int, terms: int, _module: nn.Module, inputs: tuple[Any, ...]
) -> tuple[Any, ...] | None:
    """Add to a layer's context [B, T, heads * D] what its query finds in the prompt."""
    current = _THREAD.current
    if current is None or current.projected is None:
        return None
    context, *rest = inputs
    width = context.shape[-1] // heads
    projected, current.projected = current.projected, None
    if current.calls is not None:
        current.calls.append(LayerCall(heads, heads, width, width, hooked=True))
    if current.layer_prompts is None:
        return None
    query = layout.query_of(projected, heads, width)
    keys, values = current.layer_prompts.take(query.dtype)
    scale = 1.0 if layout.scale == "none" else (width * terms) ** -0.5
    return (context + attend_prompt(query, keys, values, scale).flatten(2), *rest)
