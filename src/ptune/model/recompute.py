"""Gradient checkpointing: layers keep only their inputs, and are computed a second time in the backward pass.

This takes a third more time and much less memory (arXiv 1604.06174). It is on inside of `recomputing`, for the thread
that is in the block, so other threads that share the backbone are not affected.

A layer takes its part of a deep prompt from an object that all layers share: keys and values in their order, the pass
of the hooks, or a cache. Before a layer is computed again, these are put into the state that the layer first found.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from types import MethodType
from typing import Any, TypeVar

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ptune.errors import ConfigError
from ptune.model import hooks
from ptune.model.attention import LayerPrompts

T = TypeVar("T")

# The layers of models that do not mark them as transformers usually does, as names of module lists.
_LISTS = ("h", "encoder.layer", "encoder.albert_layer_groups")


class _Thread(threading.local):
    on = False


_THREAD = _Thread()


@contextmanager
def recomputing(on: bool = True) -> Iterator[None]:
    """Compute layers a second time instead of keeping what they compute, for passes of this thread in the block."""
    before, _THREAD.on = _THREAD.on, on
    try:
        yield
    finally:
        _THREAD.on = before


def run_layer(layer: Callable[..., T], prompts: LayerPrompts | None, *inputs: Any, **options: Any) -> T:
    """Return the result of a layer, which is computed again in the backward pass if `recomputing` is on.

    Args:
        layer: a function or module.
        prompts: what it takes its part of the prompt from, unless hooks give it to the layer.
        inputs, options: its arguments. A cache among them is left as it was found.
    """
    if not (_THREAD.on and torch.is_grad_enabled()):
        return layer(*inputs, **options)
    from transformers import Cache

    current = hooks.current_pass()
    if prompts is None and current is not None:
        prompts = current.layer_prompts
    caches = [each for value in (*inputs, *options.values()) if isinstance(value, Cache) for each in value.layers]
    put_back = _rewind(each for each in (current, prompts, *caches) if each is not None)
    put_back_caches = _rewind(caches)

    def run(*inputs: Any, **options: Any) -> T:
        put_back()
        with hooks.resumed(current):
            result = layer(*inputs, **options)
        put_back_caches()
        return result

    # The frozen model has no dropout, so there is no state of a random generator to restore.
    result: T = checkpoint(run, *inputs, use_reentrant=False, preserve_rng_state=False, **options)
    return result


def _rewind(objects: Iterable[Any]) -> Callable[[], None]:
    """Return a function that gives objects the attributes that they have now."""
    found = [(each, dict(vars(each))) for each in objects]

    def put_back() -> None:
        for each, attributes in found:
            vars(each).update(attributes)

    return put_back


def prepare(base: nn.Module, name: str) -> None:
    """Make the layers of a model heed `recomputing`. It may be called again.

    Args:
        base: transformers' model.
        name: name of the backbone, for the message.

    Raises:
        ConfigError: its layers are not modules of their own.
    """
    layers = layers_of(base)
    if not layers:
        raise ConfigError(
            f"`gradient_checkpointing` computes one layer after the other, but the layers of '{name}' are not modules "
            "of their own; leave it out, and save memory by a smaller `batch_size`",
            field="gradient_checkpointing",
            value=True,
            expected="False",
        )
    for layer in layers:
        if getattr(layer.forward, "func", None) is not _run:
            # A function that knows the layer, so that a copy of the model gets one that knows the copy.
            layer.forward = partial(_run, layer, vars(layer).get("forward"))


def layers_of(base: nn.Module) -> list[nn.Module]:
    """Return the layers of a model, in order; none if they are not modules of their own."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers: list[nn.Module] = []
    inside: set[nn.Module] = set()
    for module in base.modules():  # a module comes before those in it
        if isinstance(module, GradientCheckpointingLayer) and module not in inside:
            layers.append(module)
            inside |= set(module.modules())
    named = dict(base.named_modules())
    lists = (named.get(name) for name in _LISTS)
    return layers or next((list(found) for found in lists if isinstance(found, nn.ModuleList)), [])


def _run(layer: nn.Module, forward: Callable[..., Any] | None, *inputs: Any, **options: Any) -> Any:
    """Run a layer, by its class's function unless it has one of its own."""
    forward = forward or MethodType(type(layer).forward, layer)
    current = hooks.current_pass()
    if options.get("seen") is not None or (current is not None and current.seen is not None):
        return forward(*inputs, **options)  # it would note twice what it sees
    return run_layer(forward, options.get("layer_prompts"), *inputs, **options)
