"""The table of model families: everything that depends on the family of a backbone.

A family is one `model_type` of transformers. No other file compares names of
model types: each difference between families is a column of the table. A family
that is not in the table is inspected when it is loaded (see
`ptune.model.discovery`). The table contains what cannot be observed, and makes
the inspection unnecessary.

head
    Which of transformers' sequence-classification heads the family has (see
    `ptune.model.head`). None: a head that ptune does not support. Only used by
    the pooling `peft`.
deep
    How a deep prompt reaches the layers. `attention`: through the attention
    function that the layers call. `hooks`: through hooks, with a separate softmax
    (see `ptune.model.hooks`). `cache`: only as `past_key_values`. None: not at all.
cached
    True if a family with `hooks` also takes a prompt as `past_key_values`, with
    one softmax over prompt and text.
positions
    `zero`: text positions start at 0. `after_padding`: they start one after the
    padding position of the embeddings, as in RoBERTa. `none`: the model takes no
    position ids.
token_types
    True if the model uses the segment ids of a pair.
language_transform
    The modules of transformers' masked language model between the hidden state
    and the output embeddings, in order. The output embeddings themselves do not
    count. Decoders have none. None: the modules are not known by name (see
    `ptune.model.language`).
layers
    `bert`, `mpnet` or `deberta`: the kind of layers, which `ptune.model.trunk` runs. None:
    transformers runs the layers.
norm_first
    True if each layer normalises its input and adds its output to a sum that is
    not normalised (pre-norm). What a deep prompt adds then stays in the sum.
peft_prefix
    True if PEFT's PREFIX_TUNING works with the family, so that PEFT can use a
    deep adapter in the `peft` layout. PEFT reads shallow adapters of every family
    whose embeddings are as wide as the hidden states.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ptune.errors import BackboneError

DeepRoute = Literal["attention", "hooks", "cache"]
PositionRule = Literal["zero", "after_padding", "none"]


@dataclass(frozen=True)
class Family:
    """A row of the table. The docstring of the module explains the columns."""

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
        """The default pooling: the last token of the text for decoders, the mean for encoders."""
        return "last" if self.decoder else "mean"

    @property
    def calls_function(self) -> bool:
        """True if the layers call the attention function that the model is loaded with."""
        return self.deep == "attention" and self.layers in ("bert", None)

    @property
    def separates(self) -> bool:
        """True if a deep prompt can have a separate softmax."""
        return self.deep in ("attention", "hooks")

    @property
    def shares(self) -> bool:
        """True if a deep prompt and the text can share one softmax."""
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

# The column `peft_prefix` for types that are not in the table: PEFT reads deep prompts of these (tested with 0.21.2).
_PEFT_READS = (
    "arcee biogpt data2vec-text ernie falcon gemma3 glm glm4 gpt-sw3 gpt_neo gptj helium hunyuan_v1_dense "
    "hunyuan_v1_moe ministral3 mixtral mpt nemotron olmo olmo2 persimmon phi phi3 phimoe qwen3_moe "
    "roberta-prelayernorm roc_bert seed_oss stablelm starcoder2 xlm-roberta-xl xmod"
)
PEFT_PREFIX = frozenset(_PEFT_READS.split())

FAMILIES: dict[str, Family] = {family.model_type: family for family in _TABLE}


def family_of(model_type: str, backbone: str) -> Family:
    """Return the family of a model type in the table.

    Args:
        model_type: transformers' `model_type`.
        backbone: name of the backbone, for the error message.

    Raises:
        BackboneError: the type is not in the table.
    """
    if model_type not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise BackboneError(
            f"backbone '{backbone}' is of type '{model_type}', which ptune does not know; choose one of: {known}"
        )
    return FAMILIES[model_type]
