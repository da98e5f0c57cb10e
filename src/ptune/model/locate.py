"""Where a backbone's name leads: a folder, a GGUF file, a Python package or the Hub."""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ptune.errors import BackboneError
from ptune.hub import why

logger = logging.getLogger(__name__)

_PACKAGE = "python:"
_DEPTH = 3  # folders below a package that are searched for a model


@dataclass(frozen=True)
class Location:
    """name: as the user wrote it. path: what transformers loads from: a folder, or a Hub id.

    revision: of a Hub id; branch, tag or commit.
    """

    name: str
    path: str
    gguf_file: str | None = None
    revision: str | None = None

    @property
    def local(self) -> bool:
        return Path(self.path).is_dir()

    @property
    def packaged(self) -> bool:
        """Whether it is inside an installed Python package."""
        return self.name.startswith(_PACKAGE)

    @property
    def reference(self) -> str:
        """The name to note in an adapter: absolute for a folder, else as written."""
        if self.packaged or not self.local:
            return self.name
        return str(Path(self.path) / self.gguf_file) if self.gguf_file else str(Path(self.path).resolve())

    def pinned(self) -> Location:
        """The same place at the commit that its revision is now, so that all files are of one and adapters can note it.

        Where the Hub cannot be reached, the commit that was fetched last. A place on this machine stays as it is.

        Raises:
            BackboneError: there is no such repository or revision within reach.
        """
        if self.local:
            return self
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HTTPError, RevisionResolutionError

        try:
            return replace(self, revision=HfApi().resolve_revision(self.path, revision=self.revision).resolved)
        except (HTTPError, OSError, ValueError, RevisionResolutionError) as err:
            raise self.failure(err) from err

    def load_options(self) -> dict[str, Any]:
        """Keyword arguments for transformers' `from_pretrained`."""
        options: dict[str, Any] = {"trust_remote_code": False}
        if self.gguf_file:
            options["gguf_file"] = self.gguf_file
        if self.revision and not self.local:
            options["revision"] = self.revision
        return options

    def failure(self, err: Exception) -> BackboneError:
        """A sentence for what went wrong while loading from here."""
        reason = why(err)
        if self.local:
            hint = ""
            if self.gguf_file is None and not any(Path(self.path).glob("*.safetensors")):
                hint = (
                    "; there is no *.safetensors in it, and ptune opens no pickles (`random_weights=True` needs none)"
                )
            return BackboneError(f"backbone '{self.name}' cannot be read from {self.path}: {reason}{hint}")
        revision = f", revision '{self.revision}'," if self.revision else ""
        return BackboneError(
            f"backbone '{self.name}' is no folder here, and as a Hub id{revision} it could not be loaded ({reason}); "
            "give a local folder, python:PACKAGE for a model inside an installed package, or check the id and "
            "the network"
        )


def locate(name: str, revision: str | None = None) -> Location:
    """Find a backbone by its name, without loading it. A revision is for Hub ids; what is here has none.

    Raises:
        BackboneError: an empty name, a package that is not installed or holds no model, a path without a model.
    """
    location = _locate(name)
    if location.local:
        if revision is not None:
            logger.warning(
                "backbone '%s' is on this machine and no Hub id: its revision '%s' is not used", name, revision
            )
        return location
    return replace(location, revision=revision)


def _locate(name: str) -> Location:
    if not name.strip():
        raise BackboneError("the backbone's name is empty; give a folder, python:PACKAGE or a Hub id")
    if name.startswith(_PACKAGE):
        return _in_package(name)
    path = Path(name).expanduser()
    if path.suffix == ".gguf" and path.is_file():
        return Location(name, str(path.parent.resolve()), gguf_file=path.name)
    if path.is_dir():
        return _in_folder(name, path)
    if path.exists():
        raise BackboneError(f"backbone '{name}' is a file; give the folder that holds config.json and *.safetensors")
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise BackboneError(f"backbone '{name}': there is no such folder; give a folder, python:PACKAGE or a Hub id")
    return Location(name, name)


def package_folder(package: str) -> Path | None:
    """Where an installed Python package lies, found without running it; None where it is not installed."""
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    return Path(next(iter(spec.submodule_search_locations))) if spec and spec.submodule_search_locations else None


def _in_folder(name: str, folder: Path) -> Location:
    if (folder / "config.json").is_file():
        return Location(name, str(folder.resolve()))
    gguf = sorted(folder.glob("*.gguf"))
    if len(gguf) == 1:
        return Location(name, str(folder.resolve()), gguf_file=gguf[0].name)
    raise BackboneError(f"backbone '{name}': the folder holds neither config.json nor one .gguf file")


def _in_package(name: str) -> Location:
    package, _, inner = name.removeprefix(_PACKAGE).partition("/")
    distribution = package
    package = package.replace("-", "_")
    root = package_folder(package)
    if root is None:
        raise BackboneError(f"backbone '{name}': package '{distribution}' is not installed; pip install {distribution}")
    if inner:
        path = root / inner
        if path.suffix == ".gguf" and path.is_file():
            return Location(name, str(path.parent), gguf_file=path.name)
        if not path.is_dir():
            raise BackboneError(f"backbone '{name}': package '{distribution}' has no folder or .gguf file '{inner}'")
        root = path
    for folder in _folders(root, _DEPTH):
        if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
            return Location(name, str(folder))
    for folder in _folders(root, _DEPTH):
        for gguf in sorted(folder.glob("*.gguf")):
            return Location(name, str(folder), gguf_file=gguf.name)
    raise BackboneError(f"backbone '{name}': package '{distribution}' holds no safetensors folder and no .gguf file")


def _folders(root: Path, depth: int) -> list[Path]:
    """root and the folders below it, nearest first."""
    found = level = [root]
    for _ in range(depth):
        level = sorted(child for folder in level for child in folder.iterdir() if child.is_dir())
        found = found + level
    return found
