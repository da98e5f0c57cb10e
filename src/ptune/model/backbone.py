"""A frozen pretrained model, and the one forward pass that lets a prompt in.

Token ids and a prompt in, hidden states out.

Rows are padded on the right in every family, with positions given explicitly,
so a row's hidden states do not depend on its batch mates.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from ptune.errors import BackboneError
from ptune.model import attention, hooks
from ptune.model.families import Family, family_of
from ptune.model.language import LanguageHead, no_head, tied_head
from ptune.model.locate import Location
from ptune.model.trunk import Trunk
from ptune.model.trunk_positions import BiasedTrunk, DisentangledTrunk

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from ptune.model.observed import Observed

# Where neither configuration nor tokenizer knows a limit (BLOOM): long enough for documents, kind to memory.
UNLIMITED = 2048

# What is wanted of a row's hidden states: those of one position [B], counted with a shallow prompt in front, or the
# mean of the text's; None: all.
Read = Tensor | Literal["mean"] | None


@dataclass(frozen=True)
class Hidden:
    """Hidden states of one batch. `offset` positions of a shallow prompt stand before the text's.

    `picked`: states are [B, 1, H], of the position that was asked for, or their mean over the text.
    """

    states: Tensor  # [B, offset + T, H]
    mask: Tensor | None  # [B, T], 1 for text; None where no row is padded
    offset: int
    pooler_output: Tensor | None = None  # [B, H], of families with a pretrained pooler over position 0
    mask_position: Tensor | None = None  # [B], of each row's mask token among the text's positions
    picked: bool = False

    def averaged(self) -> Hidden:
        """With the mean of the text's states, in float32, in their place."""
        text = self.states[:, self.offset :]
        weights = text_weights(text.shape[0], text.shape[1], self.mask, text.device)
        with torch.autocast(text.device.type, enabled=False):  # which would take the mean in bfloat16
            return replace(self, states=torch.bmm(weights[:, None], text.float()), picked=True)


def text_weights(rows: int, length: int, mask: Tensor | None, device: torch.device) -> Tensor:
    """[B, T] that a mean over a row's text weighs its positions with. Special tokens count as text."""
    mask = torch.ones(rows, length, device=device) if mask is None else mask.float()
    return mask / mask.sum(dim=1, keepdim=True)


def started(forward: Callable[..., Hidden], *inputs: Any, **options: Any) -> Callable[[], Hidden]:
    """A pass that has been computed, in the form of one that is still to be waited for."""
    hidden = forward(*inputs, **options)
    return lambda: hidden


class Backbone(nn.Module):
    """The frozen model, always in evaluation mode.

    base: transformers' model without its head. head_weights: what the checkpoint
    itself brought of transformers' classification head, such as a fine-tuned
    one, by name. pooler_missing: the checkpoint lacks the pooler of its family.
    read_language_head: reads the pretrained language-model head from where the base came from.
    observed: what was seen of a model whose family is not in the table.
    """

    def __init__(
        self,
        base: Any,
        location: Location,
        head_weights: dict[str, Tensor] | None = None,
        pooler_missing: bool = False,
        read_language_head: Callable[[], LanguageHead] | None = None,
        observed: Observed | None = None,
    ) -> None:
        super().__init__()
        self.location = location
        self.config: PretrainedConfig = base.config
        self.observed = observed
        self.family: Family = observed.family if observed else family_of(self.config.model_type, location.name)
        self.base: Any = base.requires_grad_(False).eval()
        plain = not getattr(self.config, "is_decoder", False)
        trunks: dict[str, type[Trunk]] = {"bert": Trunk, "mpnet": BiasedTrunk, "deberta": DisentangledTrunk}
        kind = trunks[self.family.layers] if self.family.layers else None
        self.trunk = kind(base) if kind is not None and plain and kind.suits(base) else None
        if kind is not None and self.trunk is None and not self.family.calls_function:
            self.family = replace(self.family, deep="hooks", layers=None)
        self.picks = self.trunk is not None  # whether the last layer can be computed at one position alone
        if observed is None and self.family.deep == "hooks":
            layout = hooks.layout_of(base)
            hooks.install(layout, base, int(self.config.num_attention_heads))
            self.picks = bool(layout.join) and self.layers > 1
        self.head_weights = head_weights or {}
        self.pooler_missing = pooler_missing
        self._read_language_head = read_language_head
        self._language_head: LanguageHead | None = None
        self._language_transform: nn.Module | None = None  # beside the head, so that it moves with the backbone
        self.most_tokens: int | None = None  # of a batch to predict, once there was no memory for more

    @property
    def norm_first(self) -> bool:
        """Whether layers normalise first; see `families`. OPT has both kinds, and says which in its configuration."""
        return self.family.norm_first and bool(getattr(self.config, "do_layer_norm_before", True))

    @property
    def name(self) -> str:
        return self.location.name

    @property
    def layers(self) -> int:
        return self.observed.layers if self.observed else int(self.config.num_hidden_layers)

    @property
    def width(self) -> int:
        """H, of the hidden states."""
        return self.observed.width if self.observed else int(self.config.hidden_size)

    @property
    def output_width(self) -> int:
        """Width of what the last layer hands to a head. OPT may project its H down once more."""
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
        """Hkv: width of one layer's keys."""
        return self.kv_heads * self.head_width

    @property
    def word_embeddings(self) -> nn.Embedding:
        return self.base.get_input_embeddings()

    @property
    def embedding_width(self) -> int:
        """E. Not always H: ALBERT, ELECTRA and OPT project the embeddings."""
        return int(self.word_embeddings.weight.shape[1])

    @property
    def max_positions(self) -> int | None:
        """Positions that a sequence may take, or None where the family knows no limit."""
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
    def length_step(self) -> int:
        """What a batch's tokens are best padded to a multiple of.

        For bfloat16 on a CPU a kernel is made for each shape of a product and kept, about a megabyte each: fewer shapes
        train an eighth faster in half the memory (docs/log.md).
        """
        return 8 if self.dtype == torch.bfloat16 and self.device.type == "cpu" else 1

    # Passes that `start` may have under way when the first of them is waited for.
    under_way = 1

    def start(self, *inputs: Any, **options: Any) -> Callable[[], Hidden]:
        """Begin `forward`; returns what waits for its end. Here it is computed at once."""
        return started(self, *inputs, **options)

    def train(self, mode: bool = True) -> Backbone:  # noqa: ARG002
        """Stay in evaluation mode: dropout in a frozen model is noise and costs time (arXiv 2406.05279)."""
        return super().train(False)

    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.base.parameters())

    def fingerprint(self) -> str:
        """A short hash of the shape and some weights, to notice an adapter on the wrong backbone.

        Weights are rounded to bfloat16 first, so that the type a model was loaded in does not matter.
        """
        sizes = [] if self.observed else [self.layers, self.width, self.kv_width]  # what is seen depends on the type
        shape = [self.config.model_type, *sizes, self.word_embeddings.weight.shape[0]]
        digest = hashlib.sha256(repr(shape).encode())
        digest.update(self.word_embeddings.weight[:16].bfloat16().cpu().view(torch.int16).numpy().tobytes())
        return digest.hexdigest()[:16]

    def language_head(self) -> LanguageHead:
        """The pretrained language-model head, read when it is first asked for.

        Raises:
            BackboneError: the checkpoint has none, as those of sentence encoders.
        """
        tied = self.observed is None and getattr(self.config, "tie_word_embeddings", True)
        if self.family.decoder and tied:
            return tied_head(self.word_embeddings)
        if self._language_head is None:
            if self._read_language_head is None:
                raise no_head(self.name, "it was not read from a checkpoint")
            self._language_head = self._read_language_head()
            if self._language_head.transform is not None:
                self._language_transform = self._language_head.transform.to(self.device)
        return self._language_head

    def language_transform(self, vectors: Tensor) -> Tensor:
        """[B, H] -> [B, E]: what the language-model head does in front of its words' weights, in float32."""
        self.language_head()
        return vectors.float() if self._language_transform is None else self._language_transform(vectors.float())

    @torch.no_grad()
    def text_prompt(self, input_ids: Tensor) -> Tensor:
        """The keys and values [L, 2, T, Hkv] that the model has for tokens [T], counted from the first position.

        As a deep prompt they act on a decoder as the tokens themselves in front of a text would.
        """
        return self._keys_and_values(input_ids=input_ids[None])

    @property
    def reads_prompt_alone(self) -> bool:
        """Whether a shallow prompt's keys and values do not depend on the text behind it: in causal models.

        Not where a layer's window is too short for every token of a long text to see the prompt.
        """
        if self.observed:
            return self.observed.reads_prompt_alone
        window = getattr(self.config, "sliding_window", None)
        return self.family.decoder and (window is None or window >= self.config.max_position_embeddings)

    def read_prompt(self, prompt: Tensor) -> Tensor:
        """Shallow prompt [P, E] -> the keys and values that it has in every layer, [L, 2, P, Hkv].

        With `shift_text` they do what the shallow prompt does, at the cost of attention alone: the layers are run over
        the prompt once and not with every row.
        """
        vectors = prompt.to(self.dtype)[None]
        if self.observed:  # CTRL scales embeddings where they are
            vectors = vectors.clone()
        return self._keys_and_values(inputs_embeds=vectors)

    def _keys_and_values(self, **inputs: Tensor) -> Tensor:
        """[L, 2, T, Hkv] of one row of tokens, ids [1, T] or embeddings [1, T, E]."""
        if self.family.deep == "attention":
            seen: list[Tensor] = []
            (row,) = inputs.values()
            self._call(None, None, None, 0, {**inputs, **self._positions(row.shape[1], 0), "seen": seen})
            layers = torch.stack(seen)[:, :, 0]
        else:
            output = self.base(**inputs, use_cache=True, return_dict=True)
            pairs = [torch.stack([layer.keys, layer.values]) for layer in output.past_key_values.layers]
            layers = torch.stack(pairs)[:, :, 0]
        return layers.transpose(2, 3).flatten(3).float()  # [L, 2, K, T, D] -> [L, 2, T, K * D]

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        prompt: Tensor | None = None,
        shift_text: bool = False,
        separate: bool = False,
        read: Read = None,
    ) -> Hidden:
        """Run the frozen model.

        Args:
            input_ids: [B, T], padded on the right.
            attention_mask: [B, T], 1 for text, 0 for padding; None says that there is no padding.
            token_type_ids: [B, T], segments of a pair; ignored where the family has none.
            prompt: shallow [P, E] or [B, P, E]; deep [L, 2, P, Hkv] or [L, 2, B, P, Hkv].
            shift_text: count the text's positions from P on under a deep prompt, as PEFT does.
            separate: attend to a deep prompt by a softmax of its own (see `attention`).
            read: what is wanted of each row. Of one position, families whose layers are run here leave the rest of
                the last layer out (`Hidden.picked`), and the others give all.
        """
        if isinstance(read, str):
            every = Backbone.forward(self, input_ids, attention_mask, token_type_ids, prompt, shift_text, separate)
            return every.averaged()
        if not self.family.token_types:
            token_type_ids = None
        if prompt is None:
            return self._run(input_ids, attention_mask, token_type_ids, read=read)
        if prompt.dim() <= 3:
            return self._run_shallow(input_ids, attention_mask, token_type_ids, prompt, read)
        if self.family.deep == "attention" or (separate and self.family.separates):
            layer_prompts = attention.LayerPrompts(self._split_heads(prompt), separate)
            shift = prompt.shape[-2] if shift_text else 0
            return self._run(input_ids, attention_mask, token_type_ids, shift, layer_prompts=layer_prompts, read=read)
        if self.family.shares and not separate:
            return self._run_cached(input_ids, attention_mask, prompt, shift_text)
        raise BackboneError(
            f"deep prompts cannot enter a {self.family.name} backbone ('{self.name}') by such a softmax; use --method "
            "p-tuning"
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
        """Whether padding is embedded as zeros, as some embeddings look at their neighbours."""
        return self.observed is not None and self.observed.blanks_padding

    def _embed(self, input_ids: Tensor, mask: Tensor | None) -> Tensor:
        """Word embeddings [B, T, E] of a text."""
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
        """The prompt stands in front of the text as if it were tokens, of segment 0."""
        embedded = self._embed(input_ids, mask)
        rows, length = prompt.shape[-2], prompt.shape[-2] + input_ids.shape[1]
        vectors = prompt.to(embedded.dtype).expand(input_ids.shape[0], -1, -1)
        joined = torch.cat([vectors, embedded], dim=1)
        inputs = {"inputs_embeds": joined, **self._positions(length, 0), "read": read}
        full_mask = None if mask is None else nn.functional.pad(mask, (rows, 0), value=1)
        if token_type_ids is not None:
            token_type_ids = nn.functional.pad(token_type_ids, (rows, 0), value=0)
        return self._call(full_mask, mask, token_type_ids, rows, inputs)

    def _run_cached(self, input_ids: Tensor, mask: Tensor | None, prompt: Tensor, shift_text: bool) -> Hidden:
        """Deep prompts as past keys and values; a text's distance to them always counts from behind them."""
        from transformers import DynamicCache

        cache = DynamicCache(config=self.config)
        for layer, (keys, values) in enumerate(self._split_heads(prompt)):
            rows = (input_ids.shape[0], -1, -1, -1)
            cache.update(keys.to(self.dtype).expand(rows), values.to(self.dtype).expand(rows), layer)
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
        seen: list[Tensor] | None = None,
        **inputs: Tensor,
    ) -> tuple[Tensor, Tensor | None]:
        """Hidden states and, where the family has a pooler and position 0 is there, its output."""
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

    def _split_heads(self, prompt: Tensor) -> Tensor:
        """[L, 2, P, Hkv] or [L, 2, B, P, Hkv] -> [L, 2, B or 1, K, P, D]."""
        if prompt.dim() == 4:
            prompt = prompt[:, :, None]
        return prompt.unflatten(-1, (self.kv_heads, self.head_width)).transpose(3, 4)
