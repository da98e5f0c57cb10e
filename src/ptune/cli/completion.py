"""ptune completion"""

from __future__ import annotations

from typing import Literal


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
    from ptune.cli import make_app

    print(make_app().generate_completion(shell=shell))
