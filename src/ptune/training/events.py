"""The events of a run, for functions and for callbacks (`ptune.training.callbacks`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from ptune.data.encode import TextEncoder
    from ptune.model.ensemble import Model
    from ptune.training.checkpoint import Progress
    from ptune.training.config import SettledConfig

# Called after every step, or after every few steps on a GPU, with the rows of the epoch so far, the rows of a whole
# epoch, the number of the epoch, and its mean loss so far.
OnStep = Callable[[int, int, int, float], None]
# Called after every epoch with the epoch's line of the metrics file.
OnEpoch = Callable[[dict[str, Any]], None]
# Called after steps of a cross-validation, with the number of the fold, from 1, and the share of it that is done.
OnFold = Callable[[int, float], None]


@dataclass(frozen=True)
class RunInfo:
    """Facts that stay the same during a run.

    config: the settled settings.
    metric: the metric that compares epochs and seeds.
    folder: the adapter's folder.
    steps: optimizer steps in the whole run.
    rows: number of training rows.
    model: the model that is kept at the end.
    encoder: turns texts into token ids.
    optimizer: the optimizer of the first seed.
    """

    config: SettledConfig
    metric: str
    folder: Path
    steps: int
    rows: int
    model: Model
    encoder: TextEncoder
    optimizer: Optimizer


class Events:
    """A listener to a run. This base class ignores every event."""

    stop = False  # True ends the run after the current step

    def begin(self, info: RunInfo, progress: Progress) -> None:
        """Handle the start of a run, or its continuation from a checkpoint."""

    def begin_epoch(self) -> None:
        """Handle the start of an epoch, or its continuation."""

    def end_step(self, progress: Progress, loss: float) -> None:
        """Handle the end of a step; `loss` is the mean over its rows."""

    def end_epoch(self, line: dict[str, Any]) -> None:
        """Handle the end of an epoch after its evaluation; `line` is its line of the metrics file."""

    def saved(self) -> None:
        """Handle a save: adapter and checkpoint are up to date."""

    def end(self, progress: Progress) -> None:
        """Handle the end of the run: the best state is restored and saved."""


@dataclass(frozen=True)
class Listeners:
    """Who hears of a run.

    on_step: called after each step.
    on_epoch: called after each epoch.
    events: the listener for callbacks.
    """

    on_step: OnStep | None = None
    on_epoch: OnEpoch | None = None
    events: Events = field(default_factory=Events)
