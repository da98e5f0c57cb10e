"""Save adapters to disk and read them back.

save_adapter(folder, model, record)   writes the folder, completely or not at all
read_adapter(folder)                  reads and checks the record and the tensors' shapes, but no weights

`ptune.adapter.build` puts an adapter that was read on a backbone.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from ptune.adapter.fetch import locate_adapter
from ptune.adapter.layout import (
    ADAPTER_FILES,
    FORMAT_VERSION,
    PEFT_FILE,
    PROMPT_KEY,
    RECORD_FILE,
    STATE_FILE,
    WEIGHTS_FILE,
    Record,
)
from ptune.adapter.peft_format import from_peft, peft_reads, prompt_shape, to_peft
from ptune.adapter.reading import exists, read_json, read_shapes, read_tensors, sha256
from ptune.adapter.target import keep_apart
from ptune.adapter.trained import read_trained
from ptune.atomic import write_files
from ptune.data.targets import default_labels
from ptune.errors import AdapterError, cut, describe_problems, short
from ptune.model.classifier import PromptClassifier
from ptune.model.ensemble import Model
from ptune.places import Place


@dataclass(frozen=True)
class AdapterFile:
    """An adapter on disk. Everything but the weights has been read.

    Attributes:
        folder: where the files are.
        record: the content of ptune.json, or what PEFT's configuration says.
        shapes: shape of every tensor, by its name in the file.
        peft: whether PEFT can load the adapter.
        facts: what was saved with the state of a model by transformers' Trainer (`ptune.adapter.trained`). The weights
            are then those of the prompt encoder and the head. None for an adapter, which has a folded prompt.
        by_peft: whether PEFT wrote it, so that labels and problem type are not recorded (`ptune.adapter.peft_task`).
    """

    folder: Path
    record: Record
    shapes: dict[str, tuple[int, ...]]
    peft: bool
    facts: dict[str, Any] | None = None
    by_peft: bool = False

    @property
    def bytes(self) -> int:
        """Size of the adapter's files in bytes. Other files in the folder, such as checkpoints, do not count."""
        paths = (self.folder / name for name in (ADAPTER_FILES if self.facts is None else (STATE_FILE,)))
        return sum(path.stat().st_size for path in paths if path.exists())

    @property
    def parameters(self) -> int:
        """Number of stored parameters: those of the folded prompt and the head."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    @property
    def nameless(self) -> bool:
        """Whether the labels have no names: PEFT records none, and LABEL_0, LABEL_1, ... stand for none."""
        return self.by_peft or self.record.labels == default_labels(self.record.classes)

    @property
    def weights_sha256(self) -> str:
        """Hash of the weights. Reading the record has compared it with the file; PEFT does not record it."""
        return self.record.weights_sha256 or sha256(self.folder / WEIGHTS_FILE)

    def tensors(self) -> dict[str, Tensor]:
        """Read the weights as float32 on the CPU, by their names in the file.

        Raises:
            AdapterError: the file has changed since the adapter was read, or a number is not finite.
        """
        if self.facts is not None:
            return read_tensors(self.folder / STATE_FILE, self.shapes)
        return read_tensors(self.folder / WEIGHTS_FILE, self.shapes, self.record.weights_sha256)


def save_adapter(folder: Place, model: Model, record: Record) -> None:
    """Write an adapter to a folder. The same model and record give the same bytes.

    Raises:
        ConfigError: the folder is that of the backbone.
        OutputError: the files cannot be written. An older adapter in the folder is left intact.
    """
    from safetensors.torch import save

    keep_apart(folder, model.backbone.location)
    weights = save(adapter_tensors(model), metadata={"format": "pt"})
    record = record.model_copy(update={"weights_sha256": hashlib.sha256(weights).hexdigest()})
    files = {WEIGHTS_FILE: weights, RECORD_FILE: _json_bytes(record.model_dump(mode="json"))}
    if record.members == 1 and peft_reads(model.config, model.backbone, record.max_length):
        files[PEFT_FILE] = _json_bytes(to_peft(model.config, model.backbone))
        write_files(folder, files)
    else:
        write_files(folder, files, remove=[PEFT_FILE])


def adapter_tensors(model: Model) -> dict[str, Tensor]:
    """Return the folded prompt and the head, by their names in adapter_model.safetensors.

    The tensors of an ensemble's members are stacked, [M, ...].
    """
    if isinstance(model, PromptClassifier):
        return _member_tensors(model)
    members = [_member_tensors(member) for member in model.members]  # type: ignore[arg-type]
    return {name: torch.stack([member[name] for member in members]) for name in members[0]}


@torch.no_grad()
def _member_tensors(model: PromptClassifier) -> dict[str, Tensor]:
    was_training = model.training
    folded = model.eval().prompt_encoder()
    model.train(was_training)
    prefix = "base_model." if model.config.pooling == "peft" else "head."
    head = {prefix + name: tensor for name, tensor in model.folded_head().items()}
    return {name: tensor.detach().float().cpu().contiguous() for name, tensor in {PROMPT_KEY: folded, **head}.items()}


def read_adapter(folder: str | Place) -> AdapterFile:
    """Read an adapter of ptune or PEFT, without its weights.

    Args:
        folder: the adapter's folder, a URL such as s3://..., or a Hub id: `owner/name` or `owner/name@revision`; see
            `locate_adapter`.

    Raises:
        AdapterError: files are missing or damaged, sizes contradict each other, or there is no head.
    """
    path = locate_adapter(folder)
    peft = read_json(path / PEFT_FILE) if exists(path / PEFT_FILE) else None
    record = _read_record(path / RECORD_FILE) if exists(path / RECORD_FILE) else None
    if peft is None and record is None:
        trained = read_trained(path)
        if trained is not None:
            return AdapterFile(path, *trained)
        raise AdapterError(
            f"adapter '{folder}': the folder holds neither {RECORD_FILE} nor {PEFT_FILE}; give a folder "
            "that ptune or PEFT saved an adapter to"
        )
    shapes = _prompt_shapes(path)
    by_peft = record is None
    if record is None:
        assert peft is not None
        record = from_peft(peft, _classes(shapes, peft, path), str(path / PEFT_FILE))
    elif record.weights_sha256 not in (None, sha256(path / WEIGHTS_FILE)):
        raise AdapterError(
            f"adapter '{folder}': {WEIGHTS_FILE} is not the file that {RECORD_FILE} was written with; copy the "
            f"folder again, or delete {RECORD_FILE} if PEFT has since written new weights"
        )
    if peft is not None:
        expect_shape(shapes, PROMPT_KEY, prompt_shape(peft, str(path / PEFT_FILE)), path)
    return AdapterFile(path, record, shapes, peft is not None, by_peft=by_peft)


def _read_record(path: Path) -> Record:
    content = read_json(path)
    version = content.get("format_version")
    if version != FORMAT_VERSION:
        raise AdapterError(
            f"{path}: format_version is {short(version)}, but this version of ptune reads only {FORMAT_VERSION}; "
            "install a newer ptune"
        )
    try:
        return Record.model_validate(content)
    except ValidationError as err:
        raise AdapterError(f"{path} is not a valid record of an adapter: {describe_problems(err)}") from err


def _prompt_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Read the tensors' names and shapes from the header of the weights.

    Raises:
        AdapterError: there is no such file, it is damaged, or it does not hold a prompt.
    """
    path = folder / WEIGHTS_FILE
    if not exists(path):
        pickled = (folder / "adapter_model.bin").exists()
        hint = "; adapter_model.bin is a pickle, which ptune does not open: save it as safetensors" if pickled else ""
        raise AdapterError(f"adapter '{folder}' has no {WEIGHTS_FILE}{hint}")
    shapes = read_shapes(path)
    if PROMPT_KEY not in shapes:
        raise AdapterError(f"{path} has no tensor '{PROMPT_KEY}', so it is not a prompt adapter")
    return shapes


def _classes(shapes: dict[str, tuple[int, ...]], peft: dict[str, Any], folder: Path) -> int:
    """Return the number of classes in a PEFT file: the rows of the head's last layer.

    Raises:
        AdapterError: the file has no classification head.
    """
    for name, shape in shapes.items():
        if name.endswith(("classifier.weight", "out_proj.weight", "score.weight")) and len(shape) == 2 and shape[0]:
            return shape[0]
    version = peft.get("peft_version")
    written_by = f"this file was written by peft {cut(str(version), 50)}" if version else "this file names no version"
    raise AdapterError(
        f"adapter '{folder}' has a prompt but no classification head, so it cannot classify: peft 0.15.0 to 0.16.0 "
        f"left the head out when saving ({written_by}). Save the trained model again with peft 0.17 or later, or train "
        "it again"
    )


def expect_shape(shapes: dict[str, tuple[int, ...]], name: str, shape: tuple[int, ...], folder: Path) -> None:
    """Check that a tensor of an adapter has the expected shape.

    Raises:
        AdapterError: it has another one.
    """
    if shapes[name] != shape:
        raise AdapterError(
            f"adapter '{folder}': tensor {short(name)} has shape {short(list(shapes[name]))}, expected {list(shape)}; "
            "it belongs to another backbone or another configuration"
        )


def _json_bytes(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
