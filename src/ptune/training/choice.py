"""Which epoch is kept, and when a run has seen enough of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ptune.training.checkpoint import Progress
from ptune.training.config import SettledConfig
from ptune.training.defaults import default_patience


def values_before(metric: str, ensemble: bool, history: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return the metric in the epoch before, of each prompt or of the ensemble; nothing for the first epoch.

    After an epoch that lost what was learned, the epoch before is the best one, from which training went on.

    Args:
        metric: its name.
        ensemble: whether all prompts together are kept.
        history: the lines of the epochs before.
    """
    if not history:
        return []
    before = history[-1]
    if before.get("lost"):
        before = [line for line in history if line["best"]][-1]
    if "by_seed" in before and not ensemble:
        return list(before["by_seed"].values())
    return [before[metric]]


def out_of_patience(config: SettledConfig, progress: Progress) -> bool:
    """Return whether too many epochs have brought no improvement.

    The default patience counts from the first epoch that is better than chance: some tasks take several epochs to get
    there. It starts from the beginning when training goes back to the best epoch.
    """
    done, best = progress.epoch - 1, progress.best_epoch
    if config.patience is not None:
        return 0 < config.patience <= done - best
    learned = [line["epoch"] for line in progress.history if not line["chance"]]
    if config.best == "last" or not learned:
        return False
    lost = [line["epoch"] for line in progress.history if line.get("lost")]
    return done - max(best, learned[0], *lost) >= default_patience(config.epochs)
