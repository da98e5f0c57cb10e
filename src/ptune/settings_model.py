"""The base of settings that users make: a wrong value raises ptune's own exception."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ptune.errors import ConfigError, describe_problems


class SettingsModel(BaseModel):
    """Settings whose fields are checked when they are made, and do not change afterwards.

    `model_validate` raises pydantic's ValidationError, for code that words the problems in its own way.

    Raises:
        ConfigError: a value is wrong, or a name is unknown. The message names all of them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as err:
            raise ConfigError(describe_problems(err)) from err

    # Without this, pydantic would call `__init__` in `model_validate` too.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]
