"""Find a backbone by its name: in a folder, a GGUF file, a Python package or on the Hub."""

from __future__ import annotations

import importlib.util
import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ptune.errors import BackboneError
from ptune.hub import expanded, hint, is_there, mistyped, why
from ptune.places import is_url

logger = logging.getLogger(__name__)

_PACKAGE = "python:"
# Errors whose messages say nothing to people, such as KeyError: 'geluu' for a mistyped activation.
_RIDDLES = (LookupError, ArithmeticError, AttributeError, TypeError, AssertionError)
_ADAPTER_ERROR = "create_and_replace"  # from PEFT, through which transformers loads adapters
_ADAPTER_HINT = "give the model that the adapter was trained on (`ptune inspect` names it)"
_DEPTH = 3  # levels of folders below a package that are searched for a model


@dataclass(frozen=True)
class Location:
    """Where a backbone is.

    name: the backbone's name as the user wrote it.
    path: what transformers loads from: a folder or a Hub id.
    gguf_file: name of the GGUF file in the folder; None for other formats.
    revision: branch, tag or commit of a Hub id.
    """

    name: str
    path: str
    gguf_file: str | None = None
    revision: str | None = None

    @property
    def local(self) -> bool:
        """True if the backbone is on this machine and not on the Hub."""
        return Path(self.path).is_dir()

    @property
    def packaged(self) -> bool:
        """True if the backbone is in an installed Python package."""
        return self.name.startswith(_PACKAGE)

    @property
    def reference(self) -> str:
        """The name to record in an adapter: for a folder its absolute path, otherwise the name as the user wrote it."""
        if self.packaged or not self.local:
            return self.name
        return str(Path(self.path) / self.gguf_file) if self.gguf_file else str(Path(self.path).resolve())

    def pinned(self) -> Location:
        """Return this location with its revision resolved to a commit.

        All files are then loaded from the same commit, and adapters can record it. If the Hub cannot be reached, this
        is the commit that was downloaded last. A local location is returned unchanged.

        Raises:
            BackboneError: the repository or the revision does not exist, or the Hub cannot be reached and the cache
                does not have it.
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
        """Return the keyword arguments for transformers' `from_pretrained`."""
        options: dict[str, Any] = {"trust_remote_code": False}
        if self.gguf_file:
            options["gguf_file"] = self.gguf_file
        if self.revision and not self.local:
            options["revision"] = self.revision
        return options

    def failure(self, err: Exception) -> BackboneError:
        """Return the error to raise if loading from here failed with `err`."""
        reason, way_out = _reason(err), _way_out(err)
        if self.local:
            if damaged := _damaged_json(Path(self.path)):
                return BackboneError(
                    f"backbone '{self.name}' cannot be read from {self.path}: {damaged} is not valid JSON; copy or "
                    "download it again"
                )
            if self.gguf_file is None and not any(Path(self.path).glob("*.safetensors")):
                way_out = (
                    "it contains no *.safetensors file, and ptune opens no pickles (`random_weights=True` needs no "
                    "weights)"
                )
            return BackboneError(f"backbone '{self.name}' cannot be read from {self.path}: {reason}; {way_out}")
        if _is_about_files(err):
            return BackboneError(f"backbone '{self.name}' cannot be read: {reason}; {way_out}")
        revision = f", revision '{self.revision}'," if self.revision else ""
        return BackboneError(
            f"backbone '{self.name}' is not a local folder, and as a Hub id{revision} it could not be loaded "
            f"({reason}); give a local folder, python:PACKAGE for a model in an installed package, or check the id and "
            "the network"
        )


def _damaged_json(folder: Path) -> str | None:
    """Return the name of the first JSON file in a folder that cannot be read; None if all can."""
    for path in sorted(folder.glob("*.json")):
        try:
            json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError):
            return path.name
    return None


def _reason(err: Exception) -> str:
    """Return in one line why a backbone cannot be read."""
    if isinstance(err, _RIDDLES):
        return f"{type(err).__name__}: {why(err)}"
    return why(err)


def _is_about_files(err: Exception) -> bool:
    """Return whether an error has to do with what the files of a model hold, and not with the network."""
    from huggingface_hub.errors import StrictDataclassError

    return isinstance(err, (ImportError, RuntimeError, StrictDataclassError, *_RIDDLES)) or _ADAPTER_ERROR in str(err)


def _way_out(err: Exception) -> str:
    """Return what to do about an error that has to do with the files of a model."""
    if isinstance(err, ImportError):
        return "install what it needs, or use the model's original weights, which are not quantised"
    if _ADAPTER_ERROR in str(err):
        return f"it is an adapter of PEFT, or holds one; {_ADAPTER_HINT}"
    if "model type" in str(err):
        return "this version of transformers does not have it; update transformers, or use another backbone"
    return (
        "its files are damaged, or of a model that transformers cannot build; download them again, or use another one"
    )


def locate(name: str, revision: str | None = None) -> Location:
    """Find a backbone by its name, without loading it.

    Args:
        name: a folder, a GGUF file, python:PACKAGE or a Hub id.
        revision: branch, tag or commit of a Hub id. For a local backbone it is ignored with a warning.

    Raises:
        BackboneError: the name is empty, the package is not installed, or there is no model in the package or at the
            path.
    """
    location = _locate(name)
    if location.local:
        if revision is not None:
            logger.warning(
                "backbone '%s' is on this machine, not on the Hub; its revision '%s' is ignored", name, revision
            )
        return location
    near = None if revision else mistyped(name, "model")
    if near:
        raise BackboneError(
            f"backbone '{name}': there is no such folder; did you mean '{near}'? For the Hub's model of this name, "
            "give its revision too: `revision='main'`"
        )
    return replace(location, revision=revision)


def _locate(name: str) -> Location:
    if not name.strip():
        raise BackboneError("the backbone's name is empty; give a folder, python:PACKAGE or a Hub id")
    if name.startswith(_PACKAGE):
        return _in_package(name)
    if is_url(name):
        raise BackboneError(
            f"backbone '{name}': a backbone is loaded from this machine or the Hub, not from a URL; copy its folder to "
            "this machine, and give that"
        )
    path = expanded(name)
    there = is_there(path)
    if there and path.suffix == ".gguf" and path.is_file():
        return Location(name, str(path.parent.resolve()), gguf_file=path.name)
    if there and path.is_dir():
        return _in_folder(name, path)
    if there:
        raise BackboneError(f"backbone '{name}' is a file; give the folder with config.json and *.safetensors")
    if path.suffix == ".gguf":
        raise BackboneError(f"backbone '{name}': there is no such file{hint(name)}")
    if path.is_absolute() or name.startswith((".", "~")) or name.endswith("/") or name.count("/") > 1:
        raise BackboneError(
            f"backbone '{name}': there is no such folder; "
            + (hint(name).removeprefix("; ") or "give a folder, python:PACKAGE or a Hub id")
        )
    return Location(name, name)


def package_folder(package: str) -> Path | None:
    """Return the folder of an installed Python package, or None if it is not installed. The package is not imported."""
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    return Path(next(iter(spec.submodule_search_locations))) if spec and spec.submodule_search_locations else None


def _in_folder(name: str, folder: Path) -> Location:
    adapter = next((file for file in ("adapter_config.json", "ptune.json") if (folder / file).is_file()), None)
    if (folder / "config.json").is_file():
        if adapter == "adapter_config.json":
            raise BackboneError(
                f"backbone '{name}': the folder also holds an adapter of PEFT ({adapter}), which transformers would "
                "put on the model; move the adapter's files to a folder of their own"
            )
        return Location(name, str(folder.resolve()))
    gguf = sorted(folder.glob("*.gguf"))
    if len(gguf) == 1:
        return Location(name, str(folder.resolve()), gguf_file=gguf[0].name)
    if adapter:
        raise BackboneError(f"backbone '{name}': the folder is an adapter ({adapter}), not a backbone; {_ADAPTER_HINT}")
    raise BackboneError(f"backbone '{name}': the folder must contain config.json or exactly one .gguf file")


def _in_package(name: str) -> Location:
    package, _, inner = name.removeprefix(_PACKAGE).partition("/")
    distribution = package
    package = package.replace("-", "_")
    root = package_folder(package)
    if root is None:
        raise BackboneError(
            f"backbone '{name}': package '{distribution}' is not installed; check its name, or install it with pip"
        )
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
    raise BackboneError(
        f"backbone '{name}': package '{distribution}' contains no model: neither a folder with config.json and "
        "*.safetensors nor a .gguf file; name another package"
    )


def _folders(root: Path, depth: int) -> list[Path]:
    """Return root and the folders up to `depth` levels below it, nearest first."""
    folders = level = [root]
    for _ in range(depth):
        level = sorted(child for folder in level for child in folder.iterdir() if child.is_dir())
        folders = folders + level
    return folders
