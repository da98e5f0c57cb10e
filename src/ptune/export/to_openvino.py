"""A program as openvino_model.xml and .bin, and these as a function through OpenVINO."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ptune.export.graph import OUTPUT, ClassifierGraph, not_possible
from ptune.export.packages import require

FILE = "openvino_model.xml"


def write(program: Any, graph: ClassifierGraph, folder: Path, int8: bool) -> None:
    """Write a program to a folder as openvino_model.xml and openvino_model.bin.

    Args:
        program: from `trace`.
        graph: what was traced.
        folder: an existing folder.
        int8: whether weights are stored in 8 bits. The computation stays in floating point.

    Raises:
        BackboneError: the model has an operation that OpenVINO does not have.
    """
    openvino = require("openvino", "openvino")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = openvino.convert_model(program)
    except Exception as err:  # the converter fails with many types of error
        raise not_possible(graph, "openvino") from err
    for port, name in zip(model.inputs, graph.input_names, strict=True):
        port.get_tensor().set_names({name})
    model.outputs[0].get_tensor().set_names({OUTPUT})
    _save(model, folder, int8)


def _save(model: Any, folder: Path, int8: bool) -> None:
    """Write an `openvino.Model` to a folder."""
    openvino = require("openvino", "openvino")
    if int8:
        nncf = require("nncf", "openvino")
        nncf.set_log_level(logging.ERROR)
        with contextlib.redirect_stdout(io.StringIO()):  # keep NNCF's progress bars out of a command's output
            model = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM)
    openvino.save_model(model, folder / FILE, compress_to_fp16=False)


def open_model(folder: Path) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    """Return the function that gives logits [B, C] for a folder's openvino_model.xml and inputs by name."""
    openvino = require("openvino", "openvino")
    # On CPUs that compute with bfloat16, OpenVINO would do so without being asked.
    compiled = openvino.compile_model(folder / FILE, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda inputs: compiled(dict(inputs))[0]
