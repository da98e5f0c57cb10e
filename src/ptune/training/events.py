"""What a run tells along the way: to functions, and to callbacks (`ptune.training.callbacks`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from ptune.data.encode import TextEncoder
    from ptune.data.metric_table import MetricName
    from ptune.model.ensemble import Model
    from ptune.training.checkpoint import Progress
    from ptune.training.config import SettledConfig

# Called after every step, on a GPU after every few: (rows done in this epoch, rows in it, epoch, its mean loss so far).
OnStep = Callable[[int, int, int, float], None]
# Called after every epoch with its line of the metrics file.
OnEpoch = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class RunInfo:
    """What stays the same during a run.

    config: settled settings. metric: compares epochs and seeds. folder: of the adapter. steps: of the whole run.
    rows: to train on. model: what is kept in the end. optimizer: of the first seed.
    """

    config: SettledConfig
    metric: MetricName
    folder: Path
    steps: int
    rows: int
    model: Model
    encoder: TextEncoder
    optimizer: Optimizer


class Events:
    """What a run tells. Here nobody listens."""

    stop = False  # whether a listener wants no further step

    def begin(self, info: RunInfo, progress: Progress) -> None:
        """The run is about to start, or to go on from a checkpoint."""

    def begin_epoch(self) -> None:
        """An epoch is about to start, or to go on."""

    def end_step(self, progress: Progress, loss: float) -> None:
        """A step was taken; `loss` is its mean over rows."""

    def end_epoch(self, line: dict[str, Any]) -> None:
        """The epoch's steps are taken and it was evaluated; `line` is that of the metrics file."""

    def saved(self) -> None:
        """Adapter and checkpoint are up to date."""

    def end(self, progress: Progress) -> None:
        """The best state is put back and saved."""
