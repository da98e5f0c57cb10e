"""Where a backbone's name leads: a folder, a GGUF file, a Python package or the Hub."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptune.errors import BackboneError

_PACKAGE = "python:"
_DEPTH = 3  # folders below a package that are searched for a model


@dataclass(frozen=True)
class Location:
    """name: as the user wrote it. path: what transformers loads from: a folder, or a Hub id."""

    name: str
    path: str
    gguf_file: str | None = None
    revision: str | None = None

    @property
    def local(self) -> bool:
        return Path(self.path).is_dir()

    @property
    def reference(self) -> str:
        """The name to note in an adapter: absolute for a folder, else as written."""
        if self.name.startswith(_PACKAGE) or not self.local:
            return self.name
        return str(Path(self.path) / self.gguf_file) if self.gguf_file else str(Path(self.path).resolve())

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
        lines = (line.strip().rstrip(".") for line in str(err).splitlines())
        reason = next(filter(None, lines), type(err).__name__)
        if self.local:
            hint = ""
            if self.gguf_file is None and not any(Path(self.path).glob("*.safetensors")):
                hint = "; there is no *.safetensors in it, and ptune opens no pickles (--random-weights needs none)"
            return BackboneError(f"backbone '{self.name}' cannot be read from {self.path}: {reason}{hint}")
        return BackboneError(
            f"backbone '{self.name}' is no folder here, and as a Hub id it could not be loaded ({reason}); "
            "give a local folder, python:PACKAGE for a model inside an installed package, or check the id and "
            "the network"
        )


def locate(name: str, revision: str | None = None) -> Location:
    """Find a backbone by its name, without loading it.

    Raises:
        BackboneError: an empty name, a package that is not installed or holds no model, a path without a model.
    """
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
    return Location(name, name, revision=revision)


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
