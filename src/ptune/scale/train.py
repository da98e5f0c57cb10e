"""`ptune train` on a Ray cluster: Ray Train starts the processes that torchrun would start.

Each worker runs the local command. `ptune.processes` shares the rows among them.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from typing import Any, TextIO

from ptune import errors
from ptune.errors import PtuneError, TrainingError
from ptune.scale.cluster import cluster, plan_workers

logger = logging.getLogger(__name__)

_OUTPUT, _ERROR, _END = "output", "error", "end"


def train_on_ray(work: Callable[[], None], ray_address: str | None, workers: int | None) -> None:
    """Run a training in the workers of a cluster. What the first of them prints is printed here.

    Args:
        work: runs the training in one of the processes that the variables of torchrun describe.
        ray_address: see `ptune.scale.cluster.cluster`.
        workers: how many; None: one for each GPU, without GPUs one for each CPU.

    Raises:
        PtuneError: the training raised it.
        ConfigError: there is no such cluster, or it is too small.
        TrainingError: a worker was lost.
    """
    with cluster(ray_address) as ray, tempfile.TemporaryDirectory(prefix="ptune-ray-") as storage:
        from ray.train import RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer
        from ray.util.queue import Queue

        plan = plan_workers(ray, workers)
        messages = Queue(actor_options={"num_cpus": 0})
        failed: list[PtuneError] = []
        printer = threading.Thread(target=_print, args=(messages, failed), daemon=True)
        printer.start()
        backend = "cpu:gloo,cuda:nccl" if plan.gpus else "gloo"
        trainer = TorchTrainer(
            _run_worker,
            train_loop_config={"work": work, "messages": messages},
            torch_config=TorchConfig(backend=backend),
            scaling_config=ScalingConfig(
                num_workers=plan.count, use_gpu=plan.gpus >= 1, resources_per_worker={"CPU": plan.cpus}
            ),
            run_config=RunConfig(storage_path=storage),
        )
        lost: Exception | None = None
        try:
            trainer.fit()
        except SystemExit:  # Ray Train has a handler of its own for Ctrl-C, which ends the workers and the process
            logger.warning("stopped; the last checkpoint is in the output folder, continue with `resume=True`")
            raise KeyboardInterrupt from None
        except Exception as err:  # Ray raises errors of many kinds
            lost = err
        messages.put((_END, ""))
        printer.join(10)
        if failed:
            raise failed[0] from lost
        if lost is not None:
            reason = " ".join(str(lost).split())[:500]
            raise TrainingError(
                f"the training has ended because a worker was lost or failed: {reason}. Its last checkpoint is in the "
                "output folder; go on with `resume=True`"
            ) from lost


def _run_worker(config: dict[str, Any]) -> None:
    """Run the training in a worker."""
    messages = config["messages"]
    with ExitStack() as streams:
        if os.environ["RANK"] == "0":
            streams.enter_context(redirect_stdout(_Sender(messages, "stdout")))  # type: ignore[type-var]
            streams.enter_context(redirect_stderr(_Sender(messages, "stderr")))  # type: ignore[type-var]
        try:
            config["work"]()
        except PtuneError as err:
            messages.put((_ERROR, (type(err).__name__, str(err))))
            raise


class _Sender:
    """A stream of a worker whose text is printed by the command."""

    def __init__(self, messages: Any, stream: str) -> None:
        self.messages, self.stream = messages, stream

    def write(self, text: str) -> int:
        if text:
            self.messages.put((_OUTPUT, (self.stream, text)))
        return len(text)

    def flush(self) -> None:
        """Do nothing: every text is sent at once."""

    def isatty(self) -> bool:
        return False


def _print(messages: Any, failed: list[PtuneError]) -> None:
    """Print what the first worker prints, and keep the errors of all."""
    while True:
        kind, content = messages.get()
        if kind == _END:
            return
        if kind == _ERROR:
            name, message = content
            failed.append(getattr(errors, name, PtuneError)(message))
        else:
            stream: TextIO = getattr(sys, content[0])
            stream.write(content[1])
            stream.flush()
