"""What the benchmarks of `ptune serve` share: adapters with random weights, running servers, and their memory."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

import ptune
from ptune.adapter.folder import save_adapter
from ptune.adapter.layout import Record
from ptune.data.texts import Text
from ptune.model.backbone import Backbone
from ptune.serving.connection import Connection, Server
from ptune.serving.load import LoadConfig, questions
from ptune.serving.loadtest import Answer, LoadReport, Tally, drive

MAX_LENGTH = 128
# Noise on prompt and head: enough that every adapter gives other probabilities for every text.
_NOISE = 0.3


class AdapterWriter:
    """Writes adapters with random weights: most with the default settings, some of other kinds.

    Args:
        backbone: theirs.
        mixed: share of adapters of other kinds: shorter and shallow prompts, more classes, several labels, numbers.
    """

    def __init__(self, backbone: Backbone, mixed: float = 0.0) -> None:
        self.mixed = mixed
        names = [f"class {number}" for number in range(7)]
        settings: list[tuple[ptune.PromptConfig, list[str], str]] = [
            (ptune.PromptConfig(), ["no", "yes"], "single_label_classification"),
            (ptune.PromptConfig(virtual_tokens=7), names, "single_label_classification"),
            (ptune.PromptConfig(method="p-tuning", virtual_tokens=5), names[:3], "single_label_classification"),
            (ptune.PromptConfig(), names[:4], "multi_label_classification"),
            (ptune.PromptConfig(), ["stars"], "regression"),
        ]
        self._models = [
            ptune.PromptClassifier(backbone, config, labels, seed=0, problem_type=kind)
            for config, labels, kind in (settings if mixed else settings[:1])
        ]
        self._starts = [[weight.detach().clone() for weight in _learned(model)] for model in self._models]

    @torch.no_grad()
    def write(self, folder: Path, number: int, version: int = 0) -> None:
        """Write one adapter. The number decides its kind; number and version decide its weights."""
        other = len(self._models) > 1 and (number * self.mixed) % 1 + self.mixed >= 1
        kind = 1 + number % (len(self._models) - 1) if other else 0
        draw = torch.Generator().manual_seed(1_000_003 * version + number)
        for weight, start in zip(_learned(self._models[kind]), self._starts[kind], strict=True):
            weight.copy_(start + _NOISE * torch.randn(weight.shape, generator=draw))
        save_adapter(folder, self._models[kind], Record.of(self._models[kind], max_length=MAX_LENGTH))


def _learned(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    return [weight for weight in model.parameters() if weight.requires_grad]


def name_of(number: int) -> str:
    """Return the name of an adapter."""
    return f"adapter-{number:04d}"


class ServerProcess:
    """`ptune serve` in a process of its own, until the block ends.

    Args:
        arguments: of the command.
        threads: of PyTorch; None: as many as it takes by itself.
        log: file for what the server prints.
    """

    def __init__(self, arguments: Sequence[str], log: Path, threads: int | None = None) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        environment = {**os.environ, **({} if threads is None else {"OMP_NUM_THREADS": str(threads)})}
        command = [sys.executable, "-m", "ptune", "serve", *arguments, "--port", str(self.port)]
        self._log = log
        with log.open("w") as file:
            self.process = subprocess.Popen(command, stdout=file, stderr=file, env=environment)

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait(self, seconds: float = 300.0) -> ServerProcess:
        """Return when the server is ready."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise SystemExit(f"the server has stopped:\n{self._log.read_text()[-3000:]}")
            try:
                if asyncio.run(_get(self.url, "/v2/health/ready")) == 200:
                    return self
            except OSError:
                pass
            time.sleep(0.2)
        raise SystemExit(f"the server is not ready after {seconds:g} s:\n{self._log.read_text()[-3000:]}")

    def stop(self) -> int:
        """Ask the server to stop, and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def memory(self) -> float:
        """Return its memory in megabytes. Pages that several processes share are divided among them."""
        lines = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:"))


async def _get(url: str, path: str) -> int:
    connection = Connection(Server.at(url))
    try:
        return (await connection.get(path)).status
    finally:
        connection.close()


def load(
    url: str,
    names: Sequence[str],
    texts: Sequence[Text],
    on_answer: Callable[[Answer], None] | None = None,
    **settings: object,
) -> LoadReport:
    """Drive a server and return the report; settings are those of `LoadConfig`."""
    config, tally = LoadConfig.model_validate(settings), Tally()
    asyncio.run(drive(Server.at(url), questions(config, names, texts), config, tally, on_answer))
    return tally.report(config.rate)
