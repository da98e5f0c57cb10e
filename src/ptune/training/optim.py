"""Optimizer and learning-rate schedule: AdamW with separate rates for prompt and head, and Muon for deep prompts."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from ptune.model.classifier import PromptClassifier
from ptune.training.config import SettledConfig

# Momentum of Muon, and the coefficients of its Newton-Schulz iteration with the number of iterations, as published.
MOMENTUM = 0.9
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


class PromptOptimizer(AdamW):
    """AdamW (arXiv 1711.05101), and Muon (arXiv 2502.16982) for the parameter groups with `matrices`.

    Every virtual token of a layer gets nearly the same gradient, because every text attends to all of them. AdamW takes
    a full step in each number, so all tokens move together, and the sum of these steps drowns what the layer had to
    say. Muon makes the step of a matrix orthogonal: no direction gets more than any other, and the length of a step
    does not depend on the task. See docs/log.md.

    A group with `matrices` M has one parameter, [P, M * H], whose M matrices [P, H] stand side by side: the keys and
    the values of every layer.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take a step. If `found_inf` is set to 1, nothing changes."""
        for group in self.param_groups:
            if group["matrices"]:
                (parameter,) = group["params"]
                self._step_matrices(parameter, group)
                parameter.grad = None  # AdamW passes over it
        super().step(closure)

    def _step_matrices(self, parameter: Tensor, group: dict[str, Any]) -> None:
        assert parameter.grad is not None
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
            state["step"] = torch.zeros(())  # unused, but AdamW expects it in a state that it loads
        bad = getattr(self, "found_inf", torch.zeros(())).bool().to(parameter.device)
        momentum = state["momentum"]
        momentum.copy_(torch.where(bad, momentum, momentum * MOMENTUM + parameter.grad))
        ahead = parameter.grad + MOMENTUM * momentum
        matrices = ahead.unflatten(1, (group["matrices"], -1)).transpose(0, 1)  # [M, P, H]
        # A full-rank step then has a root mean square of 1, like one of AdamW.
        step = orthogonalise(matrices) * max(matrices.shape[1:]) ** 0.5
        step = step.transpose(0, 1).flatten(1)
        moved = parameter * (1 - group["lr"] * group["weight_decay"]) - group["lr"] * step
        parameter.copy_(torch.where(bad, parameter, moved))


def orthogonalise(matrices: Tensor) -> Tensor:
    """Return the orthogonal matrices closest to the given ones [M, P, H], approximately: singular values of 0.7 to 1.2.

    A quintic Newton-Schulz iteration, as in Muon (https://kellerjordan.github.io/posts/muon). A matrix of zeros stays.
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[1] > matrices.shape[2]
    current = matrices.transpose(1, 2) if tall else matrices
    current = current / (torch.linalg.matrix_norm(current, keepdim=True) + 1e-20)
    for _ in range(ITERATIONS):
        gram = current @ current.transpose(1, 2)
        current = a * current + (b * gram + c * gram @ gram) @ current
    return current.transpose(1, 2) if tall else current


def make_optimizer(model: PromptClassifier, config: SettledConfig) -> PromptOptimizer:
    """Return the optimizer over prompt encoder and head.

    Each parameter group keeps its peak learning rate under the key `peak`.
    """
    groups: list[dict[str, Any]] = []
    for module, rate in ((model.prompt_encoder, config.lr), (model.head, config.head_lr)):
        decayed, undecayed = _split_by_decay(module)
        prompt = module is model.prompt_encoder
        matrices = 2 * model.backbone.layers if prompt and config.optimizer == "muon" else 0
        groups.append({"params": decayed, "peak": rate, "weight_decay": config.weight_decay, "matrices": matrices})
        groups.append({"params": undecayed, "peak": rate, "weight_decay": 0.0, "matrices": 0})
    return PromptOptimizer([group for group in groups if group["params"]], lr=0.0, fused=True)


def set_rates(optimizer: PromptOptimizer, config: SettledConfig, step: int, steps: int, factor: float = 1.0) -> None:
    """Set the learning rate of each parameter group for step `step` (from 0) of `steps`, multiplied by a factor."""
    share = factor * rate_share(config, step, steps)
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
