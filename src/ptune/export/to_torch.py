"""A program as model.pt2, a file of `torch.export`, and model.pt2 as a function through PyTorch.

torch writes the example inputs of the trace into the file as a pickle, and reads it again without asking. Nothing needs
them, so they are left out: what remains are weights as plain bytes and a graph as JSON.
"""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ptune.export.graph import ClassifierGraph

FILE = "model.pt2"
_EXAMPLES = "/data/sample_inputs/"


def write(program: Any, graph: ClassifierGraph, folder: Path, int8: bool) -> None:  # noqa: ARG001
    """Write a program to a folder as model.pt2.

    Args:
        program: from `trace`.
        graph: what was traced.
        folder: an existing folder.
        int8: not supported; `write_export` refuses it.
    """
    archive = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about weights that share memory, which only matters on a GPU
        torch.export.save(program, archive)
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(folder / FILE, "w", zipfile.ZIP_STORED) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, b"" if _EXAMPLES in entry.filename else source.read(entry))


def open_model(folder: Path) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    """Return the function that gives logits [B, C] for a folder's model.pt2 and inputs in the model's order."""
    module = torch.export.load(folder / FILE).module()

    def run(inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        with torch.no_grad():
            return module(*map(torch.from_numpy, inputs.values())).numpy()

    return run
