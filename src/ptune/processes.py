"""Several processes that train the same prompts, on the GPUs of one machine or on several machines.

Every process has the whole run: backbone, prompts, optimizer and all rows. It computes its share of each batch. The
gradients are added up over the processes before the step, so that all take the same step, which is the one that a
single process would take. The first process alone writes files and is heard.

Processes are started by `torchrun` or another launcher that sets its variables.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from ptune.errors import PtuneError, TrainingError, cut
from ptune.launched import is_launched

T = TypeVar("T")
P = ParamSpec("P")


def _together(exchange: Callable[P, T]) -> Callable[P, T]:
    """Decorate what all processes do together, so that it says in ptune's words that one of them is gone."""

    @wraps(exchange)
    def exchanged(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return exchange(*args, **kwargs)
        except RuntimeError as err:
            if not dist.is_initialized() or isinstance(err, torch.OutOfMemoryError):
                raise
            raise TrainingError(
                "another process of the run has ended; its message says why. Go on from the last checkpoint with "
                f"`resume=True`. Reported here: {cut(str(err).splitlines()[0], 200)}"
            ) from err

    return exchanged


@contextmanager
def errors_of_first() -> Iterator[None]:
    """End all processes if the block raises an error in the first one, which alone prints it.

    Raises:
        PtuneError: in the first process, the error of the block.
        SystemExit: in the others.
    """
    failed: PtuneError | None = None
    try:
        yield
    except PtuneError as err:
        failed = err
    said = Processes.launched().text_of_first("passed" if failed is None else "failed") if is_launched() else "passed"
    if failed is not None:
        raise failed
    if said == "failed":
        raise SystemExit(2)


@dataclass(frozen=True)
class Processes:
    """The processes of a run, seen from one of them.

    count: number of processes.
    rank: number of this one, from 0.
    """

    count: int = 1
    rank: int = 0

    @classmethod
    def launched(cls) -> Processes:
        """Return the processes that a launcher has started together, after they have found each other.

        Raises:
            TrainingError: they do not find each other.
        """
        if not dist.is_available():
            return cls()
        if not dist.is_initialized():
            if not is_launched():
                return cls()
            try:
                # Decisions of the host are exchanged as CPU tensors, so that it need not wait for the GPU.
                dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
            except (RuntimeError, ValueError) as err:
                raise TrainingError(
                    f"process {os.environ['RANK']} of {os.environ['WORLD_SIZE']} does not find the others at "
                    f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']} ({str(err).splitlines()[0]}); start all "
                    "of them with the same torchrun command"
                ) from err
            atexit.register(dist.destroy_process_group)
        return cls(dist.get_world_size(), dist.get_rank())

    @property
    def first(self) -> bool:
        """True in the process that writes files and reports."""
        return self.rank == 0

    def share(self, rows: Sequence[T]) -> Sequence[T]:
        """Return this process's share of rows: every `count`-th one, so that all shares have rows of all lengths."""
        return rows[self.rank :: self.count]

    @_together
    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors of one device by their sums over all processes, in one exchange."""
        if self.count == 1:
            return
        flat = torch.cat([tensor.detach().flatten().float() for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, total in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(total.view_as(tensor))

    @_together
    def from_first(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by those of the first process."""
        if self.count > 1:
            for tensor in tensors:
                dist.broadcast(tensor.detach(), src=0)

    @_together
    def text_of_first(self, text: str) -> str:
        """Return the text that the first process has."""
        if self.count == 1:
            return text
        length = torch.tensor([len(text.encode())])
        dist.broadcast(length, src=0)
        content = torch.zeros(int(length), dtype=torch.uint8)
        if self.first:
            content.copy_(torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8))
        dist.broadcast(content, src=0)
        return bytes(content.tolist()).decode()

    @_together
    def any(self, flag: bool) -> bool:
        """Return whether the flag is set in any process. All processes have to ask."""
        if self.count == 1:
            return flag
        flags = torch.tensor([int(flag)])
        dist.all_reduce(flags)
        return bool(flags)

    @_together
    def join(self, shares: Tensor, total: int) -> Tensor:
        """Return the results of all rows [M, N, ...], joined from those of each process's share.

        Args:
            shares: [M, N_r, ...], the results of this process's share, on the CPU.
            total: N, the number of all rows.
        """
        if self.count == 1:
            return shares
        padded = shares.new_zeros(shares.shape[0], -(-total // self.count), *shares.shape[2:])
        padded[:, : shares.shape[1]] = shares
        parts = [torch.empty_like(padded) for _ in range(self.count)]
        dist.all_gather(parts, padded)
        # Row n is the n // count-th row of process n % count.
        return torch.stack(parts, dim=2).flatten(1, 2)[:, :total]

    @_together
    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.count > 1:
            dist.barrier()


def gradients(parameters: Iterable[Tensor]) -> list[Tensor]:
    """Return the gradients of tensors; one that has none, as its process had no row, gets zeros."""
    found = []
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        found.append(parameter.grad)
    return found
