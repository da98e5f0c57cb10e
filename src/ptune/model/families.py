"""Everything that depends on the family of a backbone, in one table.

A family is one `model_type` of transformers. No other file asks for a model's
name: what differs between families is a column here.

head
    Which of transformers' sequence-classification heads the family has
    (see `ptune.model.head`). Used by the `peft` pooling alone.
deep
    How keys and values of a deep prompt reach the layers: `attention` (the
    family calls the registered attention function), `cache` (only through
    `past_key_values`) or None (not at all).
positions
    `zero`: text positions count from 0. `after_padding`: from one after the
    embedding's own padding position, as in RoBERTa. `none`: the model takes no position ids.
token_types
    Whether segment ids of a pair mean something to the model.
language_transform
    Modules of transformers' masked language model that stand between the hidden state and the words' scores, in
    their order; the layer with the words' own weights counts as nothing. Decoders have none.
layers
    `bert`: layers of BERT's build, which `ptune.model.trunk` runs. None: transformers' own loop runs them.
norm_first
    Whether layers normalise what they read, and leave the sum that runs through
    all of them as it is (pre-norm). What a deep prompt adds then stays in it.
peft_prefix
    Whether PEFT's PREFIX_TUNING runs on the family today, so that a deep adapter
    in the `peft` layout is of use to it. Shallow ones it reads wherever the
    embeddings are as wide as the hidden states.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ptune.errors import BackboneError

DeepRoute = Literal["attention", "cache"]
PositionRule = Literal["zero", "after_padding", "none"]


@dataclass(frozen=True)
class Family:
    """One row of the table; the module's docstring explains the columns."""

    model_type: str
    name: str
    decoder: bool
    head: str
    deep: DeepRoute | None = "attention"
    positions: PositionRule = "zero"
    token_types: bool = False
    language_transform: tuple[str, ...] = ()
    layers: Literal["bert"] | None = None
    norm_first: bool = False
    peft_prefix: bool = False

    @property
    def default_pooling(self) -> str:
        """What a fresh head reads: the last text token of a decoder, the mean of an encoder."""
        return "last" if self.decoder else "mean"


def _encoder(model_type: str, name: str, head: str, *language_transform: str, **columns: object) -> Family:
    return Family(
        model_type,
        name,
        decoder=False,
        head=head,
        language_transform=language_transform,
        **columns,  # type: ignore[arg-type]
    )


def _bert(model_type: str, name: str, head: str, *language_transform: str, **columns: object) -> Family:
    return _encoder(model_type, name, head, *language_transform, layers="bert", peft_prefix=True, **columns)


def _decoder(model_type: str, name: str, **columns: object) -> Family:
    return Family(model_type, name, decoder=True, head="score", norm_first=True, **columns)  # type: ignore[arg-type]


_DISTILBERT = ("vocab_transform", "activation", "vocab_layer_norm")
_TABLE = (
    _bert("bert", "BERT", "pooler", "cls", token_types=True),
    _bert("roberta", "RoBERTa", "first_token", "lm_head", positions="after_padding"),
    _bert("xlm-roberta", "XLM-RoBERTa", "first_token", "lm_head", positions="after_padding"),
    _bert("camembert", "CamemBERT", "first_token", "lm_head", positions="after_padding"),
    _encoder("distilbert", "DistilBERT", "pre_classifier", *_DISTILBERT),
    _bert("electra", "ELECTRA", "first_token", "generator_predictions", token_types=True),
    _encoder("albert", "ALBERT", "pooler", "predictions", token_types=True),
    _encoder("deberta-v2", "DeBERTa-v2/v3", "context_pooler", "cls", deep=None, token_types=True),
    _encoder("mpnet", "MPNet", "first_token", "lm_head", deep=None, positions="after_padding"),
    _encoder("modernbert", "ModernBERT", "prediction_head", "head", norm_first=True),
    _decoder("gpt2", "GPT-2", peft_prefix=True),
    _decoder("gpt_neox", "GPT-NeoX, Pythia", peft_prefix=True),
    _decoder("opt", "OPT", peft_prefix=True),
    _decoder("bloom", "BLOOM", deep="cache", positions="none", peft_prefix=True),
    _decoder("llama", "Llama, SmolLM, SmolLM2", peft_prefix=True),
    _decoder("smollm3", "SmolLM3", peft_prefix=True),
    _decoder("qwen2", "Qwen2, Qwen2.5", peft_prefix=True),
    _decoder("qwen3", "Qwen3", peft_prefix=True),
    _decoder("mistral", "Mistral", peft_prefix=True),
    _decoder("gemma", "Gemma", peft_prefix=True),
    _decoder("gemma3_text", "Gemma 3 (text)"),
)

FAMILIES: dict[str, Family] = {family.model_type: family for family in _TABLE}


def family_of(model_type: str, backbone: str) -> Family:
    """The family of a backbone's `model_type`.

    Raises:
        BackboneError: the type is not in the table.
    """
    if model_type not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise BackboneError(
            f"backbone '{backbone}' is of type '{model_type}', which ptune does not know; choose one of: {known}"
        )
    return FAMILIES[model_type]
