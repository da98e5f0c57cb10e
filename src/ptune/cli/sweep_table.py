"""The trials of a sweep while it runs: a live table on a terminal, and elsewhere a line for each that ends."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ptune.cli.terminal import Terminal, one_line
from ptune.errors import cut

if TYPE_CHECKING:
    from rich.table import Table

    from ptune.scale.sweep_trials import Trial

# Rows of the live table: the trials that run, then the best of the others.
_MOST_ROWS = 15


@contextmanager
def show_trials(terminal: Terminal, metric: str, count: int) -> Iterator[Callable[[Sequence[Trial]], None]]:
    """Show the trials of a sweep.

    Args:
        terminal: where lines go.
        metric: what is compared.
        count: number of trials.

    Yields:
        The function to call with all trials so far.
    """
    if not sys.stdout.isatty() or terminal.as_json:
        yield _Lines(terminal, metric, count).show
        return
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(), auto_refresh=False) as live:

        def show(trials: Sequence[Trial]) -> None:
            live.update(trials_table(trials, metric, count), refresh=True)

        yield show


class _Lines:
    """Prints a line for each trial when it ends."""

    def __init__(self, terminal: Terminal, metric: str, count: int) -> None:
        self.terminal = terminal
        self.metric = metric
        self.count = count
        self._shown: set[int] = set()

    def show(self, trials: Sequence[Trial]) -> None:
        for trial in trials:
            if trial.done and trial.number not in self._shown:
                self._shown.add(trial.number)
                self.terminal.say(
                    f"trial {trial.number} ({len(self._shown)} of {self.count}) {trial.state}: "
                    f"{trial.error or _result(trial, self.metric)}, {trial.seconds:.0f} s; {describe_values(trial)}"
                )


def trials_table(trials: Sequence[Trial], metric: str, count: int) -> Table:
    """Return the table for a terminal: the trials that run, and the best of the others.

    Args:
        trials: all trials so far.
        metric: what is compared.
        count: number of trials that there will be.
    """
    from rich.table import Table
    from rich.text import Text

    from ptune.data.metric_table import less_is_better

    sign = -1 if less_is_better(metric) else 1
    done = [trial for trial in trials if trial.done]
    ranked = sorted(done, key=lambda trial: -sign * (trial.value if trial.value is not None else -sign * 1e300))
    running = [trial for trial in trials if trial.state == "running"]
    table = Table(title=f"{len(done)} of {count} trials", title_justify="left")
    names = list(trials[0].values) if trials else []
    for name in ("trial", "state", "epochs", metric, *names):
        table.add_column(Text(name))
    for trial in [*running, *ranked][:_MOST_ROWS]:
        value = trial.value if trial.done else (trial.history[-1] if trial.history else None)
        cells = [str(trial.number), trial.state, str(len(trial.history)), "" if value is None else f"{value:.4f}"]
        cells += [cut(_shown(trial.values[name]), 30) for name in names]
        table.add_row(*(Text(one_line(cell)) for cell in cells), style="bold" if trial in ranked[:1] else None)
    return table


def _result(trial: Trial, metric: str) -> str:
    return f"{metric} {trial.value:.4f} in epoch {trial.best_epoch} of {len(trial.history)}"


def describe_values(trial: Trial) -> str:
    """Return the settings of a trial in one line."""
    return ", ".join(f"{name} {_shown(value)}" for name, value in trial.values.items())


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
