"""What a backbone outside of the table of families can do, found by looking at it and running it.

A family in the table is known; any other is observed. Facts are read off the
loaded model by tiny inputs: where its embeddings are, whether it is causal,
which positions and segments it takes, what its layers' attention works with,
which head transformers has for it. `ptune.model.selfcheck` then checks that
prompts work on it.

Shapes: inputs are [1, T] or [2, T] token ids; states [.., T, H].
"""

from __future__ import annotations

import inspect
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ptune.errors import BackboneError
from ptune.model import hooks
from ptune.model.families import PEFT_PREFIX, DeepRoute, Family, PositionRule
from ptune.model.head import recognise_head
from ptune.model.hooks import LayerCall
from ptune.model.observed import LENGTH, SAME, TOLERANCE, Observed, distance, probe_ids, unsuited

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def attention_options(config: PretrainedConfig) -> dict[str, str]:
    """Options to load a model of an unlisted family with: our attention function, if its code lets one be chosen."""
    from transformers import AutoModelForSequenceClassification

    kind = AutoModelForSequenceClassification._model_mapping[type(config)]
    return {"attn_implementation": hooks.register()} if kind._can_set_attn_implementation() else {}


@torch.no_grad()
def observe(model: Any, name: str) -> Observed:
    """Look at a classifier of transformers, and put what deep prompts need on its layers.

    model: in evaluation mode, loaded with `attention_options`.

    Raises:
        BackboneError: prompts cannot be put on it; says what was seen.
    """
    look = _Look(model, name)
    look.check_embeddings()
    decoder = look.is_causal()
    positions, first = look.positions()
    calls, route, no_deep = look.deep_route()
    cached = look.cached_sizes(calls) if decoder and not look.calls_function else None
    family = Family(
        look.config.model_type,
        look.config.model_type,
        decoder,
        head=recognise_head(model, look.ids[:1]),
        deep="cache" if route is None and cached is not None else route,
        cached=route == "hooks" and cached is not None,
        positions=positions,
        token_types=not decoder and look.has_segments(),
        language_transform=() if decoder else None,
        peft_prefix=look.config.model_type in PEFT_PREFIX,
        norm_first=look.is_norm_first(decoder),
    )
    layers = int(getattr(look.config.get_text_config(), "num_hidden_layers", 1))
    sizes = (len(calls), calls[0].kv_heads, calls[0].key_width) if calls else (layers, 0, 0)
    return Observed(
        family,
        look.states.shape[-1],
        *(cached or sizes),
        first_position=first,
        max_positions=look.position_limit(first),
        options=tuple(look.options.items()),
        no_deep="" if family.deep else no_deep,
    )


_UNKNOWN_LAYERS = (
    "its layers do not call transformers' attention function, and ptune does not know where their queries are"
)


class _Look:
    """Probes of one model, [2, T] token ids each."""

    def __init__(self, model: Any, name: str) -> None:
        self.model, self.base, self.name, self.config = model, model.base_model, name, model.config
        self.parameters = inspect.signature(self.base.forward).parameters
        self.options: dict[str, Any] = {"use_cache": False} if "use_cache" in self.parameters else {}
        self.calls_function = False  # whether layers call the attention function
        self.embeddings = self._embeddings()
        self.ids = probe_ids(model, rows=2)
        self.tolerance = TOLERANCE.get(self.embeddings.weight.dtype, SAME)
        self.states = self._states()

    def run(self, **inputs: Any) -> Tensor:
        """Hidden states [2, T, H]."""
        return self.base(**{"input_ids": self.ids, **self.options, **inputs}).last_hidden_state

    def attempt(self, **inputs: Any) -> Tensor | None:
        """The same, or None where the model cannot compute it."""
        try:
            return self.run(**inputs)
        except Exception:  # whatever the model's code has against such inputs
            return None

    def fail(self, reason: str) -> BackboneError:
        return unsuited(self.name, self.config.model_type, reason)

    def _embeddings(self) -> nn.Embedding:
        try:
            embeddings = self.base.get_input_embeddings()
        except (AttributeError, NotImplementedError):
            embeddings = None
        if not isinstance(embeddings, nn.Embedding) or "inputs_embeds" not in self.parameters:
            raise self.fail("it does not accept input embeddings in place of token ids")
        return embeddings

    def _states(self) -> Tensor:
        try:
            states, again = self.run(), self.run()
        except Exception as err:  # such as inputs that it needs beside text
            reason = (str(err).splitlines() or [type(err).__name__])[0]
            raise self.fail(f"it does not run on token ids alone ({reason})") from err
        if states.shape[:2] != self.ids.shape:
            raise self.fail(f"it returns {states.shape[1]} hidden states for {self.ids.shape[1]} tokens")
        if distance(again, states) > SAME:
            raise self.fail("it gives another answer to the same text each time")
        return states

    def check_embeddings(self) -> None:
        """See that the embeddings are where text enters."""
        found = self.attempt(input_ids=None, inputs_embeds=self.embeddings(self.ids))
        if found is None or distance(found, self.states) > self.tolerance:
            raise self.fail("a text gives one answer as token ids and another as their embeddings")

    def is_causal(self) -> bool:
        """Whether a token changes nothing in front of it."""
        ids = self.ids.clone()
        ids[:, -1] = ids[:, 0]
        return distance(self.run(input_ids=ids)[:, :-1], self.states[:, :-1]) <= SAME

    def positions(self) -> tuple[PositionRule, int]:
        """Which positions, given explicitly, lead to the answer without any, and the first of them."""
        rules: list[tuple[PositionRule, int]] = [("zero", 0)]
        rules += [("after_padding", first) for first, _ in self.position_tables]
        for rule, first in rules if "position_ids" in self.parameters else []:
            numbers = torch.arange(first, first + LENGTH, device=self.ids.device)[None]
            found = self.attempt(position_ids=numbers)
            if found is not None and distance(found, self.states) <= SAME:
                return rule, first
        return "none", 0

    @cached_property
    def position_tables(self) -> list[tuple[int, int]]:
        """Of each table that is looked up by position: the first row that a text takes, and its number of rows."""
        tables: list[tuple[int, int]] = []

        def look_up(table: nn.Module, inputs: tuple[Any, ...], _output: Any) -> None:
            rows = inputs[0] if inputs else None
            if isinstance(rows, Tensor) and rows.dim() and rows.shape[-1] >= LENGTH:  # some pad what they are given
                text = rows[..., :LENGTH]
                if bool((text.diff() == 1).all()):
                    tables.append((int(text.min()), int(table.num_embeddings)))  # type: ignore[arg-type]

        embeddings = [part for part in self.base.modules() if isinstance(part, nn.Embedding)]
        handles = [part.register_forward_hook(look_up) for part in embeddings if part is not self.embeddings]
        try:
            self.run()
        finally:
            for handle in handles:
                handle.remove()
        return tables

    def position_limit(self, first: int) -> int | None:
        """How many positions a text may take: of the tables, and of the configuration."""
        limits: list[Any] = [rows - start + first for start, rows in self.position_tables]
        for name in ("max_position_embeddings", "max_seq_len"):
            limits.append(getattr(self.config.get_text_config(), name, None))
        known = [limit for limit in limits if isinstance(limit, int) and limit > 0]
        return min(known) - first if known else None

    def deep_route(self) -> tuple[list[LayerCall], DeepRoute | None, str]:
        """What the layers' attention works with, how a deep prompt reaches it, and if it does not, why."""
        calls = self._calls()
        if calls and calls[0].hooked:  # by an earlier look at the same model
            return calls, "hooks", ""
        if calls:
            self.calls_function = True
            reason = self._misfit(calls)
            if not reason:
                return calls, "attention", ""
            self._restore_attention()
            return [], None, reason
        heads = int(getattr(self.config.get_text_config(), "num_attention_heads", None) or 0)
        for layout in hooks.LAYOUTS if heads else ():
            handles = hooks.install(layout, self.base, heads)
            calls = self._calls() if handles else []
            if calls and len(set(calls)) == 1:
                return calls, "hooks", ""
            for handle in handles:
                handle.remove()
        return [], None, _UNKNOWN_LAYERS

    def _calls(self) -> list[LayerCall]:
        calls: list[LayerCall] = []
        with hooks.entering(calls=calls):
            found = self.attempt()
        return [] if found is None else calls

    def _misfit(self, calls: list[LayerCall]) -> str:
        """Why our attention function does not suit the layers; empty where it does."""
        if len({(call.kv_heads, call.key_width, call.value_width) for call in calls}) > 1:
            return "its layers have keys of different widths"
        unknown = sorted(set().union(*(call.options for call in calls)))
        if unknown:
            return f"its layers pass {', '.join(unknown)} to the attention function, which ptune's ignores"
        self.model.set_attn_implementation("eager")
        expected = self.run()
        self.model.set_attn_implementation(hooks.NAME)
        if distance(self.states, expected) > self.tolerance:
            return "ptune's attention function changes its answer"
        return ""

    def _restore_attention(self) -> None:
        try:
            self.model.set_attn_implementation("sdpa")
        except ValueError:
            self.model.set_attn_implementation("eager")

    def cached_sizes(self, calls: list[LayerCall]) -> tuple[int, int, int] | None:
        """Layers, key-value heads and head width of the keys and values that it keeps; None where it keeps none.

        Where hooks let prompts in as well, both have to take prompts of the same size.
        """
        try:
            kept = self.base(input_ids=self.ids, use_cache=True).past_key_values.layers
            shapes = {tuple(part.shape) for layer in kept for part in (layer.keys, layer.values)}
        except (AttributeError, TypeError):
            return None
        if len(shapes) != 1 or (calls and len(calls) != len(kept)):
            return None
        rows, kv_heads, length, width = shapes.pop()
        fits = (rows, length) == self.ids.shape and (not calls or width == calls[0].key_width)
        return (len(kept), kv_heads, width) if fits else None

    def has_segments(self) -> bool:
        """Whether segment ids change the answer, and segment 0 is what it takes without them."""
        if "token_type_ids" not in self.parameters:
            return False
        first = torch.zeros_like(self.ids)
        plain, other = self.attempt(token_type_ids=first), self.attempt(token_type_ids=1 - first)
        return plain is not None and other is not None and distance(plain, self.states) <= SAME < distance(other, plain)

    def is_norm_first(self, decoder: bool) -> bool:
        """Whether a layer's result is a sum that no norm was applied to; decoders that do not show it count as such."""
        normed: list[Tensor] = []

        def keep(_norm: nn.Module, _inputs: Any, output: Any) -> None:
            normed.extend([output] if isinstance(output, Tensor) else [])

        norms = [part for part in self.base.modules() if "norm" in type(part).__name__.lower()]
        handles = [norm.register_forward_hook(keep) for norm in norms]
        try:
            layers = self.base(input_ids=self.ids, output_hidden_states=True, **self.options).hidden_states[1:-1]
        except (AttributeError, TypeError):
            layers = None
        finally:
            for handle in handles:
                handle.remove()
        if not layers:
            return decoder
        return layers[0].data_ptr() not in {output.data_ptr() for output in normed}
