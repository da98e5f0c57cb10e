"""The exceptions of ptune, one tree.

    PtuneError
    ├── ConfigError      a setting is wrong
    ├── DataError        a data file or a row cannot be used: names the file and the row
    ├── BackboneError    the pretrained model is missing, not supported or incomplete
    ├── AdapterError     an adapter folder is missing, damaged or for another backbone
    ├── TrainingError    a run cannot go on, for instance because the loss is not a number
    ├── OutputError      something cannot be written: no permission, disk full
    ├── HubError         something cannot be published on the Hub: no token, no network
    └── RequestError     a request to the server cannot be answered: has an HTTP status

Every message names the thing and its value, says what was expected, and what to do about it.

A setting that a message mentions stands in backticks, as Python spells it: `max_length`, `method='deep'`. The library
knows no other spelling. The command line shows such a setting as its own option, `--max-length`, `--method deep`
(`ptune.cli.spelling`), prints the message alone and exits with 2.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError

# What pydantic says, and how ptune says it.
_PYDANTIC = [
    (re.compile(pattern), words)
    for pattern, words in (
        ("^Input should be ", "expected "),
        (", (unable to parse|got a number|but was not|unable to interpret).*$", ""),
        (
            r"^expected a valid dictionary or (instance of \w+|object to extract fields from)",
            "expected settings by name",
        ),
        ("^expected a valid integer", "expected a whole number"),
        ("^expected a valid ", "expected a "),
        ("^expected a boolean", "expected true or false"),
        ("^expected greater than or equal to (.*)$", r"expected \1 or more"),
        ("^expected less than or equal to (.*)$", r"expected \1 or less"),
        ("^expected greater than ", "expected more than "),
        ("^Extra inputs are not permitted$", "there is no such key"),
        ("^Field required$", "it is missing"),
    )
]
# Parts of pydantic's paths that are not fields: members of a union.
_KINDS = ("str", "int", "float", "bool", "list", "dict", "tuple", "none")
# Longest message in characters. Values inside a message are cut much earlier.
LONGEST_MESSAGE = 10_000
# Most problems of one configuration that a message lists.
_MOST_PROBLEMS = 10
# Characters that control a terminal or hide text: control characters but tab and line break, marks of the writing
# direction, and halves of surrogate pairs.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Return a text with the characters that control a terminal as escapes, such as \\u001b.

    In JSON, an escape means the same as the character.
    """
    return _CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def cut(text: str, most: int = LONGEST_MESSAGE) -> str:
    """Return a text, or its first `most` characters and an ellipsis."""
    return text if len(text) <= most else f"{text[:most]}…"


def short(value: Any, most: int = 200) -> str:
    """Return how Python shows a value, cut to `most` characters. A value of a file can be as long as the file."""
    return cut(repr(value), most)


class PtuneError(Exception):
    """Base of everything that ptune raises on purpose.

    Args:
        message: for people. A message that is very long is cut, and characters that control a terminal are escaped,
            because names and values often come from files of others.
        field: name of the setting, column or key that is wrong, where one is.
        value: what it was.
        expected: what it may be, in words.
    """

    def __init__(
        self, message: str, *, field: str | None = None, value: Any = None, expected: str | None = None
    ) -> None:
        super().__init__(printable(cut(message)))
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
    """A file cannot be written. Files that were there are unchanged."""


class HubError(PtuneError):
    """An adapter cannot be published on the Hub."""


class RequestError(PtuneError):
    """A request to the server cannot be answered.

    Args:
        message: what is wrong and what to do.
        status: HTTP status of the answer.
        kind: name of the error in the protocol of Text Embeddings Inference. Default: what goes with the status.
        field: the key of the request that is wrong.
        retry_after: seconds after which the client may try again.
    """

    def __init__(
        self,
        message: str,
        status: int = 422,
        *,
        kind: str | None = None,
        field: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message, field=field)
        self.status = status
        self.kind = kind
        self.retry_after = retry_after


def describe_problems(err: ValidationError, spell: Callable[[str], str] = str, secret: bool = False) -> str:
    """Return every problem that pydantic found as one sentence: 'epochs: ... (given: 0); lr: ...'.

    Args:
        spell: how a field's path, such as 'epochs' or 'prompt.method', is shown.
        secret: leave out what was given.
    """
    sentences = []
    problems = err.errors(include_url=False)
    for problem in problems[:_MOST_PROBLEMS]:
        name = ".".join(str(part) for part in problem["loc"] if _is_key(part))
        reason = cut(_reason(problem["msg"].removeprefix("Value error, ")), 1000)
        given = f" (given: {short(problem['input'])})" if name and not secret else ""
        sentences.append((f"{cut(spell(name), 200)}: " if name else "") + reason + given)
    if len(problems) > _MOST_PROBLEMS:
        sentences.append(f"and {len(problems) - _MOST_PROBLEMS} more problems")
    return "; ".join(sentences)


def _reason(message: str) -> str:
    """Return pydantic's message in the words of ptune's own: 'expected 1 or more'."""
    for pattern, words in _PYDANTIC:
        message = pattern.sub(words, message)
    return message


def _is_key(part: str | int) -> bool:
    """Return whether a part of a path is a field or an index, and not the kind of value that pydantic tried."""
    return isinstance(part, int) or (part.isidentifier() and part not in _KINDS)


def unknown_choice(field: str, value: str, choices: Sequence[str]) -> ConfigError:
    """Return the error for a setting that is none of its choices."""
    names = ", ".join(choices)
    return ConfigError(
        f"`{field}='{value}'` is unknown; use one of {names}", field=field, value=value, expected=f"one of {names}"
    )


def check_whole_number(field: str, value: Any, least: int | None = None) -> None:
    """Check a setting that is a whole number, or None.

    Raises:
        ConfigError: it is something else, or less than `least`.
    """
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if value is None or (whole and (least is None or value >= least)):
        return
    expected = "a whole number" + ("" if least is None else f" of {least} or more")
    raise ConfigError(f"`{field}` is {value!r}; {expected} is expected", field=field, value=value, expected=expected)
