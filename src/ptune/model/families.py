"""Everything that depends on the family of a backbone, in one table.

A family is one `model_type` of transformers. No other file asks for a model's
name: what differs between families is a column here. A family that is not in
the table is observed when it is loaded, see `ptune.model.discovery`; the table
is for what cannot be seen, and spares the look.

head
    Which of transformers' sequence-classification heads the family has
    (see `ptune.model.head`); None: one that ptune does not run. Used by the `peft` pooling alone.
deep
    How a deep prompt reaches the layers: `attention` (through the attention
    function that they call), `hooks` (its own softmax through hooks, see
    `ptune.model.hooks`), `cache` (only as `past_key_values`) or None (not at all).
cached
    Whether a family whose route is `hooks` also takes a prompt as
    `past_key_values`, for one softmax over prompt and text.
positions
    `zero`: text positions count from 0. `after_padding`: from one after the
    embedding's own padding position, as in RoBERTa. `none`: the model takes no position ids.
token_types
    Whether segment ids of a pair mean something to the model.
language_transform
    Modules of transformers' masked language model that stand between the hidden state and the words' scores, in
    their order; the layer with the words' own weights counts as nothing. Decoders have none. None: not known by name,
    see `ptune.model.language`.
layers
    `bert`, `mpnet`, `deberta`: layers of such a build, which `ptune.model.trunk` runs. None: transformers' own loop
    runs them.
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

DeepRoute = Literal["attention", "hooks", "cache"]
PositionRule = Literal["zero", "after_padding", "none"]


@dataclass(frozen=True)
class Family:
    """One row of the table; the module's docstring explains the columns."""

    model_type: str
    name: str
    decoder: bool
    head: str | None
    deep: DeepRoute | None = "attention"
    cached: bool = False
    positions: PositionRule = "zero"
    token_types: bool = False
    language_transform: tuple[str, ...] | None = ()
    layers: Literal["bert", "mpnet", "deberta"] | None = None
    norm_first: bool = False
    peft_prefix: bool = False

    @property
    def default_pooling(self) -> str:
        """What a fresh head reads: the last text token of a decoder, the mean of an encoder."""
        return "last" if self.decoder else "mean"

    @property
    def calls_function(self) -> bool:
        """Whether transformers' layers call the attention function that a model is loaded with."""
        return self.deep == "attention" and self.layers in ("bert", None)

    @property
    def separates(self) -> bool:
        """Whether a deep prompt can have a softmax of its own."""
        return self.deep in ("attention", "hooks")

    @property
    def shares(self) -> bool:
        """Whether a deep prompt and the text can share one softmax."""
        return self.deep in ("attention", "cache") or self.cached


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
    _encoder("deberta", "DeBERTa", "context_pooler", "cls", deep="hooks", token_types=True),
    _encoder("deberta-v2", "DeBERTa-v2/v3", "context_pooler", "cls", token_types=True, layers="deberta"),
    _encoder("mpnet", "MPNet", "first_token", "lm_head", positions="after_padding", layers="mpnet"),
    _encoder("modernbert", "ModernBERT", "prediction_head", "head", norm_first=True),
    _decoder("gpt2", "GPT-2", peft_prefix=True),
    _decoder("gpt_neox", "GPT-NeoX, Pythia", peft_prefix=True),
    _decoder("opt", "OPT", peft_prefix=True),
    _decoder("bloom", "BLOOM", deep="hooks", cached=True, positions="none", peft_prefix=True),
    _decoder("llama", "Llama, SmolLM, SmolLM2", peft_prefix=True),
    _decoder("smollm3", "SmolLM3", peft_prefix=True),
    _decoder("qwen2", "Qwen2, Qwen2.5", peft_prefix=True),
    _decoder("qwen3", "Qwen3", peft_prefix=True),
    _decoder("mistral", "Mistral", peft_prefix=True),
    _decoder("gemma", "Gemma", peft_prefix=True),
    _decoder("gemma3_text", "Gemma 3 (text)"),
)

# Types outside of the table whose deep prompts PEFT reads: the column `peft_prefix` for them, tested with peft 0.21.2.
_PEFT_READS = (
    "arcee biogpt data2vec-text ernie falcon gemma3 glm glm4 gpt-sw3 gpt_neo gptj helium hunyuan_v1_dense "
    "hunyuan_v1_moe ministral3 mixtral mpt nemotron olmo olmo2 persimmon phi phi3 phimoe qwen3_moe "
    "roberta-prelayernorm roc_bert seed_oss stablelm starcoder2 xlm-roberta-xl xmod"
)
PEFT_PREFIX = frozenset(_PEFT_READS.split())

FAMILIES: dict[str, Family] = {family.model_type: family for family in _TABLE}


def family_of(model_type: str, backbone: str) -> Family:
    """The family of a backbone's `model_type`, of those in the table.

    Raises:
        BackboneError: the type is not in the table.
    """
    if model_type not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise BackboneError(
            f"backbone '{backbone}' is of type '{model_type}', which ptune does not know; choose one of: {known}"
        )
    return FAMILIES[model_type]
