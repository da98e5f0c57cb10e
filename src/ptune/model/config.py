"""The settings of the prompt and the head.

This module does not import torch, so that help and checks are fast.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from ptune.data.template import fields_of
from ptune.errors import short
from ptune.model.families import Family
from ptune.model.words import parse_words
from ptune.settings_model import SettingsModel

Method = Literal["p-tuning", "deep", "prompt-tuning"]
EncoderKind = Literal["none", "mlp", "lstm", "residual"]
Softmax = Literal["shared", "separate"]
Pooling = Literal["first", "mean", "pair", "last", "mask", "peft"]
HeadKind = Literal["linear", "verbalizer"]
MAX_VIRTUAL_TOKENS = 4096
_NETWORK_FIELDS = ("encoder_hidden_size", "encoder_layers", "encoder_dropout")  # without effect for encoder none
FEW_ROWS = 100  # a task with at most this many training rows is few-shot
# Default number of virtual tokens of a deep prompt with a separate softmax. It is reduced, but not below
# FEWEST_TOKENS, if prompt and head would have more than TRAINED_SHARE of the backbone's parameters. See docs/log.md.
SEPARATE_TOKENS, FEWEST_TOKENS = 40, 20
TRAINED_SHARE = 0.01
Init = Literal["normal", "vocabulary", "text"]
# Number type of the frozen backbone; see ptune.model.loading.
DType = Literal["auto", "float32", "bfloat16", "float16"]
# Number type in which OpenVINO computes a backbone; see ptune.backends.openvino.backbone.
Precision = Literal["fp32", "bf16", "int8"]
# Bits of the weights of a backbone's linear layers; see ptune.model.quantize.
Quantize = Literal["8bit", "4bit"]
# How transformers spreads the layers of a backbone over devices; see ptune.model.loading.
DeviceMap = Literal["auto", "balanced", "sequential"]

# After this template a language model predicts the name of a label, whatever the task. docs/log.md compares others.
DECODER_TEMPLATE = "Text: {text}\nCategory:"
ENCODER_TEMPLATE = "{text} {mask}"


def default_template(decoder: bool) -> str:
    """Return the default template of a verbalizer."""
    return DECODER_TEMPLATE if decoder else ENCODER_TEMPLATE


class PromptConfig(SettingsModel):
    """Settings of the prompt and the head. `settle` replaces fields that are None by defaults."""

    method: Method | None = Field(
        None,
        description="deep: trained keys and values in every layer. p-tuning: virtual tokens at the input, with a head "
        "as in PEFT. prompt-tuning: virtual tokens at the input, with ptune's head. Default: deep if the backbone's "
        "family supports it, otherwise p-tuning.",
    )
    virtual_tokens: int = Field(
        20,
        ge=1,
        le=MAX_VIRTUAL_TOKENS,
        description="Number of virtual tokens. If it is not given: with init text, the number of tokens in the text; "
        f"with softmax separate, {SEPARATE_TOKENS}, reduced to no less than {FEWEST_TOKENS} if the trained parameters "
        f"would exceed 1 % of the backbone's; otherwise {FEWEST_TOKENS}.",
    )
    encoder: EncoderKind | None = Field(
        None,
        description="Network that produces the prompt during training: mlp and lstm as in PEFT's p-tuning, residual "
        "adds an MLP to trained vectors, none trains the vectors directly. Default: none; mlp for p-tuning if its "
        "hidden size or dropout is set.",
    )
    encoder_hidden_size: int = Field(128, ge=1, le=65536, description="Hidden size of the prompt encoder.")
    encoder_layers: int = Field(2, ge=1, le=16, description="Number of layers of encoder lstm.")
    encoder_dropout: float = Field(0.0, ge=0.0, lt=1.0, description="Dropout between the layers of the prompt encoder.")
    token_dropout: float | None = Field(
        None,
        ge=0.0,
        lt=1.0,
        description="Share of the virtual tokens that is left out of each training step, chosen at random. Default: "
        "0.15 for deep, 0 for the other methods.",
    )
    pooling: Pooling | None = Field(
        None,
        description="What the head reads: the first token of the text, the last one, the mean of all, that mean and "
        "the cosine of the two texts' means (pair), the template's mask token (mask), or the same as in PEFT, with "
        "PEFT's head (peft). Default: peft for p-tuning; otherwise last for decoders, mean for encoders (pair for deep "
        "prompts on pairs of texts), or mask with a verbalizer.",
    )
    head: HeadKind | None = Field(
        None,
        description="Initial weights of the head. linear: random. verbalizer: the language model's output weights "
        "for words that stand for the labels, so that predictions make sense before training. Default: linear; "
        f"verbalizer with at most {FEW_ROWS} training rows, if backbone and labels allow it.",
    )
    verbalizer: dict[str, list[str]] | None = Field(
        None,
        description="Words that stand for the labels, such as 'negative=bad,awful;positive=great'. In a "
        "configuration file, a mapping of labels to words. Default: the names of the labels.",
    )
    template: str | None = Field(
        None,
        max_length=10_000,
        description="Template that is filled in with each text, such as 'Review: {text}\\nSentiment:'. {text} and "
        "{text_pair} stand for the texts, {mask} for the mask token. Default: none; with a verbalizer "
        f"{DECODER_TEMPLATE!r} for decoders and {ENCODER_TEMPLATE!r} for encoders.",
    )
    softmax: Softmax | None = Field(
        None,
        description="How the text attends to a deep prompt. separate: the prompt has its own softmax, and the result "
        "is added to the attention over the text; training starts exactly from the pretrained model. shared: one "
        "softmax over prompt and text, as in prefix tuning and PEFT. Default: separate if the backbone's family "
        "supports it, pooling is not peft and init is normal.",
    )
    tie_first: bool = Field(
        False,
        description="Keep virtual token 0 equal to the embedding of the text's first special token (<s>, [CLS]), "
        "so that a head over position 0 reads the token that it was pretrained on. For prompts at the input only.",
    )
    init: Init | None = Field(
        None,
        description="Initial prompt: normal (random values), vocabulary (random tokens) or text (a given text). A "
        "prompt at the input starts from the embeddings of the tokens, a deep prompt from the backbone's keys and "
        "values for them. Default: normal for deep prompts and for p-tuning with encoder mlp or lstm, otherwise "
        "vocabulary. A verbalizer with few training rows starts from a description of the task.",
    )
    init_text: str | None = Field(
        None, max_length=100_000, description="Text that the prompt starts from, for init text."
    )
    shift_text: bool | None = Field(
        None,
        description="Number the text's positions after a deep prompt, as if the prompt were text in front of it. "
        "Default: on with pooling peft, as in PEFT, and for decoders if init is vocabulary or text.",
    )

    @field_validator("verbalizer", mode="before")
    @classmethod
    def _parse_words(cls, value: Any) -> Any:
        return None if value is None else parse_words(value)

    @field_validator("template")
    @classmethod
    def _parse_template(cls, value: str | None) -> str | None:
        if value is None:
            return None
        fields_of(value)
        return value

    @model_validator(mode="after")
    def _check(self) -> PromptConfig:
        if (self.init == "text") != (self.init_text is not None):
            raise ValueError("`init='text'` and `init_text` go together: give both or neither")
        if self.softmax == "separate" and (self.pooling == "peft" or self.method not in ("deep", None)):
            raise ValueError(
                "`softmax='separate'` needs a deep prompt and another pooling than `pooling='peft'`; leave `softmax` "
                "out, or set `method='deep'` without `pooling='peft'`"
            )
        if self.softmax == "separate" and (self.init in ("vocabulary", "text") or self.encoder in ("mlp", "lstm")):
            raise ValueError(
                "`softmax='separate'` starts from a prompt without an effect, so it needs `init='normal'`, and "
                "`encoder='none'` or `encoder='residual'`; change these, or use `softmax='shared'`"
            )
        self._check_head()
        if self.method == "deep":
            if self.tie_first:
                raise ValueError(
                    "`tie_first` is for prompts at the input, but `method='deep'` has no first virtual token to tie; "
                    "leave `tie_first` out, or use `method='p-tuning'` or `method='prompt-tuning'`"
                )
            if self.init in ("vocabulary", "text") and self.encoder in ("mlp", "lstm"):
                raise ValueError(
                    f"`init='{self.init}'` of a deep prompt needs `encoder='none'` or `encoder='residual'`, because "
                    f"`encoder='{self.encoder}'` would change the keys and values of the text"
                )
        if self.encoder == "mlp" and self.encoder_dropout and self.method == "deep":
            raise ValueError("`encoder_dropout` does not work with `encoder='mlp'` of a deep prompt; leave it at 0")
        return self

    def _check_head(self) -> None:
        if self.verbalizer is not None and self.head == "linear":
            raise ValueError(
                "`head='linear'` uses no words, but `verbalizer` is given; use `head='verbalizer'`, or leave "
                "`verbalizer` out"
            )
        fields = set() if self.template is None else fields_of(self.template)
        if self.pooling == "mask" and self.template is not None and "mask" not in fields:
            raise ValueError(
                f"`pooling='mask'` reads the mask token, but `template` {short(self.template)} has no {{mask}}; put "
                "{mask} where the answer belongs"
            )
        if self.pooling == "pair" and (self.template is not None or self.head == "verbalizer"):
            raise ValueError(
                "`pooling='pair'` compares two texts that the tokenizer joins, but `template` and `head='verbalizer'` "
                "write them into one; leave `pooling` out, or use neither"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types. transformers' callbacks call this method of a model's configuration."""
        return self.model_dump(mode="json")

    def to_json_string(self) -> str:
        """Return the fields as JSON text."""
        return self.model_dump_json(indent=2)

    def get_text_config(self) -> _AnyTokens:
        """Return a stand-in for a configuration with special tokens, which transformers' Trainer asks for."""
        return _AnyTokens()

    def __setattr__(self, name: str, value: Any) -> None:
        """Raise an error, because settings are frozen. `use_cache`, which transformers' Trainer sets, is ignored."""
        if name != "use_cache":
            super().__setattr__(name, value)

    @property
    def shallow(self) -> bool:
        """True if the prompt is at the input."""
        return self.method != "deep"

    @property
    def positions_taken(self) -> int:
        """Number of positions that the virtual tokens take from the text. It is 0 if they do not count as text."""
        return self.virtual_tokens if self.shallow or self.shift_text else 0

    @property
    def has_words(self) -> bool:
        """True if the head starts from words, either because of `head` or because `verbalizer` is given."""
        return self.head == "verbalizer" or self.verbalizer is not None

    @property
    def _wants_shared(self) -> bool:
        """True if a setting does not work with a deep prompt that has a separate softmax."""
        if self.softmax == "shared" or self.pooling == "peft" or self.tie_first:
            return True
        return self.init in ("vocabulary", "text") or self.encoder in ("mlp", "lstm")

    def unused(self) -> list[str]:
        """Return a sentence for each setting that has no effect. The configuration has to be settled."""
        fields = PromptConfig.model_fields
        changed = [name for name in _NETWORK_FIELDS if getattr(self, name) != fields[name].default]
        if self.encoder in ("none", None):
            messages = [f"`{name}` has no effect, because the prompt has no encoder network" for name in changed]
        elif self.encoder != "lstm" and "encoder_layers" in changed:
            messages = [f"`encoder_layers` has no effect, because it is for `encoder='lstm'`, not '{self.encoder}'"]
        else:
            messages = []
        if self.shallow and self.shift_text is False:
            messages.append(
                f"`shift_text` has no effect, because with `method='{self.method}'` the text's positions always follow "
                "those of the prompt"
            )
        return messages

    def settle(self, family: Family, room: int = SEPARATE_TOKENS, pairs: bool = False) -> PromptConfig:
        """Return a configuration with a default for every field that is None. The result is checked again.

        Args:
            family: the family of the backbone.
            room: the largest number of virtual tokens of a deep prompt with which at most TRAINED_SHARE is trained.
            pairs: True if the rows are pairs of texts. A deep prompt's head then compares them by default.

        Raises:
            ConfigError: a setting does not work with the defaults of the others.
        """
        decoder = family.decoder
        deep = family.shares or (family.separates and not self._wants_shared)
        method = self.method or ("deep" if deep else "p-tuning")
        words, default_pooling = self.has_words, family.default_pooling
        if words and not decoder:
            default_pooling = "mask"
        elif method == "p-tuning" and family.head is not None:
            default_pooling = "peft"
        pooling = self.pooling or default_pooling
        network = method == "p-tuning" and self.model_fields_set & {"encoder_hidden_size", "encoder_dropout"}
        encoder = self.encoder or ("mlp" if network else "none")
        from_tokens = method == "prompt-tuning" or (method == "p-tuning" and encoder in ("none", "residual"))
        init = self.init or ("vocabulary" if from_tokens else "normal")
        template = self.template
        if template is None and (words or pooling == "mask"):
            template = default_template(decoder and pooling != "mask")
        starts_from_text = decoder and method == "deep" and init != "normal"
        separate = method == "deep" and family.separates and pooling != "peft" and init == "normal"
        softmax = self.softmax or ("separate" if separate and encoder in ("none", "residual") else "shared")
        if pairs and self.pooling is None and pooling == "mean" and softmax == "separate" and template is None:
            pooling = "pair"
        tokens = self.virtual_tokens
        if softmax == "separate" and "virtual_tokens" not in self.model_fields_set:
            tokens = min(SEPARATE_TOKENS, max(FEWEST_TOKENS, room))
        shift_text = self.shift_text
        if shift_text is None:
            shift_text = method != "deep" or pooling == "peft" or starts_from_text
        settled = {
            "method": method,
            "encoder": encoder,
            "pooling": pooling,
            "head": "verbalizer" if words else "linear",
            "template": template,
            "softmax": softmax,
            "virtual_tokens": tokens,
            "token_dropout": (0.15 if method == "deep" else 0.0) if self.token_dropout is None else self.token_dropout,
            "init": init,
            "shift_text": shift_text,
        }
        return PromptConfig(**{**self.model_dump(), **settled})


class _AnyToken(list[int]):
    """A list that holds every token."""

    def __contains__(self, _: object) -> bool:
        return True


class _AnyTokens:
    """Special tokens that agree with those of every tokenizer.

    transformers' Trainer writes the tokenizer's special tokens into the configuration of a model that has others, and
    logs a warning. A frozen backbone keeps its own.
    """

    eos_token_id = bos_token_id = pad_token_id = _AnyToken()
