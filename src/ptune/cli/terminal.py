"""Output of the commands: results on stdout, warnings on stderr."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from cyclopts import CycloptsError, MissingArgumentError, UnknownOptionError, UnusedCliTokensError
from pydantic import ValidationError

from ptune.cli.options import SETTINGS
from ptune.cli.spelling import option, spell
from ptune.errors import cut, describe_problems, printable
from ptune.launched import is_first

if TYPE_CHECKING:
    from ptune.model.backbone import Backbone


# cyclopts' message, with the option that may be meant.
_UNKNOWN_OPTION = re.compile(r'^Unknown option: "?([^\s"]+?)"?\.(?: Did you mean "?([^\s"]+?)"?\?)?.*$')


class Terminal:
    """Output for people or for programs.

    Args:
        as_json: print only the JSON answer on stdout, and text for people on stderr.
    """

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.silent = not is_first()  # one of several processes of a run is enough

    def say(self, text: str = "") -> None:
        """Print a line for people.

        Labels and names may come from files of others. Characters that would control the terminal become escapes.
        """
        if not self.silent:
            print(one_line(text), file=sys.stderr if self.as_json else sys.stdout, flush=True)

    def answer(self, content: Mapping[str, Any]) -> None:
        """Print the result as one line of JSON, if `as_json` is set."""
        if self.as_json and not self.silent:
            from ptune.data.writers import to_json

            print(printable(to_json(content)), flush=True)

    def table(self, rows: Sequence[Sequence[str]]) -> None:
        """Print rows as a table for people, with the first column aligned left and the others right."""
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for row in rows:
            cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
            self.say("  ".join(["  " + row[0].ljust(widths[0]), *cells]).rstrip())


def type_and_device(backbone: Backbone) -> str:
    """Return in which number type and where a backbone runs, such as 'bfloat16 on cpu'."""
    return f"{backbone.dtype_name} on {backbone.device}"


def one_line(text: str) -> str:
    """Return a text whose line breaks and other control characters are escaped."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def log_to_stderr() -> None:
    """Send the library's log messages to stderr, one line each."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Format())
    logger = logging.getLogger("ptune")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO if is_first() else logging.ERROR)
    logger.propagate = False


class _Format(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        return f"ptune: {level}{one_line(cut(spell(record.getMessage(), SETTINGS)))}"


def wrong_values(err: CycloptsError) -> str:
    """Return one sentence that names all wrong values of a command line, as the settings models found them."""
    cause = err.__cause__
    return spell(describe_problems(cause, option), SETTINGS) if isinstance(cause, ValidationError) else str(err)


def wrong_usage(err: CycloptsError) -> str:
    """Return one sentence about a command line whose words do not fit the command."""
    command = " ".join(["ptune", *(err.command_chain or ())])
    if isinstance(err, UnusedCliTokensError):
        left = ", ".join(err.unused_tokens or ())
        quotes = "; put a text with spaces in quotes" if command in ("ptune predict", "ptune explain") else ""
        return f"{command} does not know what to do with: {left}{quotes or f'; `{command} --help` lists its options'}"
    if isinstance(err, UnknownOptionError):
        return _UNKNOWN_OPTION.sub(_no_option, str(err))
    if type(err) is not MissingArgumentError or err.argument is None:
        return str(err)
    given = err.keyword or next((token.keyword for token in err.argument.tokens if token.keyword), None)
    if given is not None:
        return f"{given} needs a value; `{command} --help` says which"
    mistyped = get_close_matches(
        err.argument.name, [token for token in err.unused_tokens or () if token[:2] == "--"], 1
    )
    if mistyped:
        return f"there is no option {mistyped[0]}; did you mean {err.argument.name}?"
    tokens = err.root_input_tokens or ()
    without_folder = not any(token.split("=")[0] == "--output" for token in tokens)
    if command == "ptune train" and "--resume" in tokens and without_folder:
        return "--output is missing; name the folder of the run: --resume --output FOLDER"
    stray = [token for token in err.unused_tokens or () if not token.startswith("-")]
    if stray and err.argument.name.startswith("--"):
        return f"{command} takes no argument '{stray[0]}'; everything is given by options, such as --data FILE"
    return f"{err.argument.name} is missing; `{command} --help` says what it is"


def _no_option(match: re.Match[str]) -> str:
    meant = f"; did you mean {match[2]}?" if match[2] else ""
    return f"there is no option {match[1]}{meant}"


def unknown_error(err: Exception) -> str:
    """Return one sentence about an error that another library raised, or ptune by mistake."""
    line = cut(next(iter(str(err).strip().splitlines()), "").rstrip("."), 300)
    shown = f"{type(err).__name__}: {line}" if line else type(err).__name__
    if isinstance(err, MemoryError) or type(err).__name__ == "OutOfMemoryError":  # the latter is torch's
        return f"there is not enough memory ({shown}); use smaller batches or a smaller backbone"
    if isinstance(err, ImportError):
        return f"a library is missing or does not go with the others: {shown}; install what it names"
    return f"{shown}. This should not happen; to see where it does, set PTUNE_TRACEBACK=1 and run the command again"
