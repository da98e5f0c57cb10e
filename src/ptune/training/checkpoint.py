"""What a run needs to go on: its checkpoint, and what the folds of its cross-validation have measured.

The checkpoint, `checkpoint.safetensors`, is everything that an exact resume needs, in one file.

The tensors of each seed are the current and the averaged state of the prompt
encoder (not folded) and the head, the optimizers' state, and the generator's,
and the state at the start until it is known that the prompt learns.
The state of the best epoch is stored once. Everything else (position in the
data, metrics so far, settings) is JSON in the file's metadata. It is a single
file, so that a crash cannot leave two files of different steps.

A cross-validation comes before the first step, so it has a file of its own,
`folds.safetensors`, with the logits of the folds that are finished.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW

from ptune.atomic import write_files
from ptune.errors import AdapterError, ConfigError, OutputError
from ptune.processes import Processes
from ptune.training.member import Member

logger = logging.getLogger(__name__)

CHECKPOINT_FILE = "checkpoint.safetensors"
FOLDS_FILE = "folds.safetensors"
RUN_FILES = (CHECKPOINT_FILE, FOLDS_FILE)
FORMAT_VERSION = 5
# What has changed if a fact of a run that is a hash has another value.
_HASHES = {
    "backbone": "the backbone has other weights",
    "data": "the training or validation rows are not the same",
}


@dataclass
class Progress:
    """How far a run has come.

    `epoch` (from 1) and `batch` (from 0) are the position of the next batch.
    """

    epoch: int = 1
    batch: int = 0
    step: int = 0
    loss_sum: float = 0.0  # sum of the loss over the rows of this epoch so far
    rows: int = 0  # rows of this epoch so far
    early_losses: list[float] = field(default_factory=list)  # each member's sum, for `ptune.training.rescue`
    vector_length: float = 0.0  # before training; what counts as length 1 to the contrastive objective
    rates: list[float] = field(default_factory=list)  # each member's factor of the learning rates, once decided
    best_epoch: int = 0
    best_metrics: dict[str, float] = field(default_factory=dict)
    best_rank: list[float] = field(default_factory=list)  # its sort key; empty before the first epoch ends
    best_seed: int | None = None  # None for an ensemble
    best_temperature: float = 1.0
    best_thresholds: list[float] = field(default_factory=list)  # of a multi-label task
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    rows_seen: int = 0


@dataclass(frozen=True)
class FoldResult:
    """What a finished fold of a cross-validation has measured.

    logits: [M, N, C], of the fold's rows under every prompt.
    seconds: time of its training and evaluation.
    """

    logits: Tensor
    seconds: float


@dataclass
class RunState:
    """Everything that changes during a run."""

    members: list[Member]
    progress: Progress
    best: dict[str, Tensor]  # averaged state of the kept model at the best epoch; empty before the first epoch ends


class CheckpointWriter:
    """A context that writes checkpoints in the background, one at a time, while training continues.

    Args:
        folder: of the run; None: nothing is written.
        processes: those that train together. Only the first writes.

    Raises:
        OutputError: a checkpoint could not be written; the previous one is unchanged. Raised by the next call of
            `save` or `wait`, or on leaving the context.
    """

    def __init__(self, folder: Path | None, processes: Processes) -> None:
        self.folder = folder
        self.processes = processes
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._last: Future[None] | None = None

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        try:
            self.wait()
        except OutputError as err:
            if error_type is None:
                raise
            logger.warning("%s", err)  # the error that ended the run is the one to raise
        finally:
            self._thread.shutdown()

    def save(self, state: RunState, identity: dict[str, Any]) -> None:
        """Copy the current state and write it in the background.

        Waits for the previous checkpoint first.

        Args:
            state: what to save; it may change as soon as this returns.
            identity: JSON-compatible facts that a run must share to resume from this checkpoint.

        Raises:
            OutputError: the previous checkpoint could not be written.
        """
        if self.folder is None or not self.processes.first:
            return
        self.wait()
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in _tensors(state).items()}
        content = {
            "format_version": FORMAT_VERSION,
            "progress": asdict(state.progress),
            "identity": identity,
            "processes": self.processes.count,
        }
        self._last = self._thread.submit(_write, self.folder, tensors, json.dumps(content))

    def wait(self) -> None:
        """Wait until the last checkpoint is written.

        Raises:
            OutputError: it could not be written.
        """
        last, self._last = self._last, None
        if last is not None:
            last.result()


def _tensors(state: RunState) -> dict[str, Tensor]:
    tensors = {f"best.{name}": tensor for name, tensor in state.best.items()}
    for number, member in enumerate(state.members):
        groups = {
            "model": member.model.trainable_state(),
            "average": member.average,
            "optimizer": _optimizer_tensors(member.optimizer),
            "generator": member.generator,
            "start": {} if state.progress.rates else member.start,  # of no use once the rates are decided
        }
        for group, group_tensors in groups.items():
            tensors |= {f"{number}.{group}.{name}": tensor for name, tensor in group_tensors.items()}
    return tensors


def _write(folder: Path, tensors: dict[str, Tensor], content: str) -> None:
    from safetensors.torch import save

    write_files(folder, {CHECKPOINT_FILE: save(tensors, metadata={"ptune": content})})


def recorded_settings(folder: Path) -> tuple[dict[str, Any], int] | None:
    """Return the settled settings of the run that left its files in a folder, and its number of processes.

    Returns:
        None if there is no such file, or if none can be read.
    """
    from safetensors import SafetensorError, safe_open

    for name in RUN_FILES:
        with suppress(SafetensorError, OSError, KeyError, TypeError, ValueError):
            with safe_open(folder / name, framework="pt") as file:
                content = json.loads((file.metadata() or {})["ptune"])
            return dict(content["identity"]["training"]), int(content["processes"])
    return None


def has_run(folder: Path) -> bool:
    """Return whether a folder holds something that a run can go on from."""
    return any((folder / name).exists() for name in RUN_FILES)


def forget_run(folder: Path, processes: Processes) -> None:
    """Remove what an earlier run in a folder would go on from, because another run begins there.

    Args:
        folder: of both runs.
        processes: those that train together. Only the first removes files.

    Raises:
        OutputError: a file cannot be removed.
    """
    if processes.first and has_run(folder):
        write_files(folder, {}, remove=RUN_FILES)


def save_folds(folder: Path, results: Sequence[FoldResult], identity: dict[str, Any], processes: Processes) -> None:
    """Write what the finished folds have measured.

    Args:
        folder: of the run.
        results: of the first folds, in their order.
        identity: facts of the first fold, which a run must share to use the results.
        processes: those that train together. Only the first writes.

    Raises:
        OutputError: the file cannot be written; the previous one is unchanged.
    """
    from safetensors.torch import save

    if not processes.first:
        return
    content = {
        "format_version": FORMAT_VERSION,
        "seconds": [result.seconds for result in results],
        "identity": identity,
        "processes": processes.count,
    }
    tensors = {str(number): result.logits.cpu().contiguous() for number, result in enumerate(results)}
    write_files(folder, {FOLDS_FILE: save(tensors, metadata={"ptune": json.dumps(content)})})


def load_folds(folder: Path, identity: dict[str, Any]) -> list[FoldResult]:
    """Return what the finished folds of a run have measured; nothing if there is no file.

    Args:
        folder: of the run.
        identity: facts of this run's first fold, which must equal those that were saved.

    Raises:
        AdapterError: the file is damaged, or has another format version.
        ConfigError: it belongs to a run with other settings or data.
    """
    path = folder / FOLDS_FILE
    if not path.exists():
        return []
    content, tensors = _read(path, identity)
    try:
        return [FoldResult(tensors[str(number)], float(each)) for number, each in enumerate(content["seconds"])]
    except (KeyError, TypeError, ValueError) as err:
        raise _damaged(path, err) from err


def load_checkpoint(folder: Path, state: RunState, identity: dict[str, Any]) -> None:
    """Restore the state of a run from the checkpoint in its folder.

    Args:
        folder: of the run; it holds `checkpoint.safetensors`.
        state: changed in place.
        identity: facts of this run, which must equal those that were saved.

    Raises:
        AdapterError: the file is damaged, or has another format version.
        ConfigError: the checkpoint belongs to a run with other settings or data.
    """
    path = folder / CHECKPOINT_FILE
    content, tensors = _read(path, identity)
    try:
        _restore(state, content["progress"], tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as err:
        raise _damaged(path, err) from err


def _read(path: Path, identity: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return what is in the metadata of a run's file, and its tensors, after checking that it is this run's.

    Raises:
        AdapterError: the file is damaged, or has another format version.
        ConfigError: it belongs to a run with other settings or data.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            content = json.loads((file.metadata() or {})["ptune"])
            if content["format_version"] != FORMAT_VERSION:
                raise AdapterError(
                    f"checkpoint '{path}' has format_version {content['format_version']!r}, but this version of ptune "
                    f"reads {FORMAT_VERSION}; train without `resume`"
                )
            _check_same_run(content["identity"], identity, path)
            return content, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
    except ConfigError:
        raise
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError) as err:
        raise _damaged(path, err) from err


def _damaged(path: Path, err: Exception) -> AdapterError:
    return AdapterError(f"checkpoint '{path}' is damaged ({err}); train without `resume`")


def _restore(state: RunState, progress: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    device = state.members[0].model.backbone.device
    state.progress = Progress(**progress)
    state.best = {name: tensor.to(device) for name, tensor in _under("best.", tensors).items()}
    for number, member in enumerate(state.members):
        member_tensors = _under(f"{number}.", tensors)
        member.model.load_trainable_state(_under("model.", member_tensors))
        member.average = {name: tensor.to(device) for name, tensor in _under("average.", member_tensors).items()}
        member.generator = _under("generator.", member_tensors)
        member.start |= {name: tensor.to(device) for name, tensor in _under("start.", member_tensors).items()}
        _restore_optimizer(member.optimizer, _under("optimizer.", member_tensors))
        if state.progress.rates:
            member.rate = state.progress.rates[number]


def _check_same_run(saved: dict[str, Any], identity: dict[str, Any], path: Path) -> None:
    """Check that two runs have the same identity, and name each setting that differs."""
    differences = describe_differences(saved, identity)
    if differences:
        raise ConfigError(
            f"checkpoint '{path}' belongs to another run: {differences}; give the same options, or train without "
            "`resume`"
        )


def describe_differences(saved: dict[str, Any], identity: dict[str, Any]) -> str:
    """Return in words what differs between the facts of two runs; an empty text if nothing does."""
    before, now = _flatten(saved), _flatten(json.loads(json.dumps(identity)))  # as in JSON, tuples become lists
    return ", ".join(
        _HASHES.get(key) or f"`{key.split('.')[-1]}` was {before.get(key)!r} and is now {now.get(key)!r}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    )


def _flatten(identity: dict[str, Any]) -> dict[str, Any]:
    """Join nested keys with a dot: {"training": {"epochs": 4}} becomes {"training.epochs": 4}."""
    flat: dict[str, Any] = {}
    for key, value in identity.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{name}": item for name, item in value.items()}
        else:
            flat[key] = value
    return flat


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix, without that prefix."""
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
