"""YAML whose names stay as they are written.

YAML 1.1 reads yes, no, on and off as truth values, also where they are labels:
words for the label `no` would be words for `False`. Here these are text, as in
YAML 1.2, and whatever stands in front of a colon is text.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

_BOOL = "tag:yaml.org,2002:bool"


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                key.tag = "tag:yaml.org,2002:str"
        return super().construct_mapping(node, deep)


# A table of its own, without the truth values of YAML 1.1.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _BOOL]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_BOOL, re.compile("true|True|TRUE|false|False|FALSE"), list("tTfF"))


def load_yaml(text: str) -> Any:
    """What is in a YAML document.

    Raises:
        yaml.YAMLError: it is none.
    """
    return yaml.load(text, _Loader)
