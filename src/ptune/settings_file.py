"""Files of settings: YAML, TOML or JSON.

YAML 1.1 reads yes, no, on and off as booleans, even if they are names of labels:
the words of the label `no` would become the words of `False`. The loader here
reads them as text, as YAML 1.2 does. It also reads every key of a mapping as text.
A key that is there twice is an error in YAML and in JSON, as TOML has it.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable
from typing import Any

import yaml

from ptune.errors import ConfigError
from ptune.places import Place

_BOOL = "tag:yaml.org,2002:bool"


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                key.tag = "tag:yaml.org,2002:str"
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key '{key.value}' is there twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


# Replaces the inherited table, to drop the booleans of YAML 1.1.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _BOOL]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_BOOL, re.compile("true|True|TRUE|false|False|FALSE"), list("tTfF"))


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object with these members.

    Raises:
        ValueError: a key is there twice.
    """
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"key '{twice}' is there twice")
    return content


def spelled_twice(keys: Iterable[Any]) -> list[str]:
    """Return a sentence for each key with dashes that is there with underscores too: `batch-size` and `batch_size`."""
    keys = [str(key) for key in keys]
    twice = [key for key in keys if "-" in key and key.replace("-", "_") in keys]
    return [f"'{key}' is there with underscores too; keep one" for key in twice]


def load_json(text: str) -> Any:
    """Return the content of a JSON document.

    Raises:
        ValueError: the text is not valid JSON, or a key is there twice.
    """
    return json.loads(text, object_pairs_hook=_without_repeats)


def load_yaml(text: str) -> Any:
    """Return the content of a YAML document.

    Raises:
        yaml.YAMLError: the text is not valid YAML.
    """
    return yaml.load(text, _Loader)


def parse_file(path: Place, kind: str = "configuration file") -> Any:
    """Return the content of a YAML, TOML or JSON file.

    Args:
        path: the file.
        kind: what messages call it.

    Raises:
        ConfigError: the file has another name, cannot be read, or is not valid.
    """
    readers = {".yaml": load_yaml, ".yml": load_yaml, ".toml": tomllib.loads, ".json": load_json}
    if path.suffix not in readers:
        raise ConfigError(f"{kind} '{path}': expected a name that ends in one of {', '.join(readers)}")
    try:
        return readers[path.suffix](path.read_text(encoding="utf-8"))  # type: ignore[operator]
    except OSError as err:
        raise ConfigError(f"{kind} '{path}' cannot be read: {err.strerror or err}") from err
    except (ValueError, RecursionError, yaml.YAMLError) as err:
        reason = " ".join(str(err).split())
        raise ConfigError(f"{kind} '{path}' is not valid {path.suffix[1:].upper()}: {reason}") from err
