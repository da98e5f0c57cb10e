"""What resuming a run exactly needs, in one file, `checkpoint.safetensors`.

Tensors: of every seed the prompt encoder (whole, not folded) and the head, now
and averaged, AdamW's moments and the generator's state; and the best epoch's
state. Everything else (data position, metrics so far, settings) is JSON in the
file's metadata. One file, so that no crash leaves halves that do not belong
together.
"""

from __future__ import annotations

import json
import logging
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW

from ptune.atomic import write_files
from ptune.errors import AdapterError, ConfigError, OutputError
from ptune.training.member import Member

logger = logging.getLogger(__name__)

CHECKPOINT_FILE = "checkpoint.safetensors"
FORMAT_VERSION = 2


@dataclass
class Progress:
    """Where a run stands. epoch and batch name the next batch: epochs from 1, batches from 0."""

    epoch: int = 1
    batch: int = 0
    step: int = 0
    loss_sum: float = 0.0  # over the rows of this epoch so far
    rows: int = 0
    best_epoch: int = 0
    best_metrics: dict[str, float] = field(default_factory=dict)
    best_seed: int | None = None  # None of an ensemble
    best_temperature: float = 1.0
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    rows_seen: int = 0


@dataclass
class RunState:
    """All that changes during a run."""

    members: list[Member]
    progress: Progress
    best: dict[str, Tensor]  # the kept model's averaged state at the best epoch; empty before the first


class CheckpointWriter:
    """Writes a run's checkpoints one after the other, while training goes on.

    Raises:
        OutputError: one could not be written; an older one is still whole. Raised by the next `save` or `wait`, or at
            the end of the context.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._last: Future[None] | None = None

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.wait()
        except OutputError as err:
            if kind is None:
                raise
            logger.warning("%s", err)  # beside what ended the run already
        finally:
            self._thread.shutdown()

    def save(self, state: RunState, identity: dict[str, Any]) -> None:
        """Take down the state as it is now, and write it in the background; `identity` says which run it is."""
        self.wait()
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in _tensors(state).items()}
        content = {"format_version": FORMAT_VERSION, "progress": asdict(state.progress), "identity": identity}
        self._last = self._thread.submit(_write, self.folder, tensors, json.dumps(content))

    def wait(self) -> None:
        """Until the last checkpoint is written."""
        last, self._last = self._last, None
        if last is not None:
            last.result()


def _tensors(state: RunState) -> dict[str, Tensor]:
    tensors = {f"best.{name}": tensor for name, tensor in state.best.items()}
    for number, member in enumerate(state.members):
        parts = {
            "model": member.model.trainable_state(),
            "average": member.average,
            "optimizer": _optimizer_tensors(member.optimizer),
            "generator": member.generator,
        }
        tensors |= {f"{number}.{part}.{name}": x for part, own in parts.items() for name, x in own.items()}
    return tensors


def _write(folder: Path, tensors: dict[str, Tensor], content: str) -> None:
    from safetensors.torch import save

    write_files(folder, {CHECKPOINT_FILE: save(tensors, metadata={"ptune": content})})


def load_checkpoint(folder: Path, state: RunState, identity: dict[str, Any]) -> None:
    """Put a run back where its checkpoint was written.

    Raises:
        AdapterError: the file is damaged, or of another version.
        ConfigError: the checkpoint is of a run with other settings or data.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / CHECKPOINT_FILE
    try:
        with safe_open(path, framework="pt") as file:
            content = json.loads((file.metadata() or {})["ptune"])
            if content["format_version"] != FORMAT_VERSION:
                raise AdapterError(
                    f"checkpoint '{path}' has format_version {content['format_version']!r}, this ptune reads "
                    f"{FORMAT_VERSION}; train without `resume`"
                )
            _same_run(content["identity"], identity, path)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
        _restore(state, content["progress"], tensors)
    except ConfigError:
        raise
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as err:
        raise AdapterError(f"checkpoint '{path}' is damaged ({err}); train without `resume`") from err


def _restore(state: RunState, progress: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    device = state.members[0].model.backbone.device
    state.progress = Progress(**progress)
    state.best = {name: tensor.to(device) for name, tensor in _under("best.", tensors).items()}
    for number, member in enumerate(state.members):
        own = _under(f"{number}.", tensors)
        member.model.load_trainable_state(_under("model.", own))
        member.average = {name: tensor.to(device) for name, tensor in _under("average.", own).items()}
        member.generator = _under("generator.", own)
        _restore_optimizer(member.optimizer, _under("optimizer.", own))


def _same_run(saved: dict[str, Any], identity: dict[str, Any], path: Path) -> None:
    """Compare setting by setting."""
    saved, now = _flat(saved), _flat(json.loads(json.dumps(identity)))  # as JSON, in which a tuple is a list
    differing = [key for key in sorted(saved.keys() | now.keys()) if saved.get(key) != now.get(key)]
    if differing:
        said = ", ".join(f"{key} was {saved.get(key)!r}, is {now.get(key)!r}" for key in differing)
        raise ConfigError(
            f"checkpoint '{path}' is of another run: {said}; give the same options, or train without `resume`"
        )


def _flat(identity: dict[str, Any]) -> dict[str, Any]:
    """{"training": {"epochs": 4}} -> {"training.epochs": 4}"""
    flat = {}
    for key, value in identity.items():
        parts = {f"{key}.{name}": part for name, part in value.items()} if isinstance(value, dict) else {key: value}
        flat.update(parts)
    return flat


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _optimizer_tensors(optimizer: AdamW) -> dict[str, Tensor]:
    return {
        f"{index}.{name}": torch.as_tensor(value)
        for index, moments in optimizer.state_dict()["state"].items()
        for name, value in moments.items()
    }


def _restore_optimizer(optimizer: AdamW, tensors: dict[str, Tensor]) -> None:
    moments: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, name = key.split(".", 1)
        moments.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
