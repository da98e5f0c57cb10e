"""The settings of `ptune serve` from three places: the command line, then the environment, then a file."""

from __future__ import annotations

import difflib
import logging
import os
import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from ptune.cli.spelling import option
from ptune.errors import ConfigError, describe_problems
from ptune.places import Place, as_place
from ptune.serving.settings import ServeOptions, ServeSettings

logger = logging.getLogger(__name__)

PREFIX = "PTUNE_SERVE_"
FILE_VARIABLE = f"{PREFIX}CONFIG"
# Variables that Kubernetes sets in every container for a service that is named ptune-serve.
_OF_KUBERNETES = re.compile(r"SERVICE_(HOST|PORT\w*)|PORT_\d+_\w+|PORT")
# Stands for the adapters where only the other settings are checked.
_SOME = {"adapters": ["-"]}


def merge(given: Mapping[str, Any], options: ServeOptions | None, file: Place | None) -> ServeSettings:
    """Return the settings of a server.

    Args:
        given: `adapters` and `backbone` of the command line; empty if they are not there.
        options: the other options of the command line. Only those that were given count.
        file: a YAML, TOML or JSON file of settings; None: the one that the environment names, if any.

    Raises:
        ConfigError: a value is wrong or a key unknown; the message says where. Or there is nothing to serve.
    """
    named = os.environ.get(FILE_VARIABLE)
    path = file or (as_place(named) if named else None)
    values = ({} if path is None else _from_file(path)) | _from_environment()
    values |= {name: value for name, value in given.items() if value}
    values |= {} if options is None else {name: getattr(options, name) for name in options.model_fields_set}
    if not values.get("adapters"):
        raise ConfigError("give what to serve: a folder of adapters, or adapters as NAME=FOLDER")
    return ServeSettings.model_validate(values)


def _from_file(path: Place) -> dict[str, Any]:
    """Return the settings in a file.

    Raises:
        ConfigError: the file cannot be read, or a key is unknown or has a wrong value.
    """
    from ptune.settings_file import parse_file, spelled_twice

    content = parse_file(path)
    if not isinstance(content, dict) or not content:
        raise ConfigError(f"configuration file '{path}': expected settings by name, such as port: 8080")
    values = {str(key).replace("-", "_"): value for key, value in content.items()}
    problems = [_unknown(option(name).removeprefix("--"), _keys()) for name in values if name not in _fields()]
    problems += [f"key {problem}" for problem in spelled_twice(content)]
    known = {name: value for name, value in values.items() if name in _fields()}
    problems += _wrong(known, lambda name: f"key '{option(name).removeprefix('--')}'")
    if problems:
        raise ConfigError(f"configuration file '{path}': " + "; ".join(problems))
    return known


def _from_environment() -> dict[str, Any]:
    """Return the settings in the environment. An unknown variable is only warned of, as it may be of something else.

    Raises:
        ConfigError: a variable has a wrong value.
    """
    values = {}
    for variable, value in os.environ.items():
        name = variable.removeprefix(PREFIX)
        if not variable.startswith(PREFIX) or variable == FILE_VARIABLE or name == "WORKER_SETTINGS":
            continue
        if _OF_KUBERNETES.fullmatch(name) and (name != "PORT" or value.startswith("tcp://")):
            continue
        if name.lower() in _fields():
            values[name.lower()] = value
        else:
            known = [PREFIX + field.upper() for field in _fields()]
            logger.warning("environment: %s", _unknown(variable, known))
    problems = _wrong(values, lambda name: PREFIX + name.upper())
    if problems:
        raise ConfigError("environment: " + "; ".join(problems))
    return values


def _fields() -> dict[str, Any]:
    return ServeSettings.model_fields


def _keys() -> list[str]:
    return [option(name).removeprefix("--") for name in _fields()]


def _unknown(name: str, known: list[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1)
    return f"unknown key '{name}'" + (f", did you mean '{nearest[0]}'?" if nearest else "")


def _wrong(values: Mapping[str, Any], spell: Any) -> list[str]:
    """Return one message with all wrong values, or nothing."""
    try:
        ServeSettings.model_validate(_SOME | dict(values))
    except ValidationError as err:
        return [describe_problems(err, lambda path: spell(path.split(".")[0]))]
    return []
