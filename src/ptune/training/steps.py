"""Optimizer steps of all members, over batches that they share.

A GPU is not waited for. It decides by itself whether a step's losses and gradients are finite numbers; from the first
that is not, no step changes anything, so that the state at hand stays the last good one. The host reads the losses of
several steps at once, and learns then how far the run has come.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ptune.data.batch import Packed, collate, moved, pack
from ptune.data.encode import Encoded
from ptune.errors import TrainingError
from ptune.model.classifier import shared_logits
from ptune.model.compiled import CompiledForward, length_step
from ptune.model.ensemble import stack_prompts
from ptune.model.memory import memory_errors, ways_out
from ptune.model.objective import Objective
from ptune.training.config import SettledConfig
from ptune.training.member import Member, State
from ptune.training.optim import clip_gradients

logger = logging.getLogger(__name__)

# Steps between two looks at the losses, by the kind of device; of those that are not named, OFTEN_ENOUGH.
READ_EVERY = {"cpu": 1}
OFTEN_ENOUGH = 16
# Tokens of one forward pass, by the kind of device; of those that are not named, LARGE_PART_TOKENS. A longer batch is
# read in parts: the same gradient, less memory for the way back, and on a CPU as fast.
PART_TOKENS = {"cpu": 2048}
LARGE_PART_TOKENS = 2**15
# Devices whose fused optimizer leaves everything as it is when told so; on others the host looks before it steps.
SKIPPING = ("cpu", "cuda")

# The row numbers of one forward pass, each member's.
Batch = tuple[list[int], ...]


@dataclass(frozen=True)
class Rows:
    """An encoded split. labels: what TextData.targets gives. weights: [N], by which rows count; None: all alike."""

    encoded: list[Encoded]
    labels: Tensor
    weights: Tensor | None = None

    @property
    def lengths(self) -> list[int]:
        return [len(row) for row in self.encoded]

    @cached_property
    def packed(self) -> Packed:
        return pack(self.encoded)


@dataclass(frozen=True)
class _Taken:
    batches: int
    rows: int
    generators: list[State]  # of each member, before the step
    figures: Tensor  # [2, M]: each member's mean loss, and the norm of its gradient


@dataclass(frozen=True)
class Step:
    """A step as it went: batches and rows of each member, losses [M] over them."""

    batches: int
    rows: int
    losses: list[float]
    finite: bool  # False: the step was not taken, as a loss or a gradient is no finite number


class Steps:
    """Takes steps, and says later how they went.

    Args:
        members: what is trained.
        rows: to train on.
        total: steps of the whole run.
    """

    def __init__(
        self,
        members: Sequence[Member],
        rows: Rows,
        pad_id: int,
        objective: Objective,
        config: SettledConfig,
        total: int,
    ) -> None:
        self.members = members
        self.rows = rows
        self.pad_id = pad_id
        self.objective = objective
        self.config = config
        self.total = total
        backbone = members[0].model.backbone
        self.device = backbone.device
        self._forward = CompiledForward(backbone) if config.compile else None
        self._multiple = max(backbone.length_step, length_step(self.device) if config.compile else 1)
        self._part_tokens = PART_TOKENS.get(self.device.type, LARGE_PART_TOKENS)
        self._part: Batch = ()  # what is under way
        self._finite = torch.ones((), dtype=torch.bool, device=self.device)  # whether all was, so far
        self._unread: list[_Taken] = []

    @property
    def unread(self) -> int:
        """Steps that were taken since the last look."""
        return len(self._unread)

    @property
    def full(self) -> bool:
        """Whether it is time for a look."""
        return self.unread >= READ_EVERY.get(self.device.type, OFTEN_ENOUGH)

    def take(self, group: Sequence[Batch], number: int) -> None:
        """One optimizer step, counted from 0, over a group of batches; a loss is the mean over all its rows.

        Raises:
            TrainingError: the GPU has no memory for a single row, or for the optimizer.
        """
        rows = sum(len(batch[0]) for batch in group)
        generators = [member.generator for member in self.members]
        while (totals := self._gradients(group, rows)) is None:
            self._take_less_memory()
            self._begin_again(generators)
        try:
            with memory_errors():
                figures = self._move(totals, number)
        except torch.OutOfMemoryError:
            raise TrainingError(
                f"{self.device} has no memory for the optimizer beside the backbone; "
                + ways_out(self.device, "fewer virtual tokens", "fewer --seeds", "--dtype bfloat16")
            ) from None
        for member in self.members:
            member.optimizer.zero_grad()
        self._unread.append(_Taken(len(group), rows, generators, figures))

    def read(self) -> list[Step]:
        """The steps since the last look, up to the first that was not taken. Waits for the device, once.

        After a step that was not taken the members are where they were before it.
        """
        taken, self._unread = self._unread, []
        figures = torch.stack([step.figures for step in taken]).tolist()
        steps = []
        for step, (losses, norms) in zip(taken, figures, strict=True):
            finite = all(map(math.isfinite, [*losses, *norms]))
            steps.append(Step(step.batches, step.rows, losses, finite))
            if not finite:
                self._begin_again(step.generators)
                break
        return steps

    def _move(self, totals: Tensor, number: int) -> Tensor:
        """Let the members move along their gradients; losses and gradients' norms, [2, M]."""
        norms = [clip_gradients(member.model, self.config.clip) for member in self.members]
        figures = torch.stack([totals, torch.stack(norms)])
        self._finite = self._finite & figures.isfinite().all()
        if self.device.type in SKIPPING or self._finite:
            for member in self.members:
                member.step(self.config, number, self.total, self._finite)
        return figures

    def _begin_again(self, generators: Sequence[State]) -> None:
        """Let the members be where they were before a step."""
        for member, generator in zip(self.members, generators, strict=True):
            member.generator = generator
            member.optimizer.zero_grad()

    def _gradients(self, group: Sequence[Batch], rows: int) -> Tensor | None:
        """Add up the gradients of a group's batches; their mean loss, [M]. None: there is no memory for it."""
        totals = torch.zeros(len(self.members), device=self.device)
        try:
            with memory_errors():
                for batch in group:
                    totals += self._learn(batch, rows)
        except torch.OutOfMemoryError:
            return None
        return totals

    def _take_less_memory(self) -> None:
        """Read batches in smaller parts from here on: the same gradient.

        Raises:
            TrainingError: the part that was under way is a single row already.
        """
        members, rows, longest = len(self._part), len(self._part[0]), self._longest(self._part)
        if rows == 1:
            seeds = ["fewer --seeds"] if members > 1 else []
            raise TrainingError(
                f"{self.device} has no memory for a row of {longest} tokens; cut texts with --max-length, "
                + ways_out(self.device, "--dtype bfloat16", "fewer virtual tokens", *seeds)
            )
        self._part_tokens = members * rows * longest // 2  # less than before: a part of several rows kept to that
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        logger.info("%s has no memory left; batches are read in parts of %d tokens", self.device, self._part_tokens)

    def _learn(self, batch: Batch, rows: int) -> Tensor:
        """Add the gradients of a batch; its share of each member's loss over so many rows, [M].

        The prompts are made once, however many parts the batch is read in.
        """
        parts = self._parts(batch)
        self._part = parts[0]
        made = stack_prompts([member.training_prompt() for member in self.members])
        prompt = made.detach().requires_grad_()
        total = torch.zeros(len(self.members), device=self.device)
        for part in parts:
            self._part = part
            losses = self._losses(part, prompt) * (len(part[0]) / rows)
            losses.sum().backward()
            total += losses.detach()
        made.backward(prompt.grad)
        return total

    def _parts(self, batch: Batch) -> list[Batch]:
        """A batch in equal parts of few enough tokens, padding included; at least one row of each member in each."""
        count = len(batch[0])
        fitting = max(1, self._part_tokens // (len(batch) * self._longest(batch)))
        size = math.ceil(count / math.ceil(count / fitting))
        return [tuple(rows[start : start + size] for rows in batch) for start in range(0, count, size)]

    def _longest(self, batch: Batch) -> int:
        """Tokens of the longest row of a batch."""
        return max(int(self.rows.packed.lengths[rows].max()) for rows in batch)

    def _losses(self, batch: Batch, prompt: Tensor) -> Tensor:
        """Mean loss of each member over its rows of a batch, [M]; one forward pass for all."""
        together = [row for rows in batch for row in rows]
        inputs = collate(self.rows.packed, self.rows.labels, together, self.pad_id, self._multiple).to(self.device)
        models = [member.model for member in self.members]
        logits = shared_logits(models, prompt, **inputs.inputs, forward=self._forward)  # type: ignore[arg-type]
        assert inputs.labels is not None
        count = len(self.members)
        labels = inputs.labels.chunk(count)
        weights: Sequence[Tensor | None] = [None] * count
        if self.rows.weights is not None:
            weights = moved(self.rows.weights[together], self.device).chunk(count)
        return torch.stack([self.objective(*own) for own in zip(logits, labels, weights, strict=True)])
