"""What is learned and where the head reads it, as settings. Free of torch, so that help and checks are quick."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ptune.model.families import Family

Method = Literal["p-tuning", "deep", "prompt-tuning"]
EncoderKind = Literal["none", "mlp", "lstm", "residual"]
Pooling = Literal["first", "mean", "last", "peft"]
Softmax = Literal["shared", "separate"]
MAX_VIRTUAL_TOKENS = 4096
Init = Literal["normal", "vocabulary", "text"]


class PromptConfig(BaseModel):
    """What is learned, and where the head reads. Fields left None are settled by `settle`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Method | None = Field(
        None,
        description="p-tuning: virtual tokens at the input, made by a prompt encoder. "
        "deep: keys and values in every layer. prompt-tuning: free virtual tokens at the input. "
        "Default: deep where the backbone's family allows it, else p-tuning.",
    )
    virtual_tokens: int = Field(20, ge=1, le=MAX_VIRTUAL_TOKENS, description="Number of virtual tokens.")
    encoder: EncoderKind | None = Field(
        None, description="Prompt encoder. Default: mlp for p-tuning, none for the others."
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
        description="What the head reads: first, mean or last of the text's positions, or peft, which is PEFT's "
        "layout and head. Default: peft for p-tuning; else mean for encoders and last for decoders.",
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
        description="Where prompts start: normal, vocabulary (embeddings of tokens drawn at random) or text. "
        "Default: vocabulary for prompt-tuning, else normal.",
    )
    init_text: str | None = Field(None, description="The text whose embeddings start the prompt (init text).")

    @model_validator(mode="after")
    def _check(self) -> PromptConfig:
        if (self.init == "text") != (self.init_text is not None):
            raise ValueError("init 'text' and init_text go together: give both or neither")
        if self.softmax == "separate" and (self.pooling == "peft" or self.method not in ("deep", None)):
            raise ValueError("softmax 'separate' is for deep prompts outside of PEFT's layout (pooling 'peft')")
        if self.method == "deep":
            if self.tie_first:
                raise ValueError("tie_first is for input prompts: a deep prompt has no first virtual token to tie")
            if self.init in ("vocabulary", "text"):
                raise ValueError(f"init '{self.init}' is for input prompts: a deep prompt starts from 'normal'")
        if self.encoder == "mlp" and self.encoder_dropout and self.method == "deep":
            raise ValueError("encoder_dropout has no place in the encoder 'mlp' of a deep prompt; leave it at 0")
        return self

    @property
    def shallow(self) -> bool:
        return self.method != "deep"

    @property
    def entry(self) -> dict[str, bool]:
        """How the prompt enters, as options of Backbone.forward."""
        return {"shift_text": self.pooling == "peft", "separate": self.softmax == "separate"}

    def settle(self, family: Family) -> PromptConfig:
        """Fill every field that was left None; the result is checked again."""
        method = self.method or ("p-tuning" if family.deep is None else "deep")
        pooling = self.pooling or ("peft" if method == "p-tuning" else family.default_pooling)
        separate = method == "deep" and family.deep == "attention" and pooling != "peft"
        settled = {
            "method": method,
            "encoder": self.encoder or ("mlp" if method == "p-tuning" else "none"),
            "pooling": pooling,
            "softmax": self.softmax or ("separate" if separate else "shared"),
            "token_dropout": (0.15 if method == "deep" else 0.0) if self.token_dropout is None else self.token_dropout,
            "init": self.init or ("vocabulary" if method == "prompt-tuning" else "normal"),
        }
        return PromptConfig(**{**self.model_dump(), **settled})
