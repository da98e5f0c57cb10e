"""The exceptions of ptune, one tree.

    PtuneError
    ├── ConfigError      an option or a line of a configuration file
    ├── DataError        a data file: names the file and the row
    ├── BackboneError    the pretrained model: not found, not supported, incomplete
    ├── AdapterError     an adapter folder: missing, damaged, for another backbone
    ├── TrainingError    a run that cannot go on, such as a loss that is not a number
    ├── OutputError      something that cannot be written: no permission, disk full
    └── HubError         something that cannot be published on the Hub: no token, no network

Every message names the thing and its value, says what was expected, and what
to do about it. The command line shows the message alone and exits with 2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class PtuneError(Exception):
    """Base of everything that ptune raises on purpose."""


class ConfigError(PtuneError, ValueError):
    """An option, or a key of a configuration file, is wrong."""


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


def problems(err: ValidationError, form: str = "{}") -> list[tuple[str, str]]:
    """(where, what is wrong) for each problem of a settings model; `form` shapes the field's name, such as '--{}'."""
    found = []
    for problem in err.errors():
        name = str(problem["loc"][0]) if problem["loc"] else ""
        reason = problem["msg"].removeprefix("Value error, ")
        given = f" (given: {problem['input']!r})" if name else ""
        found.append((form.format(name) + ": " if name else "", f"{reason}{given}"))
    return found
