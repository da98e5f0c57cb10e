"""The command line's spelling of settings.

The library's messages put a setting in backticks, as Python spells it: `max_length`, `method='deep'`, `resume=True`.
This module turns them into options: --max-length, --method deep, --resume.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

# `name` or `name=value`; the value may hold anything but a backtick.
_SETTING = re.compile(r"`(\w+)(?:=([^`]*))?`")
# A word that needs no quotes in a shell.
_PLAIN = re.compile(r"[\w.,:/@%+-]+")


def option(name: str) -> str:
    """Return the option of a setting: max_length becomes --max-length."""
    return "--" + name.replace("_", "-")


def spell(message: str, settings: Collection[str], renamed: Mapping[str, str] | None = None) -> str:
    """Return a message in which every setting in backticks is spelled as an option.

    Args:
        message: a message of the library.
        settings: names that are options of the command. Other text in backticks stays as it is.
        renamed: names of options that differ from the setting's, by setting.
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
