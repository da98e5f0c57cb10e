"""Options whose value is any text, also one that looks like an option: `--text "-5 degrees"`, `--text --help`.

The parser of the command line takes what begins with a dash for an option, and finds `--help` wherever it stands. A
value that is joined to its option by an equals sign is always a value, so these options are joined before parsing.
"""

from __future__ import annotations

from collections.abc import Sequence

# For each command, the options that take the next argument as it is.
FREE_TEXT = {
    "check": ("--label-separator",),
    "train": ("--template", "--init-text", "--label-separator"),
    "compare": ("--label-separator",),
    "evaluate": ("--label-separator",),
    "predict": ("--text", "--text-pair"),
    "explain": ("--text", "--text-pair"),
    "push": ("--message",),
}


def join_texts(tokens: Sequence[str]) -> list[str]:
    """Return the arguments of a command line with free texts joined to their options: `--text=-5 degrees`."""
    options = FREE_TEXT.get(tokens[0], ()) if tokens else ()
    joined: list[str] = []
    following = iter(tokens)
    for token in following:
        if token == "--":  # only positional arguments from here on
            return [*joined, token, *following]
        value = next(following, None) if token in options else None
        joined.append(token if value is None else f"{token}={value}")
    return joined
