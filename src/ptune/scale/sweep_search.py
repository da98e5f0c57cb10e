"""The search of a sweep: which trial is next, which are stopped, which is the best.

Optuna chooses the values. A trial's random numbers depend on its own number alone, so a sweep that is resumed goes on
as it would have. What is known of each trial is in its folder, so nothing else is needed to resume.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ptune.adapter.export import copy_adapter
from ptune.adapter.folder import read_adapter
from ptune.data.metric_table import less_is_better
from ptune.scale.sweep_settings import SweepSettings
from ptune.scale.sweep_trials import Task, Trial, read_trials

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler

BEST_FOLDER = "best"
# A trial whose worker was lost so often fails: it is probably the reason.
MOST_LOSSES = 3
# Keeps the seeds of neighbouring sweeps apart.
_SEED_STEP = 1_000_003


class Search:
    """The state of a sweep. Workers ask it for trials and report to it.

    Args:
        settings: how to search.
        task: what all trials share. Trials that are in its folder already count.
    """

    def __init__(self, settings: SweepSettings, task: Task) -> None:
        self.settings = settings
        self.task = task
        self.trials: list[Trial] = []
        self.study = new_study(settings, task.metric)
        self._asked: dict[int, Any] = {}  # Optuna's trials, by number
        known = {trial.number: trial for trial in read_trials(task.output)}
        for number in range(max(known, default=-1) + 1):
            if number in known:
                self._ask(number, self._drawn(known[number]))
                self._replay(known[number])
            self.trials.append(known.get(number) or self._new_trial())  # somebody may have deleted a trial's folder

    def next(self, worker: str) -> Trial | None:
        """Return a trial to run: one that waits, or a new one; None if there is nothing left to begin.

        Args:
            worker: the name of the worker that asks.
        """
        trial = next((trial for trial in self.trials if trial.state == "waiting"), None)
        if trial is None:
            if len(self.trials) >= self.settings.count:
                return None
            trial = self._new_trial()
            self.trials.append(trial)
        trial.state, trial.worker = "running", worker
        trial.write(self.task.output)
        return trial

    def report(self, number: int, line: dict[str, Any]) -> bool:
        """Note the metrics of an epoch, and return whether the trial has fallen behind.

        Args:
            number: the trial's number.
            line: the epoch's line of the metrics file.
        """
        trial, value = self.trials[number], line[self.task.metric]
        if line["epoch"] <= len(trial.history):
            return False  # a resumed trial repeats an epoch that was known
        trial.history.append(value)
        return self._fallen_behind(number, line["epoch"], value)

    def finish(self, trial: Trial) -> None:
        """Note what came of a trial, and keep its adapter if it is the best so far."""
        if self.trials[trial.number].done:  # by a worker that was taken for lost
            return
        trial.history, trial.worker = self.trials[trial.number].history, None
        self.trials[trial.number] = trial
        self._tell(trial)
        if self.best() is trial:  # before the trial is noted as done, so that a sweep that is resumed has it too
            copy_adapter(read_adapter(trial.folder(self.task.output)), self.task.output / BEST_FOLDER)
        trial.write(self.task.output)

    def lose(self, worker: str) -> bool:
        """Let the trial of a worker that is gone wait for another one. Return whether it had one."""
        lost = [trial for trial in self.trials if trial.worker == worker and trial.state == "running"]
        for trial in lost:
            trial.losses += 1
            trial.state, trial.worker = "waiting", None
            if trial.losses >= MOST_LOSSES:
                trial.state, trial.error = "failed", f"its worker was lost {MOST_LOSSES} times, perhaps for memory"
                self._tell(trial)
            trial.write(self.task.output)
        return bool(lost)

    def snapshot(self) -> list[Trial]:
        """Return all trials so far, in order."""
        return self.trials

    def best(self) -> Trial | None:
        """Return the best trial so far; None if none has a result."""
        return best_trial(self.trials, self.task.metric)

    def _new_trial(self) -> Trial:
        number = len(self.trials)
        drawn = None
        if self.settings.search == "grid":
            drawn = self.settings.combination(number)
        drawn = self._ask(number, drawn)
        return Trial(number, {name: space.value(drawn[name]) for name, space in self.settings.space.items()})

    def _ask(self, number: int, drawn: dict[str, Any] | None) -> dict[str, Any]:
        """Begin a trial in Optuna, with values that are given or that it chooses, and return them."""
        self.study.sampler = new_sampler(self.settings, number)
        if drawn is not None:
            self.study.enqueue_trial(drawn)
        # Values are drawn one after another, so they would depend on the order in which the settings are listed.
        space = {name: dimension.distribution() for name, dimension in sorted(self.settings.space.items())}
        self._asked[number] = self.study.ask(space)
        return self._asked[number].params

    def _drawn(self, trial: Trial) -> dict[str, Any]:
        return {name: space.drawn(trial.values[name]) for name, space in self.settings.space.items()}

    def _replay(self, trial: Trial) -> None:
        """Tell Optuna what is known of a trial from before."""
        for epoch, value in enumerate(trial.history, 1):
            self._fallen_behind(trial.number, epoch, value)
        if trial.done:
            self._tell(trial)

    def _fallen_behind(self, number: int, epoch: int, value: float) -> bool:
        self._asked[number].report(value, epoch)
        return bool(self._asked[number].should_prune())

    def _tell(self, trial: Trial) -> None:
        from optuna.trial import TrialState

        states = {"finished": TrialState.COMPLETE, "stopped": TrialState.PRUNED, "failed": TrialState.FAIL}
        value = trial.value if trial.state == "finished" else None
        self.study.tell(self._asked[trial.number], value, state=states[trial.state])


def best_trial(trials: Sequence[Trial], metric: str) -> Trial | None:
    """Return the trial with the best value of a metric; the lower loss decides a tie. None if none has a result."""
    sign = -1 if less_is_better(metric) else 1
    ranked = [trial for trial in trials if trial.done and trial.value is not None]
    return max(ranked, key=lambda trial: (sign * trial.value, -trial.metrics["loss"]), default=None)  # type: ignore[operator]


def new_study(settings: SweepSettings, metric: str) -> Study:
    """Return Optuna's study, in memory."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
    if settings.asha is not None:
        pruner = optuna.pruners.SuccessiveHalvingPruner(settings.asha.min_epochs, settings.asha.reduction)
    return optuna.create_study(direction="minimize" if less_is_better(metric) else "maximize", pruner=pruner)


def new_sampler(settings: SweepSettings, number: int) -> BaseSampler:
    """Return what chooses the values of a trial."""
    from optuna.samplers import RandomSampler, TPESampler

    seed = (settings.seed * _SEED_STEP + number) % 2**32
    # Trials that still run count as bad ones, so that workers do not all try the same.
    return TPESampler(seed=seed, constant_liar=True) if settings.search == "tpe" else RandomSampler(seed=seed)
