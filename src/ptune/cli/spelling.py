"""Settings as the command line spells them.

The library's messages name a setting in backticks, as Python spells it: `max_length`, `method='deep'`, `resume=True`.
Here they become options: --max-length, --method deep, --resume.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

# `name` or `name=value`; the value may hold anything but a backtick.
_SETTING = re.compile(r"`(\w+)(?:=([^`]*))?`")
# A word that a shell takes as it is.
_PLAIN = re.compile(r"[\w.,:/@%+-]+")


def option(name: str) -> str:
    """Return the option of a setting: max_length becomes --max-length."""
    return "--" + name.replace("_", "-")


def spell(message: str, settings: Collection[str], renamed: Mapping[str, str] | None = None) -> str:
    """Return a message with every setting that it names spelled as an option.

    Args:
        settings: names that are options of the command. What else stands in backticks stays as it is.
        renamed: options that have another name than their setting.
    """
    renamed = renamed or {}

    def spelled(match: re.Match[str]) -> str:
        name, value = match[1], match[2]
        if name not in settings and name not in renamed:
            return match[0]
        shown = option(renamed.get(name, name))
        if value is None or value == "True":
            return shown
        if value == "False":
            return shown.replace("--", "--no-", 1)
        bare = value[1:-1] if value[:1] in "'\"" and value[:1] == value[-1:] else value
        return f"{shown} {bare if _PLAIN.fullmatch(bare) else repr(bare)}"

    return _SETTING.sub(spelled, message)
