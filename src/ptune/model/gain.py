"""How strongly a backbone answers to a deep prompt: the measure that learning rates are scaled by.

The same step of a prompt moves the hidden states of some backbones several times as far as those of others: it depends
on the number of layers, on the scale of the attention's output weights, and on whether the layers normalise what they
add. The gain measures all of these at once, at the end of the backbone, without looking into it.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from ptune.data.batch import Inputs
from ptune.model.classifier import PromptClassifier
from ptune.model.head import pool
from ptune.model.prompt import split_layers

# Standard deviation of the values that the backbone is tried with. Up to here the answer of encoders is proportional to
# it, and it is well above the rounding of bfloat16; see docs/log.md.
STEP = 0.1


@torch.no_grad()
def measure_gain(model: PromptClassifier, inputs: Inputs) -> float | None:
    """Return how far random values in every layer move what the head reads, in units of how far texts lie apart.

    With the initial keys of the model's prompt and values of standard deviation s, the vectors move by gain * s times
    their mean distance from their mean.

    Args:
        model: a classifier whose deep prompt has a separate softmax, before training.
        inputs: a batch of training rows; 32 are enough.

    Returns:
        The gain, or None if the vectors of all rows are the same, or some are not finite.
    """
    keys = split_layers(model.prompt_encoder(), model.backbone.layers)[:, :1]
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(keys.shape, generator=generator).to(keys) * STEP
    plain, moved = (_vectors(model, inputs, torch.cat([keys, each], dim=1)) for each in (0 * values, values))
    apart = (plain - plain.mean(dim=0)).norm(dim=1).mean()
    gain = float((moved - plain).norm(dim=1).mean() / apart / STEP)
    return gain if 0 < gain < float("inf") else None


def _vectors(model: PromptClassifier, inputs: Inputs, prompt: torch.Tensor) -> torch.Tensor:
    """Return the vectors that the head reads, [B, H], under a prompt [L, 2, P, Hkv]."""
    hidden = model.backbone.start(inputs, prompt, model.entry).result()
    pooling = model.config.pooling or "mean"
    if pooling == "pair":  # the cosine has another unit
        pooling = "mean"
    return pool(replace(hidden, mask_position=inputs.mask_position), pooling).float()
