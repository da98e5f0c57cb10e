"""A prompt that has learned nothing after three tenths of its steps starts again at a lower learning rate.

The right rate depends on the task as well: where texts tell little about their labels, steps that are good elsewhere
drown the signal. Such a run would end where it began, with one answer for every row. A prompt that had learned
something and then gives one answer for every row goes back to its best epoch, at a lower rate too.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ptune.data.targets import MULTI, REGRESSION
from ptune.model.objective import Objective
from ptune.training.checkpoint import Progress, RunState
from ptune.training.member import Member
from ptune.training.steps import Rows

logger = logging.getLogger(__name__)

# The share of the steps after which a prompt is looked at, and the fewest steps that can show anything. A tenth is too
# early: on hard tasks a good rate starts more slowly than a lower one and ends higher (docs/log.md). A long warm-up has
# to be over for a tenth of the steps, because its short steps show little.
LOOK_AFTER, AFTER_WARMUP, FEWEST_STEPS = 0.3, 0.1, 100
# A prompt has learned something if its loss is lower than that of the best constant answer by this share.
LEARNED = 0.01
# What the rates of a prompt that starts again are multiplied by.
LOWER = 0.5


@dataclass(frozen=True)
class Rescue:
    """When to look at the losses of a run, and what they are compared with.

    constant_loss: mean loss of the best answer that does not depend on the text.
    first: number of the first step that counts, from 1.
    last: number of the step after which to decide. 0: never.
    """

    constant_loss: float
    first: int
    last: int

    @classmethod
    def of(cls, objective: Objective, rows: Rows, classes: int, steps: int, warmup: float = 0.0) -> Rescue:
        """Return the plan for a run over training rows with so many steps. `warmup` is the share of warm-up steps."""
        last = math.ceil(max(LOOK_AFTER, warmup + AFTER_WARMUP) * steps)
        constant = best_constant_loss(objective, rows.labels, classes, rows.weights)
        return cls(constant, 2 * last // 3 + 1, last if steps >= FEWEST_STEPS and constant > 0 else 0)

    @classmethod
    def never(cls) -> Rescue:
        """Return a plan that looks at no step."""
        return cls(0.0, 1, 0)

    def counts(self, step: int) -> bool:
        """Return whether the loss of a step belongs to those that are compared."""
        return self.first <= step <= self.last

    def has_learned(self, loss_sum: float) -> bool:
        """Return whether a prompt has learned something, from the sum of its losses over the steps that count."""
        return loss_sum / (self.last - self.first + 1) < (1 - LEARNED) * self.constant_loss

    def look(self, progress: Progress, members: Sequence[Member], losses: Sequence[float], lr: float) -> None:
        """Add up the losses [M] of a step that counts. After the last one, start prompts again that learned nothing.

        Args:
            progress: of the run, which keeps the sums and the decision.
            members: the prompts in training. They have not taken a step after this one.
            losses: the loss of each.
            lr: the learning rate, for the message.
        """
        if not self.counts(progress.step) or progress.rates:  # a prompt that went back to an epoch has learned once
            return
        before = progress.early_losses or [0.0] * len(losses)
        progress.early_losses = [total + loss for total, loss in zip(before, losses, strict=True)]
        if progress.step < self.last:
            return
        for member, total in zip(members, progress.early_losses, strict=True):
            if not self.has_learned(total):
                member.start_again(LOWER)
                logger.warning(
                    "seed %d has learned nothing in the first %d steps: its training loss is not below %.3f, that of "
                    "always giving the same answer; it starts again with `lr=%g`",
                    member.seed,
                    progress.step,
                    self.constant_loss,
                    float(f"{lr * LOWER:.2g}"),
                )
        progress.rates = [member.rate for member in members]


def go_back(state: RunState, lr: float) -> None:
    """Let the only prompt of a run, which has lost what it had learned, go on from its best epoch at a lower rate.

    Args:
        state: of the run, after an epoch.
        lr: the learning rate, for the message.
    """
    (member,), progress = state.members, state.progress
    member.start_again(LOWER * member.rate, state.best)
    progress.rates = [member.rate]
    logger.warning(
        "the prompt has lost what it had learned; it goes on from the state of epoch %d with `lr=%g`",
        progress.best_epoch,
        float(f"{lr * member.rate:.2g}"),
    )


def best_constant_loss(objective: Objective, targets: Tensor, classes: int, row_weights: Tensor | None = None) -> float:
    """Return the mean loss of always answering with the frequencies of the labels, or with the mean of the targets.

    Args:
        objective: the loss of the run.
        targets: of the training rows; see `Objective`.
        classes: number of classes C.
        row_weights: [N], the weights of the rows; None: all rows count equally.
    """
    rows = torch.ones(len(targets)) if row_weights is None else row_weights.cpu().float()
    targets = targets.cpu()
    if objective.weights is not None:
        objective = replace(objective, weights=objective.weights.cpu())
    logits = _constant_logits(objective, targets, classes, rows)
    return float(objective(logits.expand(len(targets), -1), targets, rows))


def _constant_logits(objective: Objective, targets: Tensor, classes: int, rows: Tensor) -> Tensor:
    """Return the logits [1, C] of the best constant answer; for a focal loss they are only close to it."""
    weights = torch.ones(classes) if objective.weights is None else objective.weights
    if objective.problem_type == REGRESSION:
        return (targets.float() @ rows / rows.sum())[None, None]
    if objective.problem_type == MULTI:
        share = rows @ targets.float() / rows.sum()
        return torch.logit(weights * share / (weights * share + 1 - share), eps=1e-4)[None]
    share = torch.bincount(targets, rows, minlength=classes) * weights
    smoothing = objective.label_smoothing
    smoothed = (1 - smoothing) * share / share.sum() + smoothing / classes
    return smoothed.clamp_min(1e-6).log()[None].float()
