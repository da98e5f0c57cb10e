"""Which epoch is kept, and when a run has seen enough of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ptune.training.checkpoint import Progress
from ptune.training.config import SettledConfig
from ptune.training.defaults import default_patience
from ptune.training.validation import Validation


def sort_key(validation: Validation, metrics: dict[str, float], history: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return the sort key of an epoch: its metric, averaged with that of the epoch before, then the lower loss.

    A single epoch is often better by luck. Weights and metrics of neighbouring epochs are close, so their mean says
    more about other rows. A loss needs no averaging. After an epoch that lost what was learned, the epoch before is the
    best one, from which training went on.

    Args:
        validation: knows the metric.
        metrics: of the epoch.
        history: the lines of the epochs before.
    """
    metric = validation.metric
    if metric != "loss" and history:
        before = history[-1]
        if before.get("lost"):
            before = [line for line in history if line["best"]][-1]
        metrics = {**metrics, metric: (metrics[metric] + before[metric]) / 2}
    return list(validation.rank(metrics))


def out_of_patience(config: SettledConfig, progress: Progress) -> bool:
    """Return whether too many epochs have brought no improvement.

    The default patience counts from the first epoch that is better than chance: some tasks take several epochs to get
    there. It begins anew when training goes back to the best epoch.
    """
    done, best = progress.epoch - 1, progress.best_epoch
    if config.patience is not None:
        return 0 < config.patience <= done - best
    learned = [line["epoch"] for line in progress.history if not line["chance"]]
    if config.best == "last" or not learned:
        return False
    lost = [line["epoch"] for line in progress.history if line.get("lost")]
    return done - max(best, learned[0], *lost) >= default_patience(config.epochs)
