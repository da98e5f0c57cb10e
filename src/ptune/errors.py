"""The exceptions of ptune, one tree.

    PtuneError
    ├── ConfigError      a setting is wrong
    ├── DataError        a data file or a row cannot be used: names the file and the row
    ├── BackboneError    the pretrained model is missing, not supported or incomplete
    ├── AdapterError     an adapter folder is missing, damaged or for another backbone
    ├── TrainingError    a run cannot go on, for instance because the loss is not a number
    ├── OutputError      something cannot be written: no permission, disk full
    └── HubError         something cannot be published on the Hub: no token, no network

Every message names the thing and its value, says what was expected, and what to do about it.

A setting that a message mentions stands in backticks, as Python spells it: `max_length`, `method='deep'`. The library
knows no other spelling. The command line shows such a setting as its own option, `--max-length`, `--method deep`
(`ptune.cli.spelling`), prints the message alone and exits with 2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError

# Parts of pydantic's paths that are no fields: members of a union.
_KINDS = ("str", "int", "float", "bool", "list", "dict", "tuple", "none")


class PtuneError(Exception):
    """Base of everything that ptune raises on purpose.

    Args:
        message: for people.
        field: name of the setting, column or key that is wrong, where one is.
        value: what it was.
        expected: what it may be, in words.
    """

    def __init__(
        self, message: str, *, field: str | None = None, value: Any = None, expected: str | None = None
    ) -> None:
        super().__init__(message)
        self.field = field
        self.value = value
        self.expected = expected


class ConfigError(PtuneError, ValueError):
    """A setting is wrong, or does not go with another one."""


class DataError(PtuneError, ValueError):
    """A data file, or a row of it, cannot be used."""


class BackboneError(PtuneError):
    """A backbone is missing, unsupported or incomplete."""


class AdapterError(PtuneError):
    """An adapter folder is missing, damaged, or belongs to another backbone."""


class TrainingError(PtuneError):
    """A training run cannot go on."""


class OutputError(PtuneError, OSError):
    """A file cannot be written. What stood there before is still whole."""


class HubError(PtuneError):
    """An adapter cannot be published on the Hub."""


def describe_problems(err: ValidationError, spell: Callable[[str], str] = str) -> str:
    """Return every problem that pydantic found as one sentence: 'epochs: ... (given: 0); lr: ...'.

    Args:
        spell: how a field's path, such as 'epochs' or 'prompt.method', is shown.
    """
    sentences = []
    for problem in err.errors():
        name = ".".join(str(part) for part in problem["loc"] if _is_key(part))
        reason = problem["msg"].removeprefix("Value error, ")
        given = f" (given: {_short(problem['input'])})" if name else ""
        sentences.append((f"{spell(name)}: " if name else "") + reason + given)
    return "; ".join(sentences)


def _is_key(part: str | int) -> bool:
    """Return whether a part of a path is a field or an index, and not the kind of value that pydantic tried."""
    return isinstance(part, int) or (part.isidentifier() and part not in _KINDS)


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 200 else f"{shown[:200]}…"
