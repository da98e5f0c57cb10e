"""Write a classifier for another runtime: a folder that holds all it takes, checked before it gets its name.

model.onnx, openvino_model.xml and .bin, or model.pt2   the graph
config.json                                             labels and problem type; see `task`
tokenizer.json and what transformers has beside it      cuts and pads
README.md                                               the lines that run it
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import torch

from ptune.atomic import written_folder
from ptune.errors import ConfigError, unknown_choice
from ptune.export.check import Check, check_model
from ptune.export.graph import ClassifierGraph, trace
from ptune.export.packages import FORMATS, Format, require_packages
from ptune.export.readme import README, write_readme
from ptune.export.task import note_files, read_section, task_of, write_config
from ptune.export.tokenizer import check_tokenizer, write_tokenizer
from ptune.hub import expanded
from ptune.inference.classifier import TextClassifier


@dataclass(frozen=True)
class Export:
    """What `export_model` has written.

    Attributes:
        folder: where.
        to: the format.
        int8: whether the weights have 8 bits.
        input_names: the model's inputs, in order.
        files: names of the files.
        check: how the model compares with the original.
    """

    folder: Path
    to: Format
    int8: bool
    input_names: tuple[str, ...]
    files: tuple[str, ...]
    check: Check


def export_model(
    classifier: TextClassifier, folder: str | Path, to: Format = "onnx", *, int8: bool = False, overwrite: bool = False
) -> Export:
    """Write a classifier as one graph for another runtime, with its tokenizer and a README that runs it.

    The model is compared with the classifier first. In float32 their logits agree to 1e-4.

    Args:
        classifier: on the CPU and in float32: `ptune.load(adapter, device="cpu", dtype="float32")`.
        folder: a new or an empty folder.
        to: `onnx` for onnxruntime, `openvino` for OpenVINO, `torch` for `torch.export.load`.
        int8: store the weights of linear layers in 8 bits. Some answers may then differ from the classifier's.
        overwrite: replace an exported model that is in the folder.

    Raises:
        ConfigError: a setting is unknown, packages are missing, the folder holds something else, or the classifier is
            not in float32 on the CPU.
        BackboneError: the model cannot be exported to this format, or the exported model gives other logits.
        OutputError: the folder cannot be written.
    """
    folder = expanded(folder)
    check_export(folder, to, int8, overwrite)
    _check_classifier(classifier)
    graph = ClassifierGraph(classifier)
    task = task_of(classifier, to, int8, graph.input_names)
    program = trace(graph, to)
    runtime = import_module(f"ptune.export.to_{to}")
    with written_folder(folder) as new:
        write_tokenizer(classifier, new)
        write_config(classifier, task, new)
        runtime.write(program, graph, new, int8)
        check = check_model(classifier, task, new, runtime.open_model(new))
        write_readme(task, check, new)
        files = note_files(new)
    return Export(folder, to, int8, task.input_names, tuple(files), check)


def check_export(folder: Path, to: Format, int8: bool, overwrite: bool) -> None:
    """Check all that can be checked before a model is loaded.

    Args and errors are those of `export_model`.
    """
    if to not in FORMATS:
        raise unknown_choice("to", to, FORMATS)
    if int8 and to == "torch":
        raise ConfigError(
            "`int8` is for `to='onnx'` and `to='openvino'`; leave it out, or export to one of them",
            field="int8",
            value=int8,
            expected="False",
        )
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"'{folder}' is a file; give the name of a folder", field="output", value=str(folder))
    if folder.is_dir() and any(folder.iterdir()):
        _check_replaced(folder, overwrite)
    require_packages(to, int8)


def _check_replaced(folder: Path, overwrite: bool) -> None:
    """Check that a folder with files in it may be replaced: it holds an exported model, and this is wanted."""
    known = _is_export(folder)
    if known and overwrite:
        written = read_section(folder).get("files")
        others = sorted(path.name for path in folder.iterdir() if written and path.name not in written)
        if not others:
            return
        raise ConfigError(
            f"folder '{folder}' also holds files that are not of an exported model: {', '.join(others[:5])}; move "
            "them, or give another folder",
            field="output",
            value=str(folder),
            expected="a folder with an exported model alone",
        )
    what, ways = "other files than an exported model's", "give a new or an empty folder"
    if known:
        what, ways = "an exported model already", "give another folder, or `overwrite=True` to replace it"
    raise ConfigError(
        f"folder '{folder}' holds {what}; {ways}",
        field="output",
        value=str(folder),
        expected="a new or an empty folder",
    )


def _is_export(folder: Path) -> bool:
    return (folder / README).is_file() and bool(read_section(folder))


def _check_classifier(classifier: TextClassifier) -> None:
    """Check that a classifier can be exported, as far as it shows before it is traced.

    Raises:
        ConfigError: it is not in float32 on the CPU, or its backbone is compiled.
        BackboneError: its tokenizer cannot be exported.
    """
    backbone = classifier.model.backbone
    compiled = getattr(backbone, "precision", None) is not None
    if backbone.dtype != torch.float32 or backbone.device.type != "cpu" or compiled:
        shown = "compiled by OpenVINO" if compiled else f"in {backbone.dtype_name} on {backbone.device}"
        raise ConfigError(
            f"an export needs float32 on the CPU, but backbone '{backbone.name}' is {shown}; load the adapter with "
            "`dtype='float32'` and `device='cpu'`, and without `precision`",
            field="classifier",
        )
    check_tokenizer(classifier)
