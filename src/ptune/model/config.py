"""What is learned and where the head reads it, as settings. Free of torch, so that help and checks are quick."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ptune.data.template import fields_of
from ptune.errors import ConfigError, describe_problems
from ptune.model.families import Family
from ptune.model.words import parse_words

Method = Literal["p-tuning", "deep", "prompt-tuning"]
EncoderKind = Literal["none", "mlp", "lstm", "residual"]
Softmax = Literal["shared", "separate"]
Pooling = Literal["first", "mean", "last", "mask", "peft"]
HeadKind = Literal["linear", "verbalizer"]
MAX_VIRTUAL_TOKENS = 4096
_OF_NETWORKS = ("encoder_hidden_size", "encoder_layers", "encoder_dropout")  # that make virtual tokens
FEW_ROWS = 100  # training rows up to which a task counts as few-shot
# Of deep prompts with a softmax of their own, by default: fewer where these and a head of many classes would come to
# more than that share of the backbone's parameters. See docs/log.md.
SEPARATE_TOKENS, FEWEST_TOKENS = 40, 20
TRAINED_SHARE = 0.01
Init = Literal["normal", "vocabulary", "text"]
DType = Literal["auto", "float32", "bfloat16", "float16"]  # of a frozen backbone, see ptune.model.loading
Precision = Literal[
    "fp32", "bf16", "int8"
]  # of a backbone that OpenVINO computes, see ptune.backends.openvino.backbone

# Behind this a language model expects a label's name, whatever the task. See docs/log.md for others.
DECODER_TEMPLATE = "Text: {text}\nCategory:"
ENCODER_TEMPLATE = "{text} {mask}"


def default_template(decoder: bool) -> str:
    """Of a verbalizer."""
    return DECODER_TEMPLATE if decoder else ENCODER_TEMPLATE


class PromptConfig(BaseModel):
    """What is learned, and where the head reads. Fields left None are settled by `settle`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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
        description="Number of virtual tokens. With init text, the default is the number of tokens in the text. With "
        f"softmax separate it is {SEPARATE_TOKENS}, reduced to no less than {FEWEST_TOKENS} if the trained parameters "
        "would exceed 1 % of the backbone's.",
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
        description="What the head reads: the first token of the text, the last one, the mean of all, the template's "
        "mask token (mask), or the same as in PEFT, with PEFT's head (peft). Default: peft for p-tuning; otherwise "
        "last for decoders and mean for encoders, or mask with a verbalizer.",
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
    init_text: str | None = Field(None, description="Text that the prompt starts from, for init text.")
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
            raise ValueError("init 'text' and init_text go together: give both or neither")
        if self.softmax == "separate" and (self.pooling == "peft" or self.method not in ("deep", None)):
            raise ValueError("softmax 'separate' is for deep prompts outside of PEFT's layout (pooling 'peft')")
        if self.softmax == "separate" and (self.init in ("vocabulary", "text") or self.encoder in ("mlp", "lstm")):
            raise ValueError(
                "softmax 'separate' starts from a prompt without effect, so from init 'normal' and encoder 'none' or "
                "'residual'; use softmax 'shared'"
            )
        self._check_head()
        if self.method == "deep":
            if self.tie_first:
                raise ValueError("tie_first is for input prompts: a deep prompt has no first virtual token to tie")
            if self.init in ("vocabulary", "text") and self.encoder in ("mlp", "lstm"):
                raise ValueError(
                    f"init '{self.init}' of a deep prompt needs the encoder 'none' or 'residual': what "
                    f"'{self.encoder}' makes of keys and values is not the text any more"
                )
        if self.encoder == "mlp" and self.encoder_dropout and self.method == "deep":
            raise ValueError("encoder_dropout has no place in the encoder 'mlp' of a deep prompt; leave it at 0")
        return self

    def _check_head(self) -> None:
        if self.verbalizer is not None and self.head == "linear":
            raise ValueError("words are given, but head 'linear' reads none; use head 'verbalizer'")
        fields = set() if self.template is None else fields_of(self.template)
        if self.pooling == "mask" and self.template is not None and "mask" not in fields:
            raise ValueError(f"pooling 'mask' reads the mask token, but template {self.template!r} has no {{mask}}")

    def to_dict(self) -> dict[str, Any]:
        """The fields, in types of JSON. By this name transformers' callbacks ask a model's configuration for them."""
        return self.model_dump(mode="json")

    def to_json_string(self) -> str:
        """The same as text."""
        return self.model_dump_json(indent=2)

    def __setattr__(self, name: str, value: Any) -> None:
        """Frozen; but transformers' Trainer switches `use_cache` off in every model's configuration, and may."""
        if name != "use_cache":
            super().__setattr__(name, value)

    @property
    def shallow(self) -> bool:
        return self.method != "deep"

    @property
    def positions_taken(self) -> int:
        """Positions that are lost to the text: of the virtual tokens, where they are counted as text in front."""
        return self.virtual_tokens if self.shallow or self.shift_text else 0

    @property
    def has_words(self) -> bool:
        """Whether the head is asked to start at words: by its name, or by words that are given."""
        return self.head == "verbalizer" or self.verbalizer is not None

    @property
    def _wants_shared(self) -> bool:
        """True if what was given needs a shared softmax in a deep prompt, or no deep prompt at all."""
        given = self.softmax == "shared" or self.pooling == "peft" or self.tie_first
        return given or self.init in ("vocabulary", "text") or self.encoder in ("mlp", "lstm")

    def unused(self) -> list[str]:
        """What a settled configuration was given and has no use for, a sentence each."""
        fields = PromptConfig.model_fields
        given = [name for name in _OF_NETWORKS if getattr(self, name) != fields[name].default]
        network = self.encoder not in ("none", None)
        found = [f"{name} changes nothing: there is no prompt encoder's network" for name in given if not network]
        if network and self.encoder != "lstm" and "encoder_layers" in given:
            found.append(f"encoder_layers changes nothing: it is of the encoder lstm, and this one is {self.encoder}")
        if self.shallow and self.shift_text is False:
            found.append(f"shift_text changes nothing: text always counts from behind the prompt of {self.method}")
        return found

    def settle(self, family: Family, room: int = SEPARATE_TOKENS) -> PromptConfig:
        """Fill every field that was left None; the result is checked again.

        Args:
            room: virtual tokens of a deep prompt that TRAINED_SHARE of the backbone's parameters pays for.

        Raises:
            ConfigError: what was given does not go with what the rest is by default.
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
        learned_as_they_are = method != "deep" and encoder in ("none", "residual")
        init = self.init or ("vocabulary" if learned_as_they_are or method == "prompt-tuning" else "normal")
        template = self.template
        if template is None and (words or pooling == "mask"):
            template = default_template(decoder and pooling != "mask")
        like_text = decoder and method == "deep" and init != "normal"
        separate = method == "deep" and family.separates and pooling != "peft" and init == "normal"
        softmax = self.softmax or ("separate" if separate and encoder in ("none", "residual") else "shared")
        own = min(SEPARATE_TOKENS, max(FEWEST_TOKENS, room))
        tokens = own if softmax == "separate" else self.virtual_tokens
        settled = {
            "method": method,
            "encoder": encoder,
            "pooling": pooling,
            "head": "verbalizer" if words else "linear",
            "template": template,
            "softmax": softmax,
            "virtual_tokens": self.virtual_tokens if "virtual_tokens" in self.model_fields_set else tokens,
            "token_dropout": (0.15 if method == "deep" else 0.0) if self.token_dropout is None else self.token_dropout,
            "init": init,
            "shift_text": method != "deep" or pooling == "peft" or like_text
            if self.shift_text is None
            else self.shift_text,
        }
        try:
            return PromptConfig(**{**self.model_dump(), **settled})
        except ValidationError as err:
            raise ConfigError(describe_problems(err)) from err
