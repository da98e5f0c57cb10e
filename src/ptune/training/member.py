"""One of the prompts that a run trains side by side: its model, optimizer, average and generator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ptune.model.classifier import PromptClassifier
from ptune.model.ensemble import Model
from ptune.training.config import SettledConfig
from ptune.training.optim import generator_state, make_optimizer, set_generator_state, set_rates

State = dict[str, Tensor]


class Member:
    """A prompt in training. Draws from a generator of its own, so that its neighbours do not change what it becomes.

    Args:
        model: what is trained.
        seed: of its generator and of the order of its rows.
    """

    def __init__(self, model: PromptClassifier, seed: int, config: SettledConfig) -> None:
        self.model = model
        self.seed = seed
        self.optimizer = make_optimizer(model, config)
        self.trained = model.trainable_state()  # the tensors themselves, which change with every step
        self.average = copy_state(model)  # moving average of the trained state
        device = model.backbone.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            self.generator = generator_state(device)

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Let torch's global generators be this member's for a while."""
        device = self.model.backbone.device
        before = generator_state(device)
        set_generator_state(self.generator, device)
        try:
            yield
        finally:
            self.generator = generator_state(device)
            set_generator_state(before, device)

    def training_prompt(self) -> Tensor:
        """The folded prompt, with dropout in its encoder and of its virtual tokens."""
        with self.drawing():
            return self.model.prompt()

    def step(self, config: SettledConfig, step: int, steps: int, finite: Tensor) -> None:
        """Move along the gradient that was collected, then move the average along.

        finite: bool [], on the device; where it is False, nothing moves. The gradient is left as it is.
        """
        set_rates(self.optimizer, config, step, steps)
        # The fused kernel's own switch, made for training in half precision.
        self.optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
        self.optimizer.step()
        self._move_average(config.average, step, finite)

    @torch.no_grad()
    def _move_average(self, decay: float, step: int, finite: Tensor) -> None:
        """A plain mean over the first steps, exponential later on."""
        share = finite * (max(1 - decay, 1 / (1 + step)) if decay else 1.0)
        for name, tensor in self.trained.items():
            self.average[name].lerp_(tensor, share)


def copy_state(model: Model) -> State:
    """The trained state, apart from the model."""
    return {name: tensor.detach().clone() for name, tensor in model.trainable_state().items()}
