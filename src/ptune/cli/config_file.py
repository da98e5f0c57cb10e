"""`--config FILE`: options of `ptune train` from YAML, TOML or JSON. The command line wins."""

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

# Options that are mappings; the command line gives them as one text.
MAPPINGS = ("verbalizer",)
OWN_KEYS = ("backbone", "data", "output", "resume", "report-to", "json")


def apply_config_file(app: App, tokens: Sequence[str]) -> None:
    """Let the file that `--config` names supply the options that the command line does not.

    Raises:
        ConfigError: every problem of the file at once, each with its key.
    """
    if not tokens or tokens[0] != "train":
        return
    name = _named_file(tokens)
    if name == "":
        raise ConfigError("--config names no file; give one ending in .yaml, .toml or .json")
    if name is not None:
        values = read_config(Path(name))
        app["train"].config = (Dict(values, source=name, use_commands_as_keys=False),)  # type: ignore[call-arg]


def read_config(path: Path) -> dict[str, Any]:
    """Option values by name, with dashes; checked against the settings models."""
    content = _parse(path)
    if content is None:
        raise ConfigError(f"configuration file '{path}' is empty; give options by name, such as epochs: 5")
    if not isinstance(content, dict):
        raise ConfigError(f"configuration file '{path}': expected options by name, got a {type(content).__name__}")
    values = {str(key).replace("_", "-"): value for key, value in content.items()}
    found = _unknown(values) + [problem for model in TRAIN_MODELS for problem in _wrong(model, values)]
    if found:
        raise ConfigError(f"configuration file '{path}': " + "; ".join(found))
    # As a mapping it would be taken for options within an option.
    return values | {key: json.dumps(values[key]) for key in MAPPINGS if isinstance(values.get(key), dict)}


def _named_file(tokens: Sequence[str]) -> str | None:
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
        raise ConfigError(f"configuration file '{path}': expected an ending among {', '.join(readers)}")
    try:
        return readers[path.suffix](path.read_text(encoding="utf-8"))  # type: ignore[operator]
    except OSError as err:
        raise ConfigError(f"configuration file '{path}' cannot be read: {err.strerror or err}") from err
    except (ValueError, yaml.YAMLError) as err:
        reason = " ".join(str(err).split())
        raise ConfigError(f"configuration file '{path}' is not valid {path.suffix[1:].upper()}: {reason}") from err


def _known() -> list[str]:
    return [*OWN_KEYS, *(name.replace("_", "-") for model in TRAIN_MODELS for name in model.model_fields)]


def _unknown(values: dict[str, Any]) -> list[str]:
    known = _known()
    found = []
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            found.append(f"unknown key '{key}'" + (f", did you mean '{near[0]}'?" if near else ""))
    return found


def _wrong(model: type[BaseModel], values: dict[str, Any]) -> list[str]:
    own = {key.replace("-", "_"): v for key, v in values.items() if key.replace("-", "_") in model.model_fields}
    try:
        model(**own)
    except ValidationError as err:
        return [describe_problems(err, lambda name: f"key '{option(name).removeprefix('--')}'")]
    return []
