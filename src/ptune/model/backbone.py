"""A frozen pretrained model, and its forward pass with a prompt.

The forward pass takes token ids and a prompt and returns hidden states.

Rows are padded on the right in every family, and positions are given
explicitly, so a row's hidden states do not depend on the other rows of its
batch.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ptune.data.batch import Inputs
from ptune.errors import BackboneError
from ptune.model import attention, hooks
from ptune.model.entry import Entry
from ptune.model.families import Family, family_of
from ptune.model.hidden import Hidden, Read
from ptune.model.language import LanguageHead, no_head, tied_head
from ptune.model.locate import Location
from ptune.model.pending import Pending
from ptune.model.quantize import number_of_weights, quantized
from ptune.model.row_prompts import RowPrompts, SplitPrompts
from ptune.model.sharded import Shards
from ptune.model.trunk import Trunk
from ptune.model.trunk_positions import BiasedTrunk, DisentangledTrunk
from ptune.processes import Processes

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from ptune.model.observed import Observed


Prompt = Tensor | RowPrompts


# The name of a parameter that belongs to one of several layers, such as encoder.layer.3.output.LayerNorm.weight. Others
# may be missing in a checkpoint and random in memory, such as a pooler's.
_OF_A_LAYER = re.compile(r"\.\d+\.")


class Backbone(nn.Module):
    """A frozen model, which is always in evaluation mode.

    Args:
        base: transformers' model without its head.
        location: where the model was loaded from.
        head_weights: weights of transformers' classification head that the checkpoint contains, e.g. those of a
            fine-tuned one, by name.
        pooler_missing: True if the checkpoint lacks the weights of its family's pooler.
        read_language_head: a function that reads the pretrained language-model head from where the base was loaded.
        observed: what was observed of a model whose family is not in the table.
        own_loop: compute the layers of BERT and the like in ptune's own loop. It joins weights that lie in one place.
    """

    def __init__(
        self,
        base: Any,
        location: Location,
        head_weights: dict[str, Tensor] | None = None,
        pooler_missing: bool = False,
        read_language_head: Callable[[], LanguageHead] | None = None,
        observed: Observed | None = None,
        own_loop: bool = True,
    ) -> None:
        super().__init__()
        self.location = location
        self.config: PretrainedConfig = base.config
        self.observed = observed
        self.family: Family = observed.family if observed else family_of(self.config.model_type, location.name)
        self.base: Any = base.requires_grad_(False).eval()
        encodes = not getattr(self.config, "is_decoder", False)
        trunks: dict[str, type[Trunk]] = {"bert": Trunk, "mpnet": BiasedTrunk, "deberta": DisentangledTrunk}
        self.quantize = quantized(base)
        spread = getattr(base, "hf_device_map", None) is not None  # hooks of single layers move what they read
        trunk = trunks[self.family.layers] if self.family.layers else None
        joins = trunk is not None and own_loop and not (self.quantize or spread)
        self.trunk = trunk(base) if trunk is not None and joins and encodes and trunk.suits(base) else None
        if trunk is not None and self.trunk is None and not self.family.calls_function:
            self.family = replace(self.family, deep="hooks", layers=None)
        self.picks = self.trunk is not None  # True if the last layer can be computed at a single position
        if observed is None and self.family.deep == "hooks":
            layout = hooks.layout_of(base)
            hooks.install(layout, base, int(self.config.num_attention_heads))
            self.picks = bool(layout.join) and self.layers > 1
        self.head_weights = head_weights or {}
        self.pooler_missing = pooler_missing
        self._parameter_count: int | None = None
        self._layers_fingerprint: str | None = None
        self.shards: Shards | None = None  # set if the layers are spread over several processes
        self._read_language_head = read_language_head
        self._language_head: LanguageHead | None = None
        self._language_transform: nn.Module | None = None  # a submodule, so that it moves with the backbone

    @property
    def norm_first(self) -> bool:
        """True if layers normalise what they read; see `families`. For OPT the configuration decides."""
        return self.family.norm_first and bool(getattr(self.config, "do_layer_norm_before", True))

    @property
    def name(self) -> str:
        return self.location.name

    @property
    def layers(self) -> int:
        return self.observed.layers if self.observed else int(self.config.num_hidden_layers)

    @property
    def width(self) -> int:
        """Width H of the hidden states."""
        return self.observed.width if self.observed else int(self.config.hidden_size)

    @property
    def output_width(self) -> int:
        """Width of the hidden states that a head reads. OPT may project them down after the last layer."""
        return self.width if self.observed else int(getattr(self.config, "word_embed_proj_dim", self.width))

    @property
    def kv_heads(self) -> int:
        if self.observed:
            return self.observed.kv_heads
        heads = getattr(self.config, "num_key_value_heads", None) or self.config.num_attention_heads
        return int(heads)

    @property
    def head_width(self) -> int:
        if self.observed:
            return self.observed.head_width
        return int(getattr(self.config, "head_dim", None) or self.width // self.config.num_attention_heads)

    @property
    def kv_width(self) -> int:
        """Width Hkv of one layer's keys."""
        return self.kv_heads * self.head_width

    @property
    def word_embeddings(self) -> nn.Embedding:
        return self.base.get_input_embeddings()

    @property
    def embedding_width(self) -> int:
        """Width E of the word embeddings. It may differ from H: ALBERT, ELECTRA and OPT project the embeddings."""
        return int(self.word_embeddings.weight.shape[1])

    @property
    def max_positions(self) -> int | None:
        """Number of positions that a sequence may take; None if the family has no limit."""
        if self.observed:
            return self.observed.max_positions
        limit = getattr(self.config, "max_position_embeddings", None)
        if limit is None or self.family.positions == "none":
            return None
        return int(limit) - self.first_position

    @property
    def first_position(self) -> int:
        if self.observed:
            return self.observed.first_position
        return int(self.base.embeddings.padding_idx) + 1 if self.family.positions == "after_padding" else 0

    @property
    def device(self) -> torch.device:
        return self.word_embeddings.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.word_embeddings.weight.dtype

    @property
    def dtype_name(self) -> str:
        """The number type as it is written in records and shown, such as `bfloat16` or `float32 with 4bit weights`."""
        return str(self.dtype).removeprefix("torch.") + (f" with {self.quantize} weights" if self.quantize else "")

    @property
    def length_step(self) -> int:
        """The number of tokens that a batch is best padded to a multiple of.

        For bfloat16 on a CPU, torch builds and keeps a kernel of about one megabyte for each shape of a product. With
        fewer shapes, training is an eighth faster and needs half the memory (docs/log.md).
        """
        return 8 if self.dtype == torch.bfloat16 and self.device.type == "cpu" else 1

    # Number of passes to start before the result of the first is waited for.
    under_way = 1

    @property
    def keeps_state(self) -> bool:
        """True if a pass changes the model: rotary frequencies that follow the longest text that was seen."""
        rotary = str(getattr(self.config, "rope_parameters", None) or getattr(self.config, "rope_scaling", None))
        return "dynamic" in rotary or "longrope" in rotary

    def start(
        self, inputs: Inputs, prompt: Prompt | None = None, entry: Entry | None = None, read: Read = None
    ) -> Pending[Hidden]:
        """Start `forward` and return a handle to its result. In this class the result is computed at once."""
        return Pending.done(self(inputs, prompt, entry, read))

    def train(self, mode: bool = True) -> Backbone:  # noqa: ARG002
        """Stay in evaluation mode. Dropout in a frozen model adds noise and costs time (arXiv 2406.05279)."""
        return super().train(False) if any(module.training for module in self.modules()) else self

    def shard(self, device: torch.device, processes: Processes) -> Backbone:
        """Spread the layers over processes, and move all to the device of this one; see `ptune.model.sharded`.

        Raises:
            ConfigError: the layers are not modules of their own.
        """
        self.shards = Shards(self.base, self.name, device, processes)
        return self.to(device)

    def parameter_count(self) -> int:
        """Return the number of parameters of the model without its head."""
        if self._parameter_count is None:  # asked for each adapter that is loaded
            self._parameter_count = sum(number_of_weights(parameter) for parameter in self.base.parameters())
        return self._parameter_count

    def fingerprint(self) -> str:
        """Return a short hash of the shape and some weights, which shows if an adapter is for another backbone.

        Weights are rounded to bfloat16 first, so that the hash does not depend on the number type of the loaded model.
        """
        # Sizes that were observed may depend on the number type.
        sizes = [] if self.observed else [self.layers, self.width, self.kv_width]
        shape = [self.config.model_type, *sizes, self.word_embeddings.weight.shape[0]]
        digest = hashlib.sha256(repr(shape).encode())
        digest.update(_rounded_bytes(self.word_embeddings.weight[:16]))
        return digest.hexdigest()[:16]

    def layers_fingerprint(self) -> str | None:
        """Return a short hash of the norms and biases of the layers.

        They differ between models that were fine-tuned from the same one. The embeddings that `fingerprint` reads may
        not. Matrices are left out, because loading in 8 or 4 bits changes them. Weights are rounded to bfloat16 first.

        Returns:
            None if the layers are spread over processes, or not all in memory.
        """
        if self._layers_fingerprint is None and self.shards is None:
            vectors = [
                parameter
                for name, parameter in self.base.named_parameters()
                if parameter.dim() == 1 and parameter.is_floating_point() and _OF_A_LAYER.search(name)
            ]
            if not vectors or any(vector.device.type == "meta" for vector in vectors):
                return None
            # Another version of transformers may list them in another order.
            parts = sorted(_rounded_bytes(vector) for vector in vectors)
            self._layers_fingerprint = hashlib.sha256(b"".join(parts)).hexdigest()[:16]
        return self._layers_fingerprint

    def facts(self) -> dict[str, Any]:
        """Return what an adapter records about its backbone, to be recognised by."""
        return {
            "name": self.location.reference,
            "revision": self.location.revision,
            "model_type": self.config.model_type,
            "layers": self.layers,
            "width": self.width,
            "fingerprint": self.fingerprint(),
            "layers_fingerprint": self.layers_fingerprint(),
        }

    def language_head(self) -> LanguageHead:
        """Return the pretrained language-model head. It is read when it is first needed.

        Raises:
            BackboneError: the checkpoint has none, e.g. because it is a sentence encoder.
        """
        tied = self.observed is None and getattr(self.config, "tie_word_embeddings", True)
        if self.family.decoder and tied:
            return tied_head(self.word_embeddings)
        if self._language_head is None:
            if self._read_language_head is None:
                raise no_head(self.name, "the backbone was not loaded from a checkpoint")
            self._language_head = self._read_language_head()
            if self._language_head.transform is not None:
                self._language_transform = self._language_head.transform.to(self.device)
        return self._language_head

    def language_transform(self, vectors: Tensor) -> Tensor:
        """Apply the part of the language-model head that comes before its output embeddings, in float32.

        Args:
            vectors: hidden states [B, H].

        Returns:
            [B, E].

        Raises:
            BackboneError: the checkpoint has no language-model head.
        """
        self.language_head()
        return vectors.float() if self._language_transform is None else self._language_transform(vectors.float())

    @torch.no_grad()
    def text_prompt(self, input_ids: Tensor) -> Tensor:
        """Return the keys and values [L, 2, T, Hkv] that the model computes for tokens [T] at the first positions.

        In a decoder, a deep prompt with these keys and values has the same effect as the tokens in front of a text.
        """
        return self._keys_and_values(input_ids=input_ids[None])

    @property
    def reads_prompt_alone(self) -> bool:
        """True if the keys and values of a shallow prompt do not depend on the text: in causal models.

        It is False if a layer's sliding window is so short that the last tokens of a long text cannot see the prompt.
        It is also False for layers that are spread over processes: these come together for the gradient of a layer's
        output, but not for that of its keys and values.
        """
        if self.shards is not None:
            return False
        if self.observed:
            return self.observed.reads_prompt_alone
        window = getattr(self.config, "sliding_window", None)
        return self.family.decoder and (window is None or window >= self.config.max_position_embeddings)

    def read_prompt(self, prompt: Tensor) -> Tensor:
        """Return the keys and values [L, 2, P, Hkv] that a shallow prompt [P, E] has in every layer.

        With `shift_text` they have the same effect as the shallow prompt. The layers run over the prompt only once, not
        for every row, so a row pays only for attention to the prompt.
        """
        vectors = prompt.to(self.dtype)[None]
        if self.observed:  # CTRL scales the embeddings in place
            vectors = vectors.clone()
        return self._keys_and_values(inputs_embeds=vectors)

    def _keys_and_values(self, **inputs: Tensor) -> Tensor:
        """Return the keys and values [L, 2, T, Hkv] of one row, given as ids [1, T] or embeddings [1, T, E]."""
        if self.family.deep == "attention":
            seen = attention.Seen()
            (row,) = inputs.values()
            self._call(None, None, None, 0, {**inputs, **self._positions(row.shape[1], 0), "seen": seen})
            layers = torch.stack(seen.layers)[:, :, 0]
        else:
            output = self.base(**inputs, use_cache=True, return_dict=True)
            pairs = [torch.stack([layer.keys, layer.values]) for layer in output.past_key_values.layers]
            layers = torch.stack(pairs)[:, :, 0]
        return layers.transpose(2, 3).flatten(3).float()  # [L, 2, K, T, D] -> [L, 2, T, K * D]

    def forward(
        self, inputs: Inputs, prompt: Prompt | None = None, entry: Entry | None = None, read: Read = None
    ) -> Hidden:
        """Run the frozen model.

        Args:
            inputs: a batch of B rows. Segments are ignored if the family has none.
            prompt: [P, E] or [B, P, E] at the input; keys and values [L, 2, P, Hkv] or [L, 2, B, P, Hkv] otherwise. The
                prompts of rows may also be given as `RowPrompts`.
            entry: how the prompt enters. It is needed with a prompt.
            read: which hidden states of each row are wanted. For a single position, some families compute the last
                layer only there (see `Hidden.picked`). The others return all hidden states.

        Raises:
            BackboneError: a prompt cannot enter this family in the given way.
        """
        if isinstance(read, str):
            hidden = Backbone.forward(self, inputs, prompt, entry)
            return replace(hidden, pair_position=inputs.pair_position).averaged(read)
        ids, mask = inputs.input_ids, inputs.attention_mask
        segments = inputs.token_type_ids if self.family.token_types else None
        if prompt is None or entry is None:
            return self._run(ids, mask, segments, read=read)
        if entry.place == "input":
            vectors = prompt.stacked() if isinstance(prompt, RowPrompts) else prompt
            return self._run_shallow(ids, mask, segments, vectors, read)
        separate = entry.place == "separate"
        if self.family.deep == "attention" or (separate and self.family.separates):
            layer_prompts = attention.LayerPrompts(self._split_heads(prompt), separate)
            shift = entry.positions_taken(prompt.shape[-2])
            return self._run(ids, mask, segments, shift, layer_prompts=layer_prompts, read=read)
        if isinstance(prompt, RowPrompts):
            prompt = prompt.stacked()
        if self.family.shares and not separate:
            return self._run_cached(ids, mask, prompt, entry.shift_text)
        raise BackboneError(
            f"deep prompts cannot enter a {self.family.name} backbone ('{self.name}') under a {entry.place} softmax; "
            "use `method='p-tuning'`"
        )

    def _run(
        self, input_ids: Tensor, mask: Tensor | None, token_type_ids: Tensor | None, shift: int = 0, **extra: Any
    ) -> Hidden:
        inputs = {"input_ids": input_ids, **self._positions(input_ids.shape[1], shift), **extra}
        if self._blanks_padding and mask is not None:
            inputs |= {"input_ids": None, "inputs_embeds": self._embed(input_ids, mask)}
        return self._call(mask, mask, token_type_ids, 0, inputs)

    @property
    def _blanks_padding(self) -> bool:
        """True if padding has to be embedded as zeros, because embeddings depend on the neighbouring tokens."""
        return self.observed is not None and self.observed.blanks_padding

    def _embed(self, input_ids: Tensor, mask: Tensor | None) -> Tensor:
        """Return the word embeddings of a batch of texts, [B, T, E]."""
        embedded = self.word_embeddings(input_ids)
        return embedded * mask[..., None].to(embedded) if self._blanks_padding and mask is not None else embedded

    def _run_shallow(
        self,
        input_ids: Tensor,
        mask: Tensor | None,
        token_type_ids: Tensor | None,
        prompt: Tensor,
        read: Tensor | None,
    ) -> Hidden:
        """Run the model with the prompt in front of the text, as if it were tokens of segment 0."""
        embedded = self._embed(input_ids, mask)
        virtual_tokens, length = prompt.shape[-2], prompt.shape[-2] + input_ids.shape[1]
        vectors = prompt.to(embedded.dtype).expand(input_ids.shape[0], -1, -1)
        joined = torch.cat([vectors, embedded], dim=1)
        inputs = {"inputs_embeds": joined, **self._positions(length, 0), "read": read}
        full_mask = None if mask is None else nn.functional.pad(mask, (virtual_tokens, 0), value=1)
        if token_type_ids is not None:
            token_type_ids = nn.functional.pad(token_type_ids, (virtual_tokens, 0), value=0)
        return self._call(full_mask, mask, token_type_ids, virtual_tokens, inputs)

    def _run_cached(self, input_ids: Tensor, mask: Tensor | None, prompt: Tensor, shift_text: bool) -> Hidden:
        """Run the model with a deep prompt as past keys and values.

        `shift_text` has no effect on relative positions: for them the prompt always counts as text in front.
        """
        from transformers import DynamicCache

        cache = DynamicCache(config=self.config)
        for layer, (keys, values) in enumerate(self._split_heads(prompt)):  # type: ignore[arg-type]
            shape = (input_ids.shape[0], -1, -1, -1)
            cache.update(keys.to(self.dtype).expand(shape), values.to(self.dtype).expand(shape), layer)
        text = torch.ones_like(input_ids) if mask is None else mask
        full_mask = nn.functional.pad(text, (prompt.shape[-2], 0), value=1)
        positions = self._positions(input_ids.shape[1], prompt.shape[-2] if shift_text else 0)
        inputs = {"input_ids": input_ids, "past_key_values": cache, **positions}
        return self._call(full_mask, mask, None, 0, inputs)

    def _call(
        self,
        full_mask: Tensor | None,
        text_mask: Tensor | None,
        token_type_ids: Tensor | None,
        offset: int,
        inputs: dict[str, Any],
    ) -> Hidden:
        """Call the model, or the trunk if there is one.

        Args:
            full_mask: mask of the virtual tokens and the text; None: no row is padded.
            text_mask: [B, T], mask of the text.
            token_type_ids: segments of the virtual tokens and the text.
            offset: number of virtual tokens in front of the text.
            inputs: further keyword arguments of the model or the trunk.
        """
        if token_type_ids is not None:
            inputs["token_type_ids"] = token_type_ids
        if self.trunk is not None:
            states, pooler_output = self._run_trunk(self.trunk, full_mask, **inputs)
            return Hidden(states, text_mask, offset, pooler_output, picked=inputs.get("read") is not None)
        read = inputs.pop("read", None)
        read = read if self.picks else None
        if self.observed and "past_key_values" not in inputs:
            inputs |= dict(self.observed.options)
        elif self.family.decoder and "past_key_values" not in inputs:
            inputs["use_cache"] = False
        entering: Any = nullcontext()
        if self.observed or self.family.deep == "hooks":
            entering = hooks.entering(inputs.pop("layer_prompts", None), inputs.pop("seen", None), read=read)
        with entering:
            output = self.base(attention_mask=full_mask, return_dict=True, **inputs)
        pooler_output = output.get("pooler_output")
        return Hidden(output.last_hidden_state, text_mask, offset, pooler_output, picked=read is not None)

    def _run_trunk(
        self,
        trunk: Trunk,
        mask: Tensor | None,
        read: Tensor | None = None,
        layer_prompts: attention.LayerPrompts | None = None,
        seen: attention.Seen | None = None,
        **inputs: Tensor,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the hidden states, and the output of the pooler or None if the model has none.

        The pooler reads the first of the states. Its output is only useful if these begin with position 0.
        """
        states = self.base.embeddings(**inputs)
        if hasattr(self.base, "embeddings_project"):  # ELECTRA
            states = self.base.embeddings_project(states)
        states = trunk(states, mask, layer_prompts, read, seen)
        pooler = getattr(self.base, "pooler", None)
        return states, None if pooler is None or self.pooler_missing else pooler(states)

    def _positions(self, length: int, shift: int) -> dict[str, Tensor]:
        if self.family.positions == "none":
            return {}
        start = self.first_position + shift
        return {"position_ids": torch.arange(start, start + length, device=self.device)[None]}

    def _split_heads(self, prompt: Prompt) -> Tensor | SplitPrompts:
        """Split the heads of a deep prompt: [L, 2, P, Hkv] or [L, 2, B, P, Hkv] -> [L, 2, B or 1, K, P, D]."""
        if isinstance(prompt, RowPrompts):
            return prompt.split_heads(self.kv_heads, self.head_width)
        if prompt.dim() == 4:
            prompt = prompt[:, :, None]
        return prompt.unflatten(-1, (self.kv_heads, self.head_width)).transpose(3, 4)


def _rounded_bytes(weights: Tensor) -> bytes:
    return weights.detach().bfloat16().cpu().view(torch.int16).numpy().tobytes()
