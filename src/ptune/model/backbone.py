"""A frozen pretrained model, and the one forward pass that lets a prompt in.

`load_backbone` finds a model by its name: a local folder, a GGUF file, a model
inside an installed Python package (`python:PACKAGE`) or a Hub id. `Backbone`
runs it: token ids and a prompt in, hidden states out.

Rows are padded on the right in every family, with positions given explicitly,
so a row's hidden states do not depend on its batch mates.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ptune.errors import BackboneError
from ptune.model import attention
from ptune.model.families import Family, family_of
from ptune.model.locate import Location, locate

if TYPE_CHECKING:
    from transformers import PretrainedConfig

logger = logging.getLogger(__name__)

# Where neither configuration nor tokenizer knows a limit (BLOOM): long enough for documents, kind to memory.
UNLIMITED = 2048


@dataclass(frozen=True)
class Hidden:
    """Hidden states of one batch. `offset` positions of a shallow prompt stand before the text's."""

    states: Tensor  # [B, offset + T, H]
    mask: Tensor | None  # [B, T], 1 for text; None where no row is padded
    offset: int
    pooler_output: Tensor | None = None  # [B, H], of families with a pretrained pooler over position 0


class Backbone(nn.Module):
    """The frozen model, always in evaluation mode.

    base: transformers' model without its head. head_weights: what the checkpoint
    itself brought of transformers' classification head, such as a fine-tuned
    one, by name. pooler_missing: the checkpoint lacks the pooler of its family.
    """

    def __init__(
        self,
        base: Any,
        location: Location,
        head_weights: dict[str, Tensor] | None = None,
        pooler_missing: bool = False,
    ) -> None:
        super().__init__()
        self.location = location
        self.config: PretrainedConfig = base.config
        self.family: Family = family_of(self.config.model_type, location.name)
        self.base: Any = base.requires_grad_(False).eval()
        self.head_weights = head_weights or {}
        self.pooler_missing = pooler_missing

    @property
    def name(self) -> str:
        return self.location.name

    @property
    def layers(self) -> int:
        return int(self.config.num_hidden_layers)

    @property
    def width(self) -> int:
        """H, of the hidden states."""
        return int(self.config.hidden_size)

    @property
    def output_width(self) -> int:
        """Width of what the last layer hands to a head. OPT may project its H down once more."""
        return int(getattr(self.config, "word_embed_proj_dim", self.width))

    @property
    def kv_heads(self) -> int:
        heads = getattr(self.config, "num_key_value_heads", None) or self.config.num_attention_heads
        return int(heads)

    @property
    def head_width(self) -> int:
        return int(getattr(self.config, "head_dim", None) or self.width // self.config.num_attention_heads)

    @property
    def kv_width(self) -> int:
        """Hkv: width of one layer's keys."""
        return self.kv_heads * self.head_width

    @property
    def word_embeddings(self) -> nn.Embedding:
        return self.base.get_input_embeddings()  # type: ignore[operator, no-any-return]

    @property
    def embedding_width(self) -> int:
        """E. Not always H: ALBERT, ELECTRA and OPT project the embeddings."""
        return int(self.word_embeddings.weight.shape[1])

    @property
    def max_positions(self) -> int | None:
        """Positions that a sequence may take, or None where the family knows no limit."""
        limit = getattr(self.config, "max_position_embeddings", None)
        if limit is None or self.family.positions == "none":
            return None
        return int(limit) - self.first_position

    @property
    def first_position(self) -> int:
        return int(self.base.embeddings.padding_idx) + 1 if self.family.positions == "after_padding" else 0

    @property
    def device(self) -> torch.device:
        return self.word_embeddings.weight.device

    def train(self, mode: bool = True) -> Backbone:  # noqa: ARG002
        """Stay in evaluation mode: dropout in a frozen model is noise and costs time (arXiv 2406.05279)."""
        return super().train(False)

    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.base.parameters())

    def fingerprint(self) -> str:
        """A short hash of the shape and some weights, to notice an adapter on the wrong backbone.

        Weights are rounded to bfloat16 first, so that the type a model was loaded in does not matter.
        """
        shape = [self.config.model_type, self.layers, self.width, self.kv_width, self.word_embeddings.weight.shape[0]]
        digest = hashlib.sha256(repr(shape).encode())
        digest.update(self.word_embeddings.weight[:16].bfloat16().cpu().view(torch.int16).numpy().tobytes())
        return digest.hexdigest()[:16]

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        prompt: Tensor | None = None,
        shift_text: bool = False,
    ) -> Hidden:
        """Run the frozen model.

        Args:
            input_ids: [B, T], padded on the right.
            attention_mask: [B, T], 1 for text, 0 for padding; None says that there is no padding.
            token_type_ids: [B, T], segments of a pair; ignored where the family has none.
            prompt: shallow [P, E] or [B, P, E]; deep [L, 2, P, Hkv] or [L, 2, B, P, Hkv].
            shift_text: count the text's positions from P on under a deep prompt, as PEFT does.
        """
        if not self.family.token_types:
            token_type_ids = None
        if prompt is None:
            return self._run(input_ids, attention_mask, token_type_ids)
        if prompt.dim() <= 3:
            return self._run_shallow(input_ids, attention_mask, token_type_ids, prompt)
        if self.family.deep == "attention":
            return self._run_deep(input_ids, attention_mask, token_type_ids, prompt, shift_text)
        if self.family.deep == "cache":
            return self._run_cached(input_ids, attention_mask, prompt)
        raise BackboneError(
            f"deep prompts cannot enter a {self.family.name} backbone ('{self.name}'); use --method p-tuning"
        )

    def _run(
        self, input_ids: Tensor, mask: Tensor | None, token_type_ids: Tensor | None, shift: int = 0, **extra: Any
    ) -> Hidden:
        inputs = {"input_ids": input_ids, **self._positions(input_ids.shape[1], shift), **extra}
        return self._call(mask, mask, token_type_ids, 0, inputs)

    def _run_shallow(
        self, input_ids: Tensor, mask: Tensor | None, token_type_ids: Tensor | None, prompt: Tensor
    ) -> Hidden:
        """The prompt stands in front of the text as if it were tokens, of segment 0."""
        embedded = self.word_embeddings(input_ids)
        rows, length = prompt.shape[-2], prompt.shape[-2] + input_ids.shape[1]
        vectors = prompt.to(embedded.dtype).expand(input_ids.shape[0], -1, -1)
        inputs = {"inputs_embeds": torch.cat([vectors, embedded], dim=1), **self._positions(length, 0)}
        full_mask = None if mask is None else nn.functional.pad(mask, (rows, 0), value=1)
        if token_type_ids is not None:
            token_type_ids = nn.functional.pad(token_type_ids, (rows, 0), value=0)
        return self._call(full_mask, mask, token_type_ids, rows, inputs)

    def _run_deep(
        self, input_ids: Tensor, mask: Tensor | None, token_type_ids: Tensor | None, prompt: Tensor, shift_text: bool
    ) -> Hidden:
        layer_prompts = attention.LayerPrompts(self._split_heads(prompt))
        shift = prompt.shape[-2] if shift_text else 0
        return self._run(input_ids, mask, token_type_ids, shift, layer_prompts=layer_prompts)

    def _run_cached(self, input_ids: Tensor, mask: Tensor | None, prompt: Tensor) -> Hidden:
        """Deep prompts as past keys and values; the text's positions are always shifted by P."""
        from transformers import DynamicCache

        cache = DynamicCache(config=self.config)
        for layer, (keys, values) in enumerate(self._split_heads(prompt)):
            rows = (input_ids.shape[0], -1, -1, -1)
            cache.update(keys.to(self._dtype).expand(rows), values.to(self._dtype).expand(rows), layer)
        text = torch.ones_like(input_ids) if mask is None else mask
        full_mask = nn.functional.pad(text, (prompt.shape[-2], 0), value=1)
        inputs = {"input_ids": input_ids, "past_key_values": cache}
        return self._call(full_mask, mask, None, 0, inputs)

    def _call(
        self,
        full_mask: Tensor | None,
        text_mask: Tensor | None,
        token_type_ids: Tensor | None,
        offset: int,
        inputs: dict[str, Any],
    ) -> Hidden:
        if self.family.decoder and "past_key_values" not in inputs:
            inputs["use_cache"] = False
        if token_type_ids is not None:
            inputs["token_type_ids"] = token_type_ids
        output = self.base(attention_mask=full_mask, return_dict=True, **inputs)
        return Hidden(output.last_hidden_state, text_mask, offset, output.get("pooler_output"))

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

    @property
    def _dtype(self) -> torch.dtype:
        return self.word_embeddings.weight.dtype


def load_backbone(
    name: str, revision: str | None = None, dtype: str = "float32", device: str = "auto", random_weights: bool = False
) -> Backbone:
    """Load a frozen backbone.

    Args:
        name: a folder, a .gguf file, `python:PACKAGE[/PATH]`, or a Hub id.
        revision: branch, tag or commit of a Hub id.
        dtype: float32, bfloat16 or float16. Prompts and heads stay float32.
        device: `auto` (a GPU where there is one), or a torch device.
        random_weights: build from config.json alone, weights drawn by seed 0. For tests and benchmarks.

    Raises:
        BackboneError: not found, not a supported family, weights incomplete or not safetensors.
    """
    location = locate(name, revision)
    config = _read_config(location)
    family_of(config.model_type, name)
    if random_weights:
        return build_backbone(config, location, dtype).to(pick_device(device))
    model, missing = _read_weights(location, config, dtype)
    prefix = model.base_model_prefix + "."
    head = {
        key: value.detach().float()
        for key, value in model.state_dict().items()
        if not key.startswith(prefix) and key not in missing
    }
    pooler_missing = any(key.startswith(prefix) for key in missing)
    return Backbone(model.base_model, location, head, pooler_missing).to(pick_device(device))


def build_backbone(config: PretrainedConfig, location: Location, dtype: str = "float32") -> Backbone:
    """A backbone of the given configuration with random weights, drawn by seed 0. For tests and benchmarks."""
    from transformers import AutoModelForSequenceClassification

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_config(
            config, dtype=getattr(torch, dtype), **_attention(config)
        )
    return Backbone(model.base_model, location)


def pick_device(device: str) -> torch.device:
    """`auto` is the GPU where torch finds one, else the CPU."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen).item()  # a number comes back: it computes
    except (RuntimeError, AssertionError) as err:
        reason = str(err).splitlines()[0]
        raise BackboneError(f"device '{device}' cannot be used here: {reason}") from err
    return chosen


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' bars and load report: what is missing is checked here, and said in our words."""
    from transformers import modeling_gguf_pytorch_utils as gguf
    from transformers.utils import logging as hf_logging

    verbosity, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    plain = gguf.tqdm  # the bar of GGUF files asks no one
    gguf.tqdm = partial(plain, disable=True)  # type: ignore[assignment]
    try:
        yield
    finally:
        gguf.tqdm = plain
        hf_logging.set_verbosity(verbosity)
        if bars:
            hf_logging.enable_progress_bar()


def _attention(config: PretrainedConfig) -> dict[str, str]:
    """Families outside transformers' attention interface keep their own attention."""
    route = family_of(config.model_type, "").deep
    return {"attn_implementation": attention.register()} if route == "attention" else {}


def _read_config(location: Location) -> PretrainedConfig:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(location.path, **location.load_options())
    except (OSError, ValueError) as err:
        raise location.failure(err) from err


def _read_weights(location: Location, config: PretrainedConfig, dtype: str) -> tuple[Any, set[str]]:
    """The model with transformers' head on it, and the names of weights that the checkpoint lacks."""
    from safetensors import SafetensorError
    from transformers import AutoModelForSequenceClassification

    options = location.load_options()
    if location.gguf_file is None:
        options["use_safetensors"] = True
    try:
        with _quiet():
            model, report = AutoModelForSequenceClassification.from_pretrained(
                location.path,
                config=config,
                dtype=getattr(torch, dtype),
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # a checkpoint's head may have another number of labels
                **_attention(config),
                **options,
            )
    except (OSError, ValueError, SafetensorError) as err:
        raise location.failure(err) from err
    missing = set(report["missing_keys"]) | {key for key, *_ in report["mismatched_keys"]}
    prefix = model.base_model_prefix + "."
    lost = sorted(key for key in missing if key.startswith(prefix) and ".pooler." not in key)
    if lost:
        raise BackboneError(
            f"backbone '{location.name}' lacks {len(lost)} weights, first {lost[0]}: the checkpoint is "
            "incomplete, or of another architecture than its config.json says"
        )
    return model, missing
