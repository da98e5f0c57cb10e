"""Optimizer and learning-rate schedule: AdamW with separate rates for prompt and head."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from ptune.model.classifier import PromptClassifier
from ptune.training.config import SettledConfig


def make_optimizer(model: PromptClassifier, config: SettledConfig) -> AdamW:
    """Return AdamW (arXiv 1711.05101) over prompt encoder and head.

    Each parameter group keeps its peak learning rate under the key `peak`.
    """
    groups: list[dict[str, Any]] = []
    for module, rate in ((model.prompt_encoder, config.lr), (model.head, config.head_lr)):
        decayed, undecayed = _split_by_decay(module)
        groups.append({"params": decayed, "peak": rate, "weight_decay": config.weight_decay})
        groups.append({"params": undecayed, "peak": rate, "weight_decay": 0.0})
    return AdamW([group for group in groups if group["params"]], lr=0.0, fused=True)


def set_rates(optimizer: AdamW, config: SettledConfig, step: int, steps: int) -> None:
    """Set the learning rate of each parameter group for step `step` (from 0) of `steps`."""
    share = rate_share(config, step, steps)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * share


def rate_share(config: SettledConfig, step: int, steps: int) -> float:
    """Return the learning rate of a step as a share of the peak rate, from 0 to 1.

    The share rises to 1 in the warm-up. It then follows `config.schedule`; linear and cosine reach 0 after the last
    step.
    """
    warmup = math.ceil(config.warmup * steps)
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    if config.schedule == "constant":
        return 1.0
    if config.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    return 1.0 - done


def clip_gradients(model: PromptClassifier, limit: float) -> Tensor:
    """Scale the gradient of prompt and head to a norm of at most `limit`; return its norm [] before that."""
    return nn.utils.clip_grad_norm_([*model.prompt_encoder.parameters(), *model.head.parameters()], limit)


def _split_by_decay(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Split the parameters into matrices, which decay, and biases and norm scales, which do not."""
    parameters = list(module.parameters())
    return [p for p in parameters if p.dim() > 1], [p for p in parameters if p.dim() <= 1]


def generator_state(device: torch.device) -> dict[str, Tensor]:
    """Return the states of the generators that dropout samples from, uint8: the CPU's, and the GPU's if one is used."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_generator_state(states: dict[str, Tensor], device: torch.device) -> None:
    """Restore generator states that `generator_state` returned."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
