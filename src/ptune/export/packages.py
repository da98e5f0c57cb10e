"""The packages that a format needs. They are in extras, so they may be missing."""

from __future__ import annotations

from typing import Any, Literal

from ptune.extras import import_extra

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
    return import_extra(package, f"`to='{extra}'`", f"'ptune[{extra}]'", field="to", value=extra)
