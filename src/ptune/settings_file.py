"""Files of settings: YAML, TOML or JSON.

YAML 1.1 reads yes, no, on and off as booleans, even if they are names of labels:
the words of the label `no` would become the words of `False`. The loader here
reads them as text, as YAML 1.2 does. It also reads every key of a mapping as text.
"""

from __future__ import annotations

import json
import re
import tomllib
from typing import Any

import yaml

from ptune.errors import ConfigError
from ptune.places import Place

_BOOL = "tag:yaml.org,2002:bool"


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                key.tag = "tag:yaml.org,2002:str"
        return super().construct_mapping(node, deep)


# Replaces the inherited table, to drop the booleans of YAML 1.1.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _BOOL]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_BOOL, re.compile("true|True|TRUE|false|False|FALSE"), list("tTfF"))


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
    readers = {".yaml": load_yaml, ".yml": load_yaml, ".toml": tomllib.loads, ".json": json.loads}
    if path.suffix not in readers:
        raise ConfigError(f"{kind} '{path}': expected a name that ends in one of {', '.join(readers)}")
    try:
        return readers[path.suffix](path.read_text(encoding="utf-8"))  # type: ignore[operator]
    except OSError as err:
        raise ConfigError(f"{kind} '{path}' cannot be read: {err.strerror or err}") from err
    except (ValueError, RecursionError, yaml.YAMLError) as err:
        reason = " ".join(str(err).split())
        raise ConfigError(f"{kind} '{path}' is not valid {path.suffix[1:].upper()}: {reason}") from err
