"""A server on loopback with adapters of every kind over a tiny backbone."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import uvicorn
from pydantic import SecretStr

from ptune.adapter.folder import save_adapter
from ptune.adapter.layout import RECORD_FILE, Record, TaskInfo
from ptune.data.targets import MULTI, REGRESSION, SINGLE
from ptune.model.backbone import Backbone
from ptune.model.classifier import PromptClassifier
from ptune.model.config import PromptConfig
from ptune.model.decision import Decision
from ptune.model.ensemble import PromptEnsemble
from ptune.serving.app import create_app
from ptune.serving.settings import ServeSettings

USER, ADMIN = "user-key-of-16-characters", "admin-key-of-16-characters"
TEXTS = ["a good film", "bad", "the plot was slow and it ends", "a cast", "very good and very slow " * 9]


def put_adapter(
    folder: Path,
    backbone: Backbone,
    labels: list[str],
    *,
    members: int = 1,
    problem_type: Any = SINGLE,
    seed: int = 0,
    pairs: bool = False,
    **settings: Any,
) -> None:
    """An adapter with random weights that tell texts apart."""
    config = PromptConfig(**{"virtual_tokens": 4, **settings})
    models = [
        PromptClassifier(backbone, config, labels, None, seed + number, problem_type) for number in range(members)
    ]
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for model in models:
            model.fresh_head = False
            for parameter in [*model.prompt_encoder.parameters(), *model.head.parameters()]:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    decision = Decision((0.3, 0.6, 0.5)) if problem_type == MULTI else Decision()
    columns = {"text": "sentence1", "text_pair": "sentence2", "label": "label"} if pairs else {}
    task = TaskInfo(columns, temperature=1.7 if problem_type == SINGLE else 1.0, decision=decision)
    model = models[0] if members == 1 else PromptEnsemble(models)
    separator = {"pair_separator": ""} if pairs else {}
    save_adapter(folder, model, Record.of(model, task, max_length=20, **separator))


def put_all(folder: Path, backbone: Backbone) -> None:
    """Adapters that differ in everything that adapters may differ in."""
    put_adapter(folder / "reviews", backbone, ["negative", "positive"], seed=1)
    put_adapter(folder / "spam", backbone, ["ham", "spam"], seed=2)
    put_adapter(folder / "topics", backbone, ["news", "sport", "film"], seed=3, virtual_tokens=3, pooling="first")
    put_adapter(folder / "last", backbone, ["a", "b"], seed=4, softmax="shared", pooling="last")
    put_adapter(folder / "peft", backbone, ["no", "yes"], seed=5, method="p-tuning")
    put_adapter(folder / "shallow", backbone, ["no", "yes", "maybe"], seed=6, method="prompt-tuning")
    put_adapter(folder / "template", backbone, ["no", "yes"], seed=7, template="film: {text} was")
    put_adapter(folder / "ensemble", backbone, ["no", "yes"], seed=8, members=3)
    put_adapter(folder / "several", backbone, ["x", "y", "z"], seed=9, problem_type=MULTI)
    put_adapter(folder / "stars", backbone, ["stars"], seed=10, problem_type=REGRESSION)
    put_adapter(folder / "pairs", backbone, ["other", "same"], seed=11, pairs=True)
    put_adapter(folder / "written-by-peft", backbone, ["LABEL_0", "LABEL_1"], seed=12, method="p-tuning")
    (folder / "written-by-peft" / RECORD_FILE).unlink()


class Client:
    """HTTP over one connection, as simple as it gets."""

    def __init__(self, port: int, key: str | None = None) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self.last: dict[str, str] = {}

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """The status, and the JSON of the answer, or its text."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        sent = {**self.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
        try:
            connection.request(method, path, data, sent)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        self.last = {name.lower(): value for name, value in answer.getheaders()}
        is_json = self.last.get("content-type", "").startswith("application/json")
        return answer.status, json.loads(content) if content and is_json else content.decode()

    def post(self, path: str, body: Any, **headers: str) -> Any:
        """The JSON of an answer with status 200."""
        status, content = self("POST", path, body, **headers)
        assert status == 200, content
        return content

    def get(self, path: str) -> Any:
        status, content = self("GET", path)
        assert status == 200, content
        return content


def settings_of(*places: object, **settings: Any) -> ServeSettings:
    """Settings for tests: every change of the folder is asked for, and logs are quiet."""
    secrets = {name: [SecretStr(key) for key in settings.pop(name, [])] or None for name in ("api_keys", "admin_keys")}
    quiet = {"log_requests": False, "watch_seconds": 0, "drain_seconds": 0, "max_wait": 60}
    return ServeSettings(adapters=[str(place) for place in places], **{**quiet, **secrets, **settings})


@contextmanager
def running(settings: ServeSettings, app: Any = None) -> Iterator[Client]:
    """A server in a thread. The application is `client.app`."""
    app = app or create_app(settings)
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    options = {"log_config": None, "access_log": False, "timeout_graceful_shutdown": 10}
    server = uvicorn.Server(uvicorn.Config(app, **options))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    client = Client(listening.getsockname()[1], ADMIN if settings.admin_keys else None)
    client.app = app
    client.service = app.state.service
    try:
        wait_for(lambda: client.service.ready, 120)
        yield client
    finally:
        server.should_exit = True
        thread.join()


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "this takes too long"
        time.sleep(0.01)


@pytest.fixture(scope="session")
def adapters(tmp_path_factory: pytest.TempPathFactory, backbone: Callable[..., Backbone]) -> Path:
    """A folder of adapters. Tests leave it as it is."""
    folder = tmp_path_factory.mktemp("adapters")
    put_all(folder, backbone("bert"))
    return folder


@pytest.fixture(scope="module")
def server(adapters: Path) -> Iterator[Client]:
    """A server for all of them."""
    with running(settings_of(adapters, default_adapter="reviews")) as client:
        yield client
