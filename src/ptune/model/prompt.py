"""Prompts and the networks that make them.

A prompt encoder is trained; its output, the folded prompt, is what an adapter
stores and what a backbone reads. Shapes:

    shallow prompt  [P, E]           vectors in front of the text's embeddings
    deep prompt     [L, 2, P, Hkv]   keys and values for every layer

Encoders, by name:
    none      free vectors                    (prompt tuning, arXiv 2104.08691)
    mlp       embedding, then three linear layers with ReLU; for deep prompts two
              with tanh between               (P-tuning as in PEFT; prefix tuning)
    lstm      embedding, two-way LSTM, then two linear layers  (arXiv 2103.10385)
    residual  embedding plus a bottleneck MLP of itself        (arXiv 2305.03937)
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

Method = Literal["p-tuning", "deep", "prompt-tuning"]
EncoderKind = Literal["none", "mlp", "lstm", "residual"]
Pooling = Literal["first", "mean", "last", "peft"]
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
    virtual_tokens: int = Field(20, ge=1, le=4096, description="Number of virtual tokens.")
    encoder: EncoderKind | None = Field(
        None, description="Prompt encoder. Default: mlp for p-tuning, none for the others."
    )
    encoder_hidden_size: int = Field(128, ge=1, le=65536, description="Width inside the prompt encoder.")
    encoder_layers: int = Field(2, ge=1, le=16, description="Layers of the LSTM encoder.")
    encoder_dropout: float = Field(
        0.0, ge=0.0, lt=1.0, description="Dropout inside the prompt encoder, between its layers."
    )
    pooling: Pooling | None = Field(
        None,
        description="What the head reads: first, mean or last of the text's positions, or peft, which is PEFT's "
        "layout and head. Default: peft for p-tuning; else mean for encoders and last for decoders.",
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

    def settle(self, default_method: Method, default_pooling: str) -> PromptConfig:
        """Fill every field that was left None; the result is checked again."""
        method = self.method or default_method
        settled = {
            "method": method,
            "encoder": self.encoder or ("mlp" if method == "p-tuning" else "none"),
            "pooling": self.pooling or ("peft" if method == "p-tuning" else default_pooling),
            "init": self.init or ("vocabulary" if method == "prompt-tuning" else "normal"),
        }
        return PromptConfig(**{**self.model_dump(), **settled})


class PromptEncoder(nn.Module):
    """Makes P vectors of `width` each.

    For a deep prompt `width` is L * 2 * Hkv and `slice_width` Hkv. Modules are
    named as in PEFT (`embedding`, `mlp_head`, `lstm_head`).
    """

    def __init__(self, config: PromptConfig, width: int, slice_width: int) -> None:
        super().__init__()
        self.kind = config.encoder
        self.slice_width = slice_width
        self.fixed_first: Tensor | None = None
        hidden = config.encoder_hidden_size
        whole = config.encoder in ("none", "residual")
        self.embedding = nn.Embedding(config.virtual_tokens, width if whole else slice_width)
        if config.encoder == "residual":
            self.mlp_head = _bottleneck(slice_width, hidden, config.encoder_dropout)
        elif config.encoder == "lstm":
            dropout = config.encoder_dropout if config.encoder_layers > 1 else 0.0
            self.lstm_head = nn.LSTM(
                slice_width, hidden, config.encoder_layers, dropout=dropout, bidirectional=True, batch_first=True
            )
            self.mlp_head = nn.Sequential(nn.Linear(2 * hidden, 2 * hidden), nn.ReLU(), nn.Linear(2 * hidden, width))
        elif config.encoder == "mlp":
            self.mlp_head = _mlp(slice_width, hidden, width, config)
        if whole or not config.shallow:
            nn.init.normal_(self.embedding.weight, std=0.02)

    def forward(self) -> Tensor:
        """The folded prompt, [P, width]."""
        vectors: Tensor = self.embedding.weight
        if self.kind == "mlp":
            vectors = self.mlp_head(vectors)
        elif self.kind == "lstm":
            vectors = self.mlp_head(self.lstm_head(vectors[None])[0])[0]
        elif self.kind == "residual":
            slices = vectors.view(-1, self.slice_width)
            vectors = (slices + self.mlp_head(slices)).view_as(vectors)
        if self.fixed_first is not None:
            vectors = torch.cat([self.fixed_first[None].to(vectors), vectors[1:]])
        return vectors

    @torch.no_grad()
    def start_from(self, vectors: Tensor) -> None:
        """Begin at given vectors [P, width]: the prompt itself for `none` and `residual`, else what the encoder reads."""
        self.embedding.weight.copy_(vectors)


def _mlp(width_in: int, hidden: int, width_out: int, config: PromptConfig) -> nn.Sequential:
    if not config.shallow:
        return nn.Sequential(nn.Linear(width_in, hidden), nn.Tanh(), nn.Linear(hidden, width_out))
    layers: list[nn.Module] = [nn.Linear(width_in, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()]
    if config.encoder_dropout:
        layers.append(nn.Dropout(config.encoder_dropout))
    return nn.Sequential(*layers, nn.Linear(hidden, width_out))


def _bottleneck(width: int, hidden: int, dropout: float) -> nn.Sequential:
    norm = nn.LayerNorm(width)
    nn.init.zeros_(norm.weight)  # the sum starts at the embedding itself, whose scale the backbone knows
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, width), norm)
