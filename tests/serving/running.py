"""A real server in a thread of the test's process, and tiny adapters of several kinds for it."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from pathlib import Path
from typing import Any

import torch

from ptune.adapter.folder import save_adapter
from ptune.adapter.layout import Record, TaskInfo
from ptune.model.backbone import Backbone
from ptune.model.classifier import PromptClassifier
from ptune.model.config import PromptConfig
from ptune.model.decision import Decision

SINGLE_COLUMNS = {"text": "text", "text_pair": None, "label": "label"}
PAIR_COLUMNS = {"text": "text", "text_pair": "other", "label": "label"}
KINDS: dict[str, dict[str, Any]] = {
    "reviews": {"labels": ["negative", "positive"]},
    "moods": {"labels": ["negative", "positive"], "seed": 3},
    "topics": {"labels": ["business", "politics", "science", "sport", "tech", "travel", "weather"], "tokens": 3},
    "flags": {"labels": ["insult", "threat", "spam"], "problem_type": "multi_label_classification"},
    "hints": {
        "labels": ["insult", "threat", "spam"],
        "problem_type": "multi_label_classification",
        "decision": Decision((0.2, 0.95, 0.99)),
    },
    "one-hint": {
        "labels": ["insult", "threat", "spam"],
        "problem_type": "multi_label_classification",
        "decision": Decision((0.999, 0.999, 0.999), at_least_one=True),
    },
    "stars": {"labels": ["stars"], "problem_type": "regression"},
    "mrpc": {"labels": ["different", "same"], "columns": PAIR_COLUMNS, "tokens": 5},
}


@torch.no_grad()
def save_kind(folder: Path, backbone: Backbone, name: str, seed: int = 0) -> Path:
    """Write an adapter of a kind, with random weights, and return its folder."""
    kind = {"tokens": 4, "problem_type": "single_label_classification", "columns": SINGLE_COLUMNS, **KINDS[name]}
    seed += kind.get("seed", 0) + sorted(KINDS).index(name)
    config = PromptConfig(virtual_tokens=kind["tokens"])
    model = PromptClassifier(backbone, config, kind["labels"], seed=seed, problem_type=kind["problem_type"])
    draw = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        if weight.requires_grad:
            weight += torch.randn(weight.shape, generator=draw)
    task = TaskInfo(columns=kind["columns"], decision=kind.get("decision", Decision()))
    save_adapter(folder / name, model, Record.of(model, task, max_length=48))
    return folder / name


def save_kinds(folder: Path, backbone: Backbone, names: list[str] | None = None) -> Path:
    """Write one adapter of each kind into a folder, and return the folder."""
    for name in names or KINDS:
        save_kind(folder, backbone, name)
    return folder


def copies(folder: Path, source: str, count: int) -> None:
    """Copy an adapter under so many names."""
    for number in range(count):
        shutil.copytree(folder / source, folder / f"{source}-{number:04d}")


class RunningServer:
    """Serves until the block ends.

    Args:
        settings: of the server.
    """

    def __init__(self, **settings: Any) -> None:
        import uvicorn

        from ptune.serving.app import create_app
        from ptune.serving.protocol import LimitedConfig
        from ptune.serving.settings import ServeSettings

        self.settings = ServeSettings(**settings)
        self.app = create_app(self.settings)
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        options = {"log_config": None, "access_log": False, "server_header": False}
        self._server = uvicorn.Server(LimitedConfig(self.app, self.settings.body_timeout, **options))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self.socket]})

    def __enter__(self) -> RunningServer:
        self._thread.start()
        end = time.monotonic() + 30
        while not self.app.state.service.ready:
            assert time.monotonic() < end, "the server did not start"
            assert self._thread.is_alive(), "the server has stopped"
            time.sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(30)
        self.socket.close()
