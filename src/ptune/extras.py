"""Import packages that are in extras of ptune, and so may be missing."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from ptune.errors import ConfigError


def import_extra(package: str, needed_by: str, install: str, *, field: str, value: Any = None) -> Any:
    """Import and return a package.

    Args:
        package: the name of the module to import.
        needed_by: what needs it, as the error begins.
        install: what pip installs to have it.
        field, value: the setting that needs it, for the error.

    Raises:
        ConfigError: the package is not installed. The message says what to install.
    """
    # Block the package with which OpenVINO sends usage data over the network.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        return importlib.import_module(package)
    except ImportError as err:
        raise ConfigError(
            f"{needed_by} needs the package {package.split('.')[0]}, which is not installed; pip install {install}",
            field=field,
            value=value,
        ) from err
