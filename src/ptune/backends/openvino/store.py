"""Store graphs in the backbone's folder, or in the user's cache folder.

A graph is a folder with `graph.xml` and `graph.bin`, OpenVINO's format. The
folder's name contains a hash of everything that the graph depends on, so a
stored graph is never out of date. Any of these folders may be deleted.
"""

from __future__ import annotations

import hashlib
import logging
from functools import cached_property
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from ptune.atomic import written_folder
from ptune.backends.export import Variant, require
from ptune.cache import cache_folder
from ptune.model.backbone import Backbone
from ptune.model.loading import adds_int8_exactly, has_amx

logger = logging.getLogger(__name__)

FOLDER = "ptune-graphs"
Kind = Literal["float32", "int8"]
_LIBRARIES: dict[Kind, tuple[str, ...]] = {
    "float32": ("torch", "transformers", "openvino"),
    "int8": ("torch", "transformers", "openvino", "nncf"),
}

# Modules whose code takes part in building a graph. A test checks that the list is complete.
SOURCES = (
    "ptune.backends.export",
    "ptune.backends.openvino.quantize",
    "ptune.data.batch",
    "ptune.extras",
    "ptune.model.attention",
    "ptune.model.backbone",
    "ptune.model.entry",
    "ptune.model.families",
    "ptune.model.hidden",
    "ptune.model.tokenizer",
    "ptune.model.recompute",
    "ptune.model.trunk",
    "ptune.model.trunk_positions",
    "ptune.model.vocabulary",
)


class GraphStore:
    """The stored graphs of one backbone, of one kind.

    Args:
        backbone: the backbone that the graphs are made from.
        kind: the number type of the linear layers.
    """

    def __init__(self, backbone: Backbone, kind: Kind) -> None:
        self.backbone = backbone
        self.kind: Kind = kind

    def read(self, variant: Variant) -> Any | None:
        """Return the graph of a variant, or None if there is no readable one. Warns about unreadable ones."""
        core = require("openvino").Core()
        for folder in self._folders():
            path = folder / self._name(variant) / "graph.xml"
            try:
                if path.is_file():
                    return core.read_model(path)
            except (OSError, RuntimeError):
                logger.warning("graph '%s' cannot be read; it will be built again", path)
        return None

    def write(self, graph: Any, variant: Variant) -> None:
        """Store a graph in the first folder that can be written. Warns if there is none."""
        for folder in self._folders():
            try:
                self._write(graph, folder / self._name(variant))
            except (OSError, RuntimeError):
                continue
            return
        folders = " nor ".join(f"'{folder}'" for folder in self._folders())
        logger.warning(
            "the graph cannot be stored in %s, so it will be built again each time; set PTUNE_CACHE to a folder that "
            "can be written",
            folders,
        )

    def _write(self, graph: Any, folder: Path) -> None:
        """Write a graph to a folder, in place of one that could not be read."""
        with written_folder(folder) as temporary:
            require("openvino").save_model(graph, temporary / "graph.xml", compress_to_fp16=False)

    def _folders(self) -> list[Path]:
        """Return the folders for graphs, in the order in which they are tried."""
        location = self.backbone.location
        in_backbone = [Path(location.path) / FOLDER] if location.local else []
        return [*in_backbone, cache_folder() / FOLDER]

    def _name(self, variant: Variant) -> str:
        """Return the name of a variant's folder."""
        return f"{self.backbone.family.model_type}-{variant.name}-{self.kind}-{self._hash}"

    @cached_property
    def _hash(self) -> str:
        """Hash of configuration, weights, library versions, kind of CPU and the code that builds the graph.

        The backbone's fingerprint is not enough: it covers only a few rows of the embeddings, which fine-tuning may
        leave unchanged.
        """
        config = self.backbone.config.to_json_string(use_diff=False)
        versions = [f"{library} {version(library)}" for library in _LIBRARIES[self.kind]]
        digest = hashlib.sha256("\n".join([config, *versions, f"amx {has_amx()}, vnni {adds_int8_exactly()}"]).encode())
        for module in SOURCES:
            digest.update(Path(import_module(module).__file__ or "").read_bytes())
        for name, tensor in self.backbone.base.state_dict().items():
            if self.backbone.pooler_missing and ".pooler." in f".{name}":
                continue  # initialized at random each time it is loaded, and not part of any graph
            digest.update(name.encode())
            digest.update(tensor.contiguous().numpy())
        return digest.hexdigest()[:16]
