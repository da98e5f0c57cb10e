"""`--config FILE`: options of `ptune train` from a YAML, TOML or JSON file. The command line takes precedence.

With `--resume`, options also come from the file that the run left in its output folder.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from typing import Any

from cyclopts import App
from cyclopts.config import Dict
from pydantic import BaseModel, ValidationError

from ptune.cli.options import TRAIN_MODELS
from ptune.cli.recorded import OPTIONS_FILE, check_given
from ptune.cli.spelling import option
from ptune.cli.staging import check_resume
from ptune.errors import ConfigError, describe_problems
from ptune.places import Place, as_place

# Options that may be mappings in a file; on the command line they are one string.
MAPPINGS = ("verbalizer",)
# Keys outside of the settings models, by what they hold.
PLACES = ("backbone", "data", "output")
SWITCHES = ("resume", "overwrite", "report", "json")
SWEEP_KEY = "sweep"
OWN_KEYS = (
    "backbone",
    "data",
    "output",
    "resume",
    "overwrite",
    "report-to",
    "report",
    "json",
    "scale",
    "ray-address",
    "workers",
)


def apply_config_file(app: App, tokens: Sequence[str]) -> None:
    """Let the file named by `--config` supply options that the command line does not give.

    With `--resume`, what is still missing is taken from the output folder.

    Args:
        app: changed in place.
        tokens: the arguments of the command line.

    Raises:
        ConfigError: the file cannot be used; the message lists all its problems, each with its key.
    """
    if not tokens or tokens[0] != "train":
        return
    file = _value("--config", tokens)
    if file == "":
        raise ConfigError("--config needs a file; give one that ends in .yaml, .toml or .json")
    files = {} if file is None else {file: read_config(as_place(file))}
    given = next(iter(files.values()), {})
    output = _value("--output", tokens) or given.get("output")
    if isinstance(output, str) and ("--resume" in tokens or given.get("resume") is True):
        folder = as_place(output)
        check_resume(folder)
        needed = [name for name in ("backbone", "data") if name not in given and _value(f"--{name}", tokens) is None]
        check_given(folder, needed)
        if (folder / OPTIONS_FILE).is_file():
            files[str(folder / OPTIONS_FILE)] = read_config(folder / OPTIONS_FILE)
    app["train"].config = tuple(
        # Below the command's name, because otherwise keys that are names of commands, such as `report`, are left out.
        Dict({"train": values}, source=name)  # type: ignore[call-arg]
        for name, values in files.items()
    )


def read_config(path: Place) -> dict[str, Any]:
    """Return the option values of a file by name, with dashes, checked against the settings models.

    The section for `ptune sweep` is left out.

    Raises:
        ConfigError: the file cannot be read or parsed, or has unknown keys or wrong values.
    """
    values, _ = read_sections(path)
    # cyclopts would read a mapping as options within an option.
    return values | {key: json.dumps(values[key]) for key in MAPPINGS if isinstance(values.get(key), dict)}


def read_sections(path: Place) -> tuple[dict[str, Any], Any]:
    """Return the option values of a file by name, with dashes, and its section `sweep`, None without one.

    Raises:
        ConfigError: the file cannot be read or parsed, or has unknown keys or wrong values outside of the section.
    """
    from ptune.settings_file import parse_file, spelled_twice

    content = parse_file(path)
    if content is None:
        raise ConfigError(f"configuration file '{path}' is empty; give options by name, such as epochs: 5")
    if not isinstance(content, dict):
        raise ConfigError(
            f"configuration file '{path}': expected options by name, such as epochs: 5, got a {type(content).__name__}"
        )
    values = {str(key).replace("_", "-"): value for key, value in content.items()}
    section = values.pop(SWEEP_KEY, None)
    problems = [f"key {problem}" for problem in spelled_twice(content)]
    problems += (
        _unknown_keys(values)
        + _wrong_kinds(values)
        + [problem for model in TRAIN_MODELS for problem in _wrong_values(model, values)]
    )
    if problems:
        raise ConfigError(f"configuration file '{path}': " + "; ".join(problems))
    return values, section


def _value(option: str, tokens: Sequence[str]) -> str | None:
    """Return the value of an option: empty if it is missing, None without the option."""
    for token, following in zip(tokens, [*tokens[1:], ""], strict=True):
        if token == option:
            return following
        if token.startswith(f"{option}="):
            return token.removeprefix(f"{option}=")
    return None


def _known_keys() -> list[str]:
    return [*OWN_KEYS, *(name.replace("_", "-") for model in TRAIN_MODELS for name in model.model_fields)]


def _unknown_keys(values: dict[str, Any]) -> list[str]:
    """Return a message for each key that is not an option."""
    known = _known_keys()
    problems = []
    for key in values:
        if key not in known:
            nearest = difflib.get_close_matches(key, known, n=1)
            problems.append(f"unknown key '{key}'" + (f", did you mean '{nearest[0]}'?" if nearest else ""))
    return problems


def _wrong_kinds(values: dict[str, Any]) -> list[str]:
    """Return a message for each key with true or false for a number, or the reverse, or with nothing at all.

    YAML reads words such as on and off as true and false, and Python takes true for 1.
    """
    problems = []
    for key, value in values.items():
        if key in SWITCHES and not isinstance(value, bool):
            problems.append(f"key '{key}': expected true or false (given: {value!r})")
        elif key in PLACES and not (isinstance(value, str) and value):
            problems.append(f"key '{key}': expected a name (given: {value!r})")
        elif isinstance(value, bool) and key not in SWITCHES and not _takes_truth(key):
            problems.append(f"key '{key}': true and false are not among its values; put a word in quotation marks")
    return problems


def _takes_truth(key: str) -> bool:
    """Return whether an option of a settings model may be true or false. Unknown keys have their own message."""
    name = key.replace("-", "_")
    fields = [model.model_fields[name] for model in TRAIN_MODELS if name in model.model_fields]
    return all("bool" in str(field.annotation) for field in fields) and key not in OWN_KEYS


def _wrong_values(model: type[BaseModel], values: dict[str, Any]) -> list[str]:
    """Return one message with all wrong values among the fields of a model, or nothing."""
    by_field = {key.replace("-", "_"): value for key, value in values.items()}
    try:
        model.model_validate({field: value for field, value in by_field.items() if field in model.model_fields})
    except ValidationError as err:
        return [describe_problems(err, lambda name: f"key '{option(name).removeprefix('--')}'")]
    return []
