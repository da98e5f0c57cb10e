"""Where graphs are kept: beside the backbone, else in the user's cache folder.

A graph is a folder with `graph.xml` and `graph.bin`, OpenVINO's format. The
folder's name holds a hash of all that the graph follows from, so none is ever
out of date, and each may be deleted.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from functools import cached_property
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from ptune.atomic import make_folder
from ptune.backends.export import Variant, require
from ptune.model.backbone import Backbone
from ptune.model.loading import has_amx

logger = logging.getLogger(__name__)

FOLDER = "ptune-graphs"
Kind = Literal["float32", "int8"]
_LIBRARIES: dict[Kind, tuple[str, ...]] = {
    "float32": ("torch", "transformers", "openvino"),
    "int8": ("torch", "transformers", "openvino", "nncf"),
}


# Modules whose code takes part in making a graph. A test watches which ones run then.
SOURCES = (
    "ptune.backends.export",
    "ptune.backends.openvino.quantize",
    "ptune.data.batch",
    "ptune.model.attention",
    "ptune.model.backbone",
    "ptune.model.entry",
    "ptune.model.families",
    "ptune.model.tokenizer",
    "ptune.model.trunk",
)


class GraphStore:
    """The graphs of one kind that one backbone has.

    Args:
        backbone: what they are made from.
        kind: the number type of the linear layers.
    """

    def __init__(self, backbone: Backbone, kind: Kind) -> None:
        self.backbone = backbone
        self.kind: Kind = kind

    def read(self, variant: Variant) -> Any | None:
        """The graph of a variant, or None where none is kept that can be read."""
        core = require("openvino").Core()
        for folder in self._folders():
            path = folder / self._name(variant) / "graph.xml"
            try:
                if path.is_file():
                    return core.read_model(path)
            except (OSError, RuntimeError):
                logger.warning("'%s' cannot be read; it is made again", path)
        return None

    def write(self, graph: Any, variant: Variant) -> None:
        """Keep a graph in the first folder that takes it; say so where none does."""
        for folder in self._folders():
            try:
                self._write(graph, folder / self._name(variant))
            except (OSError, RuntimeError):
                continue
            return
        logger.warning("no folder takes the graph, so it is made anew each time; name one in PTUNE_CACHE")

    def _write(self, graph: Any, folder: Path) -> None:
        """Under another name first, so that a folder of that name is whole."""
        make_folder(folder.parent)
        part = folder.with_name(f".{folder.name}-{os.getpid()}.part")
        try:
            part.mkdir()
            require("openvino").save_model(graph, part / "graph.xml", compress_to_fp16=False)
            shutil.rmtree(folder, ignore_errors=True)  # one that could not be read
            part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def _folders(self) -> list[Path]:
        location = self.backbone.location
        beside = [Path(location.path) / FOLDER] if location.local else []
        cache = os.environ.get("PTUNE_CACHE") or Path.home() / ".cache" / "ptune"
        return [*beside, Path(cache) / FOLDER]

    def _name(self, variant: Variant) -> str:
        return f"{self.backbone.family.model_type}-{variant.name}-{self.kind}-{self._hash}"

    @cached_property
    def _hash(self) -> str:
        """Of configuration, weights, libraries, the kind of CPU and the code that the graph is traced from.

        The backbone's fingerprint would not do: it sees a few rows of the embeddings, which fine-tuning leaves alone.
        """
        config = self.backbone.config.to_json_string(use_diff=False)
        versions = [f"{library} {version(library)}" for library in _LIBRARIES[self.kind]]
        digest = hashlib.sha256("\n".join([config, *versions, f"amx {has_amx()}"]).encode())
        for module in SOURCES:
            digest.update(Path(import_module(module).__file__ or "").read_bytes())
        for name, tensor in self.backbone.base.state_dict().items():
            if self.backbone.pooler_missing and ".pooler." in f".{name}":
                continue  # drawn anew at each loading, and in no graph
            digest.update(name.encode())
            digest.update(tensor.contiguous().numpy())
        return digest.hexdigest()[:16]
