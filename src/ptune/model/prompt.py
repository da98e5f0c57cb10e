"""Prompts and the networks that produce them.

Training updates a prompt encoder. Its output is the folded prompt, which an
adapter stores and the backbone reads. Shapes:

    shallow prompt  [P, E]           vectors in front of the text's embeddings
    deep prompt     [L, 2, P, Hkv]   keys and values for every layer

Encoders, by name:
    none      trained vectors without a network   (prompt tuning, arXiv 2104.08691)
    mlp       embedding, then three linear layers with ReLU; for deep prompts two
              linear layers with tanh             (P-tuning as in PEFT; prefix tuning)
    lstm      embedding, bidirectional LSTM, then two linear layers (arXiv 2103.10385)
    residual  embedding plus a bottleneck MLP of the embedding      (arXiv 2305.03937)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ptune.model.config import PromptConfig

# Standard deviation of the initial keys of a deep prompt with a separate softmax. It is close to that of real tokens'
# keys, so that different queries attend to different virtual tokens from the first step on. The values start at zero.
KEY_STD = 0.7


class PromptEncoder(nn.Module):
    """A network without input that produces the P vectors of a prompt.

    Submodules are named as in PEFT (`embedding`, `mlp_head`, `lstm_head`).

    Args:
        config: settled configuration.
        width: width of each vector: E, or L * 2 * Hkv for a deep prompt.
        slice_width: width of the vectors that a network reads: E, or Hkv for a deep prompt.
    """

    def __init__(self, config: PromptConfig, width: int, slice_width: int) -> None:
        super().__init__()
        self.kind = config.encoder
        self.slice_width = slice_width
        self.fixed_first: Tensor | None = None
        hidden = config.encoder_hidden_size
        holds_prompt = config.encoder in ("none", "residual")  # the embedding then has the width of the prompt
        self.embedding = nn.Embedding(config.virtual_tokens, width if holds_prompt else slice_width)
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
        if holds_prompt or not config.shallow:
            nn.init.normal_(self.embedding.weight, std=0.02)
        if holds_prompt and config.softmax == "separate":
            keys, values = split_layers(self.embedding.weight.detach(), width // (2 * slice_width)).unbind(dim=1)
            nn.init.normal_(keys, std=KEY_STD)
            values.zero_()

    def forward(self) -> Tensor:
        """Return the folded prompt, [P, width]."""
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
        """Initialise the embedding.

        Args:
            vectors: for `none` and `residual` the prompt, [P, width]; for `mlp` and `lstm` the network's input,
                [P, slice_width].
        """
        self.embedding.weight.copy_(vectors)


def split_layers(folded: Tensor, layers: int) -> Tensor:
    """Return a view [L, 2, P, Hkv] of a deep prompt [P, L * 2 * Hkv], which is the form that adapters store."""
    return folded.unflatten(1, (layers, 2, -1)).permute(1, 2, 0, 3)


def _mlp(width_in: int, hidden: int, width_out: int, config: PromptConfig) -> nn.Sequential:
    if not config.shallow:
        return nn.Sequential(nn.Linear(width_in, hidden), nn.Tanh(), nn.Linear(hidden, width_out))
    layers: list[nn.Module] = [nn.Linear(width_in, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()]
    if config.encoder_dropout:
        layers.append(nn.Dropout(config.encoder_dropout))
    return nn.Sequential(*layers, nn.Linear(hidden, width_out))


def _bottleneck(width: int, hidden: int, dropout: float) -> nn.Sequential:
    norm = nn.LayerNorm(width)
    nn.init.zeros_(norm.weight)  # the sum starts at the embedding, whose scale suits the backbone
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, width), norm)
