"""One of the prompts that a run trains in parallel: its model, optimizer, moving average and generator."""

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
    """A prompt in training, with its own random generator.

    The result therefore does not depend on the other prompts of the run.

    Args:
        model: the model to train.
        seed: seeds the generator and the order of the training rows.
        config: settled settings.
    """

    def __init__(self, model: PromptClassifier, seed: int, config: SettledConfig) -> None:
        self.model = model
        self.seed = seed
        self.optimizer = make_optimizer(model, config)
        self.rate = 1.0  # factor of the learning rates; see `ptune.training.rescue`
        self.start = copy_state(model)  # from which a prompt that learns nothing starts again
        self.trained = model.trainable_state()  # not copies: they change with every step
        self.average = copy_state(model)  # the moving average of `trained`
        device = model.backbone.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            self.generator = generator_state(device)

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Make torch's global generators continue this member's random numbers inside the context."""
        device = self.model.backbone.device
        before = generator_state(device)
        set_generator_state(self.generator, device)
        try:
            yield
        finally:
            self.generator = generator_state(device)
            set_generator_state(before, device)

    def training_prompt(self) -> Tensor:
        """Return the folded prompt, with dropout in its encoder and of its virtual tokens."""
        with self.drawing():
            return self.model.prompt()

    def step(self, config: SettledConfig, step: int, steps: int, finite: Tensor) -> None:
        """Take an optimizer step along the accumulated gradient, then update the moving average.

        The gradient is not cleared.

        Args:
            config: settled settings.
            step: number of the step, from 0.
            steps: steps in the whole run.
            finite: bool [], on the device. If it is False, nothing changes.
        """
        set_rates(self.optimizer, config, step, steps, self.rate)
        # The fused kernel skips the step if this is set. It exists for training in half precision.
        self.optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
        self.optimizer.step()
        self._move_average(config.average, step, finite)

    def start_again(self, rate: float, state: State | None = None) -> None:
        """Return to a state, by default that before the first step, and multiply the rates by `rate` from now on."""
        self.model.load_trainable_state(state or self.start)
        self.average = copy_state(self.model)
        self.optimizer.state.clear()
        self.rate = rate

    @torch.no_grad()
    def _move_average(self, decay: float, step: int, finite: Tensor) -> None:
        """Update the average: a plain mean over the first steps, exponential after that."""
        share = finite * (max(1 - decay, 1 / (1 + step)) if decay else 1.0)
        for name, tensor in self.trained.items():
            self.average[name].lerp_(tensor, share)


def copy_state(model: Model) -> State:
    """Return a copy of the trained state, detached from the model."""
    return {name: tensor.detach().clone() for name, tensor in model.trainable_state().items()}
