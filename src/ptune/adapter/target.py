"""Check that an adapter may be written to a folder, before anything is trained or written.

An adapter in a model's folder breaks the model: transformers takes the adapter's
files for a part of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ptune.adapter.layout import ADAPTER_FILES
from ptune.errors import BackboneError, ConfigError
from ptune.model.locate import Location, locate
from ptune.places import Place

REPLACE = "`overwrite=True` to replace it"


def check_target(
    folder: Place,
    overwrite: bool = True,
    backbone: str | Location | None = None,
    instead: Sequence[str] = (REPLACE,),
) -> None:
    """Check that an adapter may be written to a folder.

    Args:
        folder: it need not exist.
        overwrite: whether an adapter in it may be replaced.
        backbone: the adapter's backbone or its name. One that is not found is not checked.
        instead: what may be given instead of another folder if there is an adapter in this one.

    Raises:
        ConfigError: the folder is that of the backbone or inside it, or holds another model.
        ConfigError: the folder holds an adapter that is not to be replaced.
    """
    if (folder / "config.json").exists():
        raise ConfigError(
            f"folder '{folder}' holds a model, which an adapter in the same folder would break; give another folder",
            field="output",
            value=str(folder),
            expected="a folder without config.json",
        )
    if isinstance(backbone, str):
        with suppress(BackboneError):
            backbone = locate(backbone)
    if isinstance(backbone, Location):
        keep_apart(folder, backbone, inside=True)
    held = [name for name in ADAPTER_FILES if (folder / name).exists()]
    if held and not overwrite:
        ways = ", ".join(["another folder", *instead[:-1]])
        raise ConfigError(
            f"folder '{folder}' holds an adapter already ({held[0]}); give {ways}, or {instead[-1]}",
            field="output",
            value=str(folder),
            expected="a folder without an adapter",
        )


def keep_apart(folder: Place, backbone: Location, inside: bool = False) -> None:
    """Check that an adapter is not written into the folder of its backbone.

    Args:
        folder: where the adapter is to be written.
        backbone: where the backbone is.
        inside: whether folders inside the backbone's are refused too. A GGUF file may lie in a folder of anything.

    Raises:
        ConfigError: it is.
    """
    if not backbone.path or not backbone.local or not isinstance(folder, Path):
        return
    target, model = folder.resolve(), Path(backbone.path).resolve()
    within = inside and backbone.gguf_file is None and target.is_relative_to(model)
    if target == model or within:
        place = "is" if target == model else "is inside"
        raise ConfigError(
            f"folder '{folder}' {place} the folder of backbone '{backbone.name}', which an adapter there would break; "
            "give a folder outside of it",
            field="output",
            value=str(folder),
            expected="a folder outside of the backbone's",
        )
