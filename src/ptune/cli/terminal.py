"""What commands print, and where: answers on stdout, everything else on stderr."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ptune.cli.options import SETTINGS
from ptune.cli.spelling import option, spell
from ptune.errors import describe_problems

if TYPE_CHECKING:
    from cyclopts import CycloptsError

    from ptune.training.events import OnStep


class Terminal:
    """Prints for people, or for programs: with `as_json` stdout carries the JSON line alone."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json

    def say(self, text: str = "") -> None:
        """A line for people."""
        print(text, file=sys.stderr if self.as_json else sys.stdout, flush=True)

    def answer(self, content: Mapping[str, Any]) -> None:
        """The one JSON object; printed only with `as_json`."""
        if self.as_json:
            print(json.dumps(content, ensure_ascii=False, default=str), flush=True)

    def table(self, rows: Sequence[Sequence[str]]) -> None:
        """Columns under each other, the first flush left, the others right."""
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for row in rows:
            cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
            self.say("  ".join(["  " + row[0].ljust(widths[0]), *cells]).rstrip())


@contextmanager
def progress_bar(epochs: int, enabled: bool = True) -> Iterator[OnStep]:
    """A bar of each epoch on stderr; without a terminal there, nothing is drawn."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    enabled = enabled and console.is_terminal  # rich ends even a bar that it never drew with an empty line
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns, TextColumn("loss {task.fields[loss]:.3f}"), console=console, disable=not enabled, transient=True
    ) as bar:
        task = bar.add_task("", total=None, loss=float("nan"))

        def on_step(done: int, total: int, epoch: int, loss: float) -> None:
            bar.update(task, description=f"epoch {epoch}/{epochs}", completed=done, total=total, loss=loss)

        yield on_step


def log_to_stderr() -> None:
    """Send the library's warnings and notes to stderr, a line each."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Format())
    logger = logging.getLogger("ptune")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False


class _Format(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        return f"ptune: {level}{spell(record.getMessage(), SETTINGS)}"


def wrong_values(err: CycloptsError) -> str:
    """Return every wrong value of a command line in one sentence, from the settings models behind it."""
    cause = err.__cause__
    return describe_problems(cause, option) if isinstance(cause, ValidationError) else str(err)
