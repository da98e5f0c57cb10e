"""What is learned and where the head reads it, as settings. Free of torch, so that help and checks are quick."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from cyclopts import Parameter
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ptune.data.template import fields_of
from ptune.errors import ConfigError
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
Precision = Literal["fp32", "bf16", "int8"]  # of a backbone that OpenVINO computes, see ptune.model.openvino

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
        description="p-tuning: virtual tokens at the input, under PEFT's head. "
        "deep: keys and values in every layer. prompt-tuning: virtual tokens at the input, under ptune's head. "
        "Default: deep where the backbone's family allows it, else p-tuning.",
    )
    virtual_tokens: int = Field(
        20,
        ge=1,
        le=MAX_VIRTUAL_TOKENS,
        description="Number of virtual tokens. Under init text the default is the text's own number of tokens, and "
        f"for deep prompts with softmax separate it is {SEPARATE_TOKENS}, or as many from {FEWEST_TOKENS} on as keep "
        "what is trained under 1 % of the backbone.",
    )
    encoder: EncoderKind | None = Field(
        None,
        description="What makes the virtual tokens while they are trained: none, which learns them as they are, or a "
        "network, as PEFT's p-tuning has it (mlp, lstm). Default: none; for p-tuning mlp where its width or dropout "
        "is given.",
    )
    encoder_hidden_size: int = Field(128, ge=1, le=65536, description="Width inside the prompt encoder.")
    encoder_layers: int = Field(2, ge=1, le=16, description="Layers of the LSTM encoder.")
    encoder_dropout: float = Field(
        0.0, ge=0.0, lt=1.0, description="Dropout inside the prompt encoder, between its layers."
    )
    token_dropout: float | None = Field(
        None,
        ge=0.0,
        lt=1.0,
        description="Share of the virtual tokens left out of a training step, drawn anew each time, so that none is "
        "leant on. Default: 0.15 for deep, 0 for the others.",
    )
    pooling: Pooling | None = Field(
        None,
        description="What the head reads: first, mean or last of the text's positions; mask, the template's mask "
        "token through the masked language model's own transform; or peft, which is PEFT's layout and head. "
        "Default: peft for p-tuning; else mean for encoders (mask with a verbalizer) and last for decoders.",
    )
    head: HeadKind | None = Field(
        None,
        description="Where the head starts: linear at random; verbalizer at the language model's own rows for the "
        "words that stand for the labels, so that it answers before it is trained. Default: linear, but verbalizer "
        "where training rows are few and the backbone has a language-model head.",
    )
    verbalizer: Annotated[
        dict[str, list[str]] | None,
        # A line of text on the command line, a mapping in a configuration file, which arrives as JSON.
        Parameter(accepts_keys=False, n_tokens=1),
    ] = Field(
        None,
        description="Words that stand for the labels, such as 'negative=bad,awful;positive=great'; a mapping in a "
        "configuration file. Default: the labels' own names.",
    )
    template: str | None = Field(
        None,
        description="Put around each text, such as 'Review: {text}\\nSentiment:'. {text} and {text_pair} are the "
        "texts, {mask} the mask token. Default: none; for a verbalizer "
        f"{DECODER_TEMPLATE!r}, or {ENCODER_TEMPLATE!r} where there is a mask token.",
    )
    softmax: Softmax | None = Field(
        None,
        description="How text attends to a deep prompt. separate: by a softmax of its own, whose result is added to "
        "the attention over the text; training starts from the pretrained model exactly. shared: one softmax over "
        "prompt and text, as in prefix tuning; the only one that PEFT knows. Default: separate where the family "
        "allows it and pooling is not peft.",
    )
    tie_first: bool = Field(
        False,
        description="Keep virtual token 0 equal to the embedding of the text's first special token "
        "(<s>, [CLS]), so that a head over position 0 reads a real one. Input prompts only.",
    )
    init: Init | None = Field(
        None,
        description="Where prompts start: normal, vocabulary (tokens drawn at random) or text. Input prompts start "
        "at the tokens' embeddings, deep ones at the keys and values that the backbone has for them. "
        "Default: vocabulary for input prompts but those of p-tuning's mlp and lstm, the first of them at the text's "
        "first special token where PEFT's head reads it; else normal.",
    )
    init_text: str | None = Field(None, description="The text that starts the prompt (init text).")
    shift_text: bool | None = Field(
        None,
        description="Count the text's positions from behind a deep prompt, as if it were text in front. Default: for "
        "pooling peft, as PEFT does, and for decoders whose prompt starts from tokens.",
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
        value = value.replace("\\n", "\n")  # in a shell's quotes a line break stays two characters
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
        """Whether what was given goes with a deep prompt under a shared softmax alone, or with none."""
        given = self.softmax == "shared" or self.pooling == "peft" or self.tie_first
        return given or self.init in ("vocabulary", "text") or self.encoder in ("mlp", "lstm")

    @property
    def entry(self) -> dict[str, bool]:
        """How the prompt enters, as options of Backbone.forward.

        Behind the keys and values of a shallow prompt, which causal backbones are given, the text stands as behind
        the prompt itself.
        """
        return {"shift_text": self.shallow or bool(self.shift_text), "separate": self.softmax == "separate"}

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
            raise ConfigError("; ".join(e["msg"].removeprefix("Value error, ") for e in err.errors())) from err
