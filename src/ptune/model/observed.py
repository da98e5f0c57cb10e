"""Facts about a loaded model whose family is not in the table, and how results of it are compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ptune.errors import BackboneError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from ptune.model.families import Family

# Relative difference up to which two results count as the same: of one computation on inputs of the same shape, and of
# different shapes or kernels. Half precision rounds those differently, and each layer adds to what the last one made
# of it: 0.13 after 30 layers in bfloat16 (SmolLM2-135M under a deep prompt).
SAME = 1e-5
TOLERANCE = {torch.float32: 1e-5, torch.float16: 0.05, torch.bfloat16: 0.25}
LENGTH = 5  # tokens of a probe


@dataclass(frozen=True)
class Observed:
    """What was seen of one loaded model.

    width: H, of the hidden states.
    layers, kv_heads, head_width: L, K and D of a deep prompt; K and D are 0 where the layers take none.
    first_position: of a text, without a prompt.
    max_positions: how many positions a sequence may take; None: no limit is known.
    options: what the model is given in every call beside its inputs.
    no_deep: why the layers take no deep prompts; empty where they do.
    reads_prompt_alone: see `Backbone.reads_prompt_alone`.
    blanks_padding: padding has to be embedded as zeros, as the embeddings of a token look at its neighbours.
    """

    family: Family
    width: int
    layers: int = 0
    kv_heads: int = 0
    head_width: int = 0
    first_position: int = 0
    max_positions: int | None = None
    options: tuple[tuple[str, Any], ...] = ()
    no_deep: str = ""
    reads_prompt_alone: bool = False
    blanks_padding: bool = False


def unsuited(name: str, model_type: str, reason: str) -> BackboneError:
    """What to say of a backbone that prompts cannot be put on."""
    return BackboneError(
        f"backbone '{name}' is of type '{model_type}', which cannot be used: {reason}; docs/families.md lists the "
        "families that work"
    )


def check_config(config: PretrainedConfig, name: str) -> None:
    """Refuse what the configuration alone shows to be no backbone, before any weights are read.

    Raises:
        BackboneError: an encoder-decoder, or a model that transformers has no sequence classifier for.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as CLASSIFIERS

    if getattr(config, "is_encoder_decoder", False):
        raise unsuited(name, config.model_type, "it is an encoder-decoder; ptune works with encoders and with decoders")
    if config.model_type not in CLASSIFIERS:
        raise unsuited(name, config.model_type, "transformers has no sequence classifier for it")


def distance(found: Tensor, expected: Tensor) -> float:
    """The size of the difference of two tensors, as a share of the expected one's."""
    size = expected.float().norm().clamp(min=1e-12)
    return float((found.float() - expected.float()).norm() / size)


def probe_ids(model: Any, rows: int, length: int = LENGTH) -> Tensor:
    """Token ids [rows, length], drawn the same each time, without special ones."""
    config, table = model.config.get_text_config(), model.get_input_embeddings().weight
    names = ("pad", "eos", "bos", "cls", "sep", "mask", "unk")
    special = [getattr(config, f"{name}_token_id", None) for name in names]
    allowed = [token for token in range(min(len(table), 4096)) if token not in special]
    drawn = torch.randint(len(allowed), (rows, length), generator=torch.Generator().manual_seed(0))
    return torch.tensor(allowed)[drawn].to(table.device)
