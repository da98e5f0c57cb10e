"""Backbones that are loaded once for all adapters that name them."""

from __future__ import annotations

from ptune.model.backbone import Backbone
from ptune.model.loading import load_at, pick_device, pick_dtype
from ptune.model.locate import locate
from ptune.model.shared import Shared, stamps

_FILES = ["config.json", "*.safetensors", "*.safetensors.index.json"]

_backbones: Shared[Backbone] = Shared()


def shared_backbone(
    name: str,
    revision: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    quantize: str | None = None,
    device_map: str | None = None,
) -> Backbone:
    """Return a backbone. One that is in use already is returned again if it comes from the same files.

    What it depends on is where it is loaded from, its number type and its device. One that has been moved or cast since
    is left to those who use it, and a new one is loaded.

    Args and errors are those of `load_backbone`.
    """
    location = locate(name, revision).pinned()
    target = pick_device(device)
    dtype = pick_dtype(dtype, target)
    files = stamps(location.path, [location.gguf_file] if location.gguf_file else _FILES) if location.local else ()
    key = (location.path, location.gguf_file, location.revision, dtype, str(target), quantize, device_map, files)

    def as_made(backbone: Backbone) -> bool:
        if device_map is not None:
            return str(backbone.dtype) == f"torch.{dtype}"
        there = target.index is None or backbone.device.index == target.index
        return backbone.device.type == target.type and there and str(backbone.dtype) == f"torch.{dtype}"

    return _backbones.get(
        key, lambda: load_at(location, dtype, target, quantize=quantize, device_map=device_map), as_made
    )
