"""The packages that a format needs. They are in extras, so they may be missing."""

from __future__ import annotations

import importlib
import sys
from typing import Any, Literal

from ptune.errors import ConfigError

Format = Literal["onnx", "openvino", "torch"]
FORMATS: tuple[Format, ...] = ("onnx", "openvino", "torch")
_PACKAGES: dict[Format, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("openvino",),
    "torch": (),
}


def require_packages(to: Format, int8: bool) -> None:
    """Check that the packages of a format are installed.

    Raises:
        ConfigError: one is not. The message says what to install.
    """
    for package in (*_PACKAGES[to], *["nncf"] * (int8 and to == "openvino")):
        require(package, to)


def require(package: str, extra: str) -> Any:
    """Import and return a package.

    Args:
        package: the package's module.
        extra: the extra of ptune that has it.

    Raises:
        ConfigError: it is not installed.
    """
    # Block the package with which OpenVINO sends usage data over the network.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        return importlib.import_module(package)
    except ImportError as err:
        raise ConfigError(
            f"`to='{extra}'` needs the package {package.split('.')[0]}, which is not installed; pip install "
            f"'ptune[{extra}]'",
            field="to",
            value=extra,
        ) from err
