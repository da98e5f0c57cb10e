"""Progress with the time left: a bar on a terminal, and elsewhere a line on stderr every half a minute."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ptune.durations import in_words

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from ptune.training.events import OnFold, OnStep

# Seconds until a bar appears, between its updates, and between lines.
BAR_AFTER, BAR_EVERY, LINE_EVERY = 1.0, 0.1, 30.0


class Progress:
    """The progress of one task.

    Args:
        most: True if the task may end before all is done, so that the time left is an upper bound.
        bar: False to show nothing on a terminal, for instance because results are printed there.
    """

    def __init__(self, most: bool = False, bar: bool = True) -> None:
        self.most = most
        self._on_terminal = sys.stderr.isatty()
        self._hidden = self._on_terminal and not bar
        self._bar: Bar | None = None
        self.begin(0)

    def begin(self, done: int) -> None:
        """Measure the speed from here on. A resumed run begins with what it has done already."""
        self._started, self._first = time.monotonic(), done
        self._due = self._started + (BAR_AFTER if self._on_terminal else LINE_EVERY)

    def is_due(self) -> bool:
        """Return whether it is time to call `show`."""
        return not self._hidden and time.monotonic() >= self._due

    def show(self, done: int, total: int | None, text: str) -> None:
        """Show how far the task has come.

        Args:
            done: how much is done.
            total: how much there is; None if that is not known.
            text: what is being done.
        """
        now = time.monotonic()
        left = self._time_left(done, total, now)
        if self._on_terminal:
            self._due = now + BAR_EVERY
            self._bar = self._bar or _start_bar()
            self._bar.update(self._bar.task_ids[0], completed=done, total=total, description=text, left=left)
        else:
            self._due = now + LINE_EVERY
            share = f", {done / total:.0%}" if total else ""
            print(f"ptune: {text}{share}{left and ', '}{left}", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()

    def _time_left(self, done: int, total: int | None, now: float) -> str:
        if total is None or done <= self._first:
            return ""
        seconds = (now - self._started) / (done - self._first) * (total - done)
        return f"{'at most ' if self.most else ''}{in_words(max(1, round(seconds)))} left"


@contextmanager
def training_progress(epochs: int) -> Iterator[OnStep]:
    """Show the progress of a whole training run.

    Yields:
        The function to call after each step.
    """
    progress = Progress(most=True)  # a run may stop early
    begun = False

    def on_step(done: int, total: int, epoch: int, loss: float) -> None:
        nonlocal begun
        all_done, all_rows = (epoch - 1) * total + done, epochs * total
        if not begun:
            progress.begin(all_done)
            begun = True
        elif progress.is_due():
            progress.show(all_done, all_rows, f"epoch {epoch}/{epochs}, loss {loss:.3f}")

    try:
        yield on_step
    finally:
        progress.end()


@contextmanager
def folds_progress(folds: int | None) -> Iterator[OnFold]:
    """Show the progress of a cross-validation, if there is one.

    Yields:
        The function to call with the number of the fold, from 1, and the share of it that is done.
    """
    count = folds or 1
    progress = Progress()
    begun = False

    def on_fold(number: int, share: float) -> None:
        nonlocal begun
        done = round((number - 1 + share) / count * 1000)
        if not begun:
            progress.begin(done)
            begun = True
        if done >= 1000:
            progress.end()
        elif progress.is_due():
            progress.show(done, 1000, f"cross-validation, fold {number} of {count}")

    try:
        yield on_fold
    finally:
        progress.end()


@contextmanager
def rows_progress(count: Callable[[], int | None], bar: bool) -> Iterator[Callable[[int], None]]:
    """Show the progress of a task over the rows of a file.

    Args:
        count: returns the number of rows. It is called once, when the task turns out to take a while.
        bar: see `Progress`.

    Yields:
        The function to call after each row with the number of rows so far.
    """
    progress = Progress(bar=bar)
    total: list[int | None] = []

    def on_row(rows: int) -> None:
        if progress.is_due():
            if not total:
                total.append(count())
            progress.show(rows, total[0], f"{rows:,} {f'of {total[0]:,} ' if total[0] else ''}rows")

    try:
        yield on_row
    finally:
        progress.end()


def _start_bar() -> Bar:
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[left]}"))
    # Lines for a terminal go above the bar. A file or a pipe must get its lines, which rich would print on stderr.
    to_terminal = sys.stdout.isatty()
    bar = Bar(*columns, console=Console(stderr=True), transient=True, redirect_stdout=to_terminal)
    bar.add_task("", total=None, left="")
    bar.start()
    return bar
