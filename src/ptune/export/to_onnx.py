"""A program as model.onnx, and model.onnx as a function through onnxruntime."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ptune.export.graph import OUTPUT, ClassifierGraph, not_possible
from ptune.export.packages import require

FILE = "model.onnx"
_LOGGERS = ("torch.onnx", "onnxscript", "onnx_ir")


def write(program: Any, graph: ClassifierGraph, folder: Path, int8: bool) -> None:
    """Write a program to a folder as model.onnx. Weights of 2 GB or more go to model.onnx.data beside it.

    Args:
        program: from `trace`.
        graph: what was traced.
        folder: an existing folder.
        int8: whether the weights of linear layers are stored in 8 bits. onnxruntime then rounds their inputs to 8 bits
            too, on a scale of their own in every batch.

    Raises:
        BackboneError: the model has an operation that ONNX does not have.
    """
    with _quiet():
        try:
            exported = torch.onnx.export(
                program, (), dynamo=True, verbose=False, input_names=graph.input_names, output_names=[OUTPUT]
            )
        except Exception as err:  # the exporter fails with many types of error
            raise not_possible(graph, "onnx") from err
        assert exported is not None
        for value in exported.model.graph.inputs:
            for axis, name in enumerate(("batch", "length")[: len(value.shape or ())]):
                value.shape[axis] = name  # type: ignore[index]
        exported.model.graph.outputs[0].shape[0] = "batch"  # type: ignore[index]
        exported.save(folder / FILE)
        if int8:
            _quantize(folder / FILE)


def _quantize(path: Path) -> None:
    """Store the weights of a model's linear layers in 8 bits, with a scale for each output.

    The head and the products with the prompt keep their numbers: they are small, and they are what was learned.
    """
    onnx = require("onnx", "onnx")
    quantization = require("onnxruntime.quantization", "onnx")
    model = onnx.load(path)
    # onnxruntime 1.32 takes shapes noted by the exporter for shapes of quantized tensors, and finds that they differ.
    del model.graph.value_info[:]
    # Otherwise onnxruntime logs advice to optimize the model first, which the exporter has done.
    onnx.helper.set_model_props(model, {"onnx.quant.pre_process": "onnxruntime.quant"})
    wide = {weight.name for weight in model.graph.initializer if len(weight.dims) == 2 and min(weight.dims) >= 8}
    kept = [node.name for node in model.graph.node if node.op_type == "MatMul" and node.input[1] not in wide]
    quantization.quantize_dynamic(
        model,
        path,
        op_types_to_quantize=["MatMul"],
        nodes_to_exclude=kept,
        per_channel=True,
        weight_type=quantization.QuantType.QInt8,
    )


def open_model(folder: Path) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    """Return the function that gives logits [B, C] for a folder's model.onnx and inputs by name."""
    onnxruntime = require("onnxruntime", "onnx")
    session = onnxruntime.InferenceSession(folder / FILE, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, dict(inputs))[0]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress and warnings out of a command's output."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
