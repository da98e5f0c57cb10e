"""`--config FILE`: options of `ptune train` from a YAML, TOML or JSON file. The command line takes precedence."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cyclopts import App
from cyclopts.config import Dict
from pydantic import BaseModel, ValidationError

from ptune.cli.options import TRAIN_MODELS
from ptune.cli.spelling import option
from ptune.errors import ConfigError, describe_problems

# Options that may be mappings in a file; on the command line they are one string.
MAPPINGS = ("verbalizer",)
OWN_KEYS = ("backbone", "data", "output", "resume", "report-to", "json")


def apply_config_file(app: App, tokens: Sequence[str]) -> None:
    """Let the file named by `--config` supply options that the command line does not give.

    Args:
        app: changed in place.
        tokens: the arguments of the command line.

    Raises:
        ConfigError: the file cannot be used; the message lists all its problems, each with its key.
    """
    if not tokens or tokens[0] != "train":
        return
    file = _config_argument(tokens)
    if file == "":
        raise ConfigError("--config needs a file; give one that ends in .yaml, .toml or .json")
    if file is not None:
        values = read_config(Path(file))
        app["train"].config = (Dict(values, source=file, use_commands_as_keys=False),)  # type: ignore[call-arg]


def read_config(path: Path) -> dict[str, Any]:
    """Return the option values of a file by name, with dashes, checked against the settings models.

    Raises:
        ConfigError: the file cannot be read or parsed, or has unknown keys or wrong values.
    """
    content = _parse(path)
    if content is None:
        raise ConfigError(f"configuration file '{path}' is empty; give options by name, such as epochs: 5")
    if not isinstance(content, dict):
        raise ConfigError(
            f"configuration file '{path}': expected options by name, such as epochs: 5, got a {type(content).__name__}"
        )
    values = {str(key).replace("_", "-"): value for key, value in content.items()}
    problems = _unknown_keys(values) + [problem for model in TRAIN_MODELS for problem in _wrong_values(model, values)]
    if problems:
        raise ConfigError(f"configuration file '{path}': " + "; ".join(problems))
    # cyclopts would read a mapping as options within an option.
    return values | {key: json.dumps(values[key]) for key in MAPPINGS if isinstance(values.get(key), dict)}


def _config_argument(tokens: Sequence[str]) -> str | None:
    """Return the value of `--config`: empty if it is missing, None without the option."""
    for token, following in zip(tokens, [*tokens[1:], ""], strict=True):
        if token == "--config":
            return following
        if token.startswith("--config="):
            return token.removeprefix("--config=")
    return None


def _parse(path: Path) -> Any:
    import tomllib

    import yaml

    from ptune.cli.yaml_names import load_yaml

    readers = {".yaml": load_yaml, ".yml": load_yaml, ".toml": tomllib.loads, ".json": json.loads}
    if path.suffix not in readers:
        raise ConfigError(f"configuration file '{path}': expected a name that ends in one of {', '.join(readers)}")
    try:
        return readers[path.suffix](path.read_text(encoding="utf-8"))  # type: ignore[operator]
    except OSError as err:
        raise ConfigError(f"configuration file '{path}' cannot be read: {err.strerror or err}") from err
    except (ValueError, yaml.YAMLError) as err:
        reason = " ".join(str(err).split())
        raise ConfigError(f"configuration file '{path}' is not valid {path.suffix[1:].upper()}: {reason}") from err


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


def _wrong_values(model: type[BaseModel], values: dict[str, Any]) -> list[str]:
    """Return one message with all wrong values among the fields of a model, or nothing."""
    by_field = {key.replace("-", "_"): value for key, value in values.items()}
    try:
        model(**{field: value for field, value in by_field.items() if field in model.model_fields})
    except ValidationError as err:
        return [describe_problems(err, lambda name: f"key '{option(name).removeprefix('--')}'")]
    return []
