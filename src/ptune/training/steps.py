"""Optimizer steps of all members, over batches that they share.

The host does not wait for a GPU after each step. The GPU itself checks that losses and gradients are finite numbers.
From the first step where they are not, no step changes anything, so the state stays the last good one. The host reads
the losses of several steps at once, and learns only then how far the run has come.
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
from ptune.model.compiled import CompiledForward, length_step
from ptune.model.contrast import PairLoss
from ptune.model.memory import memory_errors, ways_out
from ptune.model.mixed import start_logits
from ptune.model.objective import Objective
from ptune.model.recompute import prepare, recomputing
from ptune.model.vectors import PooledVectors
from ptune.processes import Processes, gradients
from ptune.training.config import SettledConfig
from ptune.training.member import Member, State
from ptune.training.optim import clip_gradients

logger = logging.getLogger(__name__)

# Number of steps after which the losses are read, by device type. OFTEN_ENOUGH is for other devices.
READ_EVERY = {"cpu": 1}
OFTEN_ENOUGH = 16
# Most tokens of a forward pass, by device type. LARGE_PART_TOKENS is for other devices. A longer batch is split into
# parts: the gradient is the same, the backward pass needs less memory, and on a CPU it is as fast.
PART_TOKENS = {"cpu": 2048}
LARGE_PART_TOKENS = 2**15
# Rows of a forward pass where all rows of a batch are compared, by device type. Such a batch has texts of all lengths,
# and in one pass most of its positions would be padding. Other devices take all rows in one pass.
COMPARED_ROWS = {"cpu": 8}
# Devices on which the fused optimizer can skip a step by itself. On others the host reads the losses before each step.
SKIPPING = ("cpu", "cuda")

# The row numbers of a batch, one list per member.
Batch = tuple[list[int], ...]


@dataclass(frozen=True)
class Rows:
    """An encoded split with N rows.

    encoded: the token ids of each row.
    labels: the tensor that `TextData.targets` returns.
    weights: [N], weights of the rows in the loss; None weights all rows equally.
    """

    encoded: list[Encoded]
    labels: Tensor
    weights: Tensor | None = None

    @property
    def lengths(self) -> list[int]:
        """Number of tokens of each row."""
        return [len(row) for row in self.encoded]

    @cached_property
    def packed(self) -> Packed:
        """The rows as flat tensors, from which batches are gathered."""
        return pack(self.encoded)


@dataclass(frozen=True)
class _UnreadStep:
    """A step whose losses are still on the device.

    batches: number of batches of each member.
    rows: number of rows of each member.
    generators: the state of each member's generator before the step.
    measured: [2, M], each member's mean loss and the norm of its gradient.
    """

    batches: int
    rows: int
    generators: list[State]
    measured: Tensor


@dataclass(frozen=True)
class Step:
    """The outcome of a step.

    batches: number of batches of each member.
    rows: number of rows of each member.
    losses: [M], each member's mean loss over its rows.
    finite: False if the step was skipped, because a loss or a gradient was not a finite number.
    """

    batches: int
    rows: int
    losses: list[float]
    finite: bool


class Steps:
    """Takes optimizer steps, and reports their outcome later.

    Args:
        members: the M prompts to train.
        rows: rows to train on.
        pad_id: token id of the padding.
        objective: the loss.
        config: settled settings.
        total: number of steps in the whole run.
        processes: those that share each batch.
    """

    def __init__(
        self,
        members: Sequence[Member],
        rows: Rows,
        pad_id: int,
        objective: Objective | PairLoss,
        config: SettledConfig,
        total: int,
        processes: Processes = Processes(),  # noqa: B008 (it is immutable)
    ) -> None:
        self.members = members
        # Rows that are compared with each other have to be in one process, so every process has the whole batch.
        self.processes = Processes() if isinstance(objective, PairLoss) else processes
        self.rows = rows
        self.pad_id = pad_id
        self.objective = objective
        self.config = config
        self.total = total
        backbone = members[0].model.backbone
        self.device = backbone.device
        self._shards = backbone.shards
        self._forward = CompiledForward(backbone) if config.compile else None
        if config.gradient_checkpointing:
            prepare(backbone.base, backbone.name)
        self._multiple = max(backbone.length_step, length_step(self.device) if config.compile else 1)
        self._part_tokens = PART_TOKENS.get(self.device.type, LARGE_PART_TOKENS)
        self._current: Batch = ()  # the part that is being computed
        self._finite = torch.ones((), dtype=torch.bool, device=self.device)  # False from the first bad step on
        self._unread: list[_UnreadStep] = []

    @property
    def unread(self) -> int:
        """Number of steps whose losses have not been read yet."""
        return len(self._unread)

    @property
    def full(self) -> bool:
        """True if it is time to read the losses."""
        return self.unread >= READ_EVERY.get(self.device.type, OFTEN_ENOUGH)

    def take(self, group: Sequence[Batch], number: int) -> None:
        """Take one optimizer step over a group of batches; the loss is the mean over all their rows.

        Args:
            group: the batches whose gradients are accumulated.
            number: number of the step, from 0.

        Raises:
            TrainingError: the device has no memory for a single row, or for the optimizer.
        """
        rows = sum(len(batch[0]) for batch in group)
        generators = [member.generator for member in self.members]
        while (losses := self._accumulate(group, rows)) is None:
            self._use_smaller_parts()
            self._rewind(generators)
        try:
            with memory_errors():
                measured = self._update(losses, number)
        except torch.OutOfMemoryError:
            raise TrainingError(
                f"{self.device} has no memory for the optimizer in addition to the backbone; "
                + ways_out(self.device, "fewer `virtual_tokens`", "fewer `seeds`", "`dtype='bfloat16'`")
            ) from None
        for member in self.members:
            member.optimizer.zero_grad()
        self._unread.append(_UnreadStep(len(group), rows, generators, measured))

    def read(self) -> list[Step]:
        """Return the unread steps, up to the first one that was skipped. Waits for the device once.

        After a skipped step the members are in their state from before it.
        """
        unread, self._unread = self._unread, []
        measured = torch.stack([step.measured for step in unread]).tolist()
        steps = []
        for step, (losses, norms) in zip(unread, measured, strict=True):
            finite = all(map(math.isfinite, [*losses, *norms]))
            steps.append(Step(step.batches, step.rows, losses, finite))
            if not finite:
                self._rewind(step.generators)
                break
        return steps

    def _update(self, losses: Tensor, number: int) -> Tensor:
        """Take each member's step along its gradient; return losses and gradient norms, [2, M]."""
        if self.processes.count > 1:
            parameters = [each for member in self.members for each in member.model.parameters() if each.requires_grad]
            self.processes.add_up([losses, *gradients(parameters)])
        norms = [clip_gradients(member.model, self.config.clip) for member in self.members]
        measured = torch.stack([losses, torch.stack(norms)])
        self._finite = self._finite & measured.isfinite().all()
        if self.device.type in SKIPPING or self._finite:
            for member in self.members:
                member.step(self.config, number, self.total, self._finite)
        return measured

    def _rewind(self, generators: Sequence[State]) -> None:
        """Restore the generators from before a step and clear the gradients."""
        for member, generator in zip(self.members, generators, strict=True):
            member.generator = generator
            member.optimizer.zero_grad()

    def _accumulate(self, group: Sequence[Batch], rows: int) -> Tensor | None:
        """Accumulate the gradients of a group; return each member's mean loss [M], or None if memory runs out."""
        losses = torch.zeros(len(self.members), device=self.device)
        try:
            with memory_errors():
                for batch in group:
                    share = tuple(list(self.processes.share(rows_of_member)) for rows_of_member in batch)
                    if share[0] or self._shards:  # the last batch may have fewer rows than there are processes
                        losses += self._backward(share, rows)
        except torch.OutOfMemoryError:
            if self._shards is not None:  # the other processes are in the middle of a batch
                raise TrainingError(
                    f"{self.device} ran out of memory, and a sharded backbone cannot repeat a batch in smaller parts; "
                    + ways_out(self.device, *self._lighter, "a smaller `batch_size` with `accumulate`")
                ) from None
            return None
        return losses

    def _use_smaller_parts(self) -> None:
        """Split batches into smaller parts from now on. The gradient stays the same.

        Raises:
            TrainingError: the current part is already a single row.
        """
        members, rows, longest = len(self._current), len(self._current[0]), self._longest(self._current)
        if rows == 1:
            seeds = ["fewer `seeds`"] if members > 1 else []
            raise TrainingError(
                f"{self.device} has no memory for a row of {longest} tokens; cut texts with `max_length`, "
                + ways_out(self.device, *self._lighter, "`dtype='bfloat16'`", "fewer `virtual_tokens`", *seeds)
            )
        self._part_tokens = members * rows * longest // 2  # less than before, as a part of several rows was within it
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        logger.info(
            "%s ran out of memory; batches are now split into parts of %d tokens", self.device, self._part_tokens
        )

    @property
    def _lighter(self) -> list[str]:
        """What needs less memory and is not used yet."""
        return [] if self.config.gradient_checkpointing else ["`gradient_checkpointing=True`"]

    def _backward(self, batch: Batch, rows: int) -> Tensor:
        """Add the gradients of a batch; return what it contributes to each member's mean loss over `rows` rows, [M].

        The prompts are computed once, however many parts the batch is split into.
        """
        self._current = batch
        outputs = [member.training_prompt() for member in self.members]
        prompts = [prompt.detach().requires_grad_() for prompt in outputs]
        if isinstance(self.objective, PairLoss):
            total = self._compare(batch, prompts, len(batch[0]) / rows)
        else:
            total = torch.zeros(len(self.members), device=self.device)
            # A process without rows still has to help with sharded layers.
            for part in self._split(batch) if batch[0] else []:
                self._current = part
                losses = self._losses(self._outputs(part, prompts), part) * (len(part[0]) / rows)
                losses.sum().backward()
                total += losses.detach()
        if self._shards is not None:
            unused = [prompt.detach().requires_grad_() for prompt in prompts]
            row: Batch = tuple([0] for _ in self.members)
            self._shards.wait_for_others(lambda: self._losses(self._outputs(row, unused), row).sum().backward())
        torch.autograd.backward(outputs, gradients(prompts))
        return total

    def _compare(self, batch: Batch, prompts: Sequence[Tensor], share: float) -> Tensor:
        """Add the gradients of a batch whose rows are all compared; return each member's loss times `share`, [M].

        If the rows have too many tokens for one backward pass, the parts are computed twice: first for the loss and its
        gradient with respect to the vectors, then one by one for the gradient of the prompts (arXiv 2101.06983).
        """
        lengths = self.rows.packed.lengths
        batch = tuple(sorted(rows, key=lambda row: int(lengths[row])) for rows in batch)
        parts = self._parts_of_like_length(batch)
        at_once = sum(map(self._tokens, parts)) <= self._part_tokens
        outputs = []
        with torch.set_grad_enabled(at_once):
            for part in parts:
                self._current = batch if at_once else part
                outputs.append(self._outputs(part, prompts))
            vectors = [torch.cat(own) for own in zip(*outputs, strict=True)]
        if not at_once:
            vectors = [own.requires_grad_() for own in vectors]
        losses = self._losses(vectors, batch) * share
        losses.sum().backward()
        if not at_once:
            sizes = [len(part[0]) for part in parts]
            by_part = zip(*(own.split(sizes) for own in gradients(vectors)), strict=True)
            for part, given in zip(parts, by_part, strict=True):
                self._current = part
                torch.autograd.backward(self._outputs(part, prompts), given)
        return losses.detach()

    def _parts_of_like_length(self, batch: Batch) -> list[Batch]:
        """Split a batch whose rows are sorted by length into parts within the limits of rows and tokens."""
        count = len(batch[0])
        most = COMPARED_ROWS.get(self.device.type, count)
        groups = [tuple(rows[start : start + most] for rows in batch) for start in range(0, count, most)]
        return [part for group in groups for part in self._split(group)]

    def _split(self, batch: Batch) -> list[Batch]:
        """Split a batch into parts of about equal size, each within the limit of tokens, padding included.

        Each part has at least one row of every member.
        """
        count = len(batch[0])
        fitting = max(1, self._part_tokens * count // self._tokens(batch))
        size = math.ceil(count / math.ceil(count / fitting))
        return [tuple(rows[start : start + size] for rows in batch) for start in range(0, count, size)]

    def _longest(self, batch: Batch) -> int:
        """Return the number of tokens of the longest row of a batch."""
        return max(int(self.rows.packed.lengths[rows].max()) for rows in batch)

    def _tokens(self, batch: Batch) -> int:
        """Return the number of tokens of a batch, padding included."""
        return len(batch) * len(batch[0]) * self._longest(batch)

    def _outputs(self, batch: Batch, prompts: Sequence[Tensor]) -> list[Tensor]:
        """Return the logits of each member's rows, or the vectors that are compared, from one pass for all members."""
        all_rows = [row for rows in batch for row in rows]
        inputs = collate(self.rows.packed, all_rows, self.pad_id, self._multiple).to(self.device)
        contrastive = isinstance(self.objective, PairLoss)
        models = [PooledVectors(member.model) if contrastive else member.model for member in self.members]
        owners = [number for number, rows in enumerate(batch) for _ in rows]
        with recomputing(self.config.gradient_checkpointing):
            found = start_logits(models, prompts, owners, inputs, self._forward).result()
        return [found[number] for number in range(len(models))]

    def _losses(self, outputs: Sequence[Tensor], batch: Batch) -> Tensor:
        """Return the mean loss of each member over its rows, [M].

        Args:
            outputs: logits or vectors of each member's rows.
            batch: the rows.
        """
        all_rows = [row for rows in batch for row in rows]
        count = len(self.members)
        labels = moved(self.rows.labels[all_rows], self.device).chunk(count)
        weights: Sequence[Tensor | None] = [None] * count
        if self.rows.weights is not None:
            weights = moved(self.rows.weights[all_rows], self.device).chunk(count)
        return torch.stack([self.objective(outputs[n], labels[n], weights[n]) for n in range(count)])
