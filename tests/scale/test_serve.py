"""`ptune serve --scale ray`: what is refused before a cluster starts, and two replicas behind one address."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from ptune.cli import main
from ptune.inference.classifier import load
from tests.serving.conftest import put_adapter

TEXTS = ["a good film", "bad", "the plot was slow and it ends", "a cast"]
ADAPTERS = 200


def failure(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(["serve", *map(str, arguments)])
    assert stopped.value.code == 2
    return capsys.readouterr().err


@pytest.fixture(scope="module")
def folder(backbone, tmp_path_factory) -> Path:
    """Two hundred adapters with weights of their own."""
    folder = tmp_path_factory.mktemp("adapters")
    for number in range(ADAPTERS):
        put_adapter(folder / f"a{number}", backbone("bert"), ["negative", "positive"], seed=number)
    return folder


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--min-replicas", "3", "--max-replicas", "2"], "--max-replicas is 2, but --min-replicas is 3"),
        (["--workers", "2"], "--workers are processes of one server; with --scale ray give --min-replicas instead"),
        (["--port", "0"], "--port 0 is any free port, and a cluster needs a fixed one"),
        (["--ray-address", "127.0.0.1:1"], "there is no Ray cluster at --ray-address 127.0.0.1:1"),
    ],
)
def test_what_cannot_be_served_is_named_before_a_cluster_starts(options, said, adapter, capsys) -> None:
    assert said in failure(capsys, f"one={adapter}", "--scale", "ray", *options)


def test_options_of_a_cluster_need_one(adapter, capsys) -> None:
    assert "--max-replicas are for --scale ray; add it" in failure(capsys, f"one={adapter}", "--max-replicas", "2")


@pytest.fixture(scope="module")
def adapter(backbone, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    put_adapter(folder, backbone("bert"), ["negative", "positive"])
    return folder


def ask(port: int, name: str, text: str) -> tuple[int, dict[str, float]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", f"/adapters/{name}/predict", json.dumps({"inputs": text}))
        answer = connection.getresponse()
        content = json.loads(answer.read())
    finally:
        connection.close()
    return answer.status, {item["label"]: item["score"] for item in content} if answer.status == 200 else content


def engines(process: subprocess.Popen[Any]) -> list[psutil.Process]:
    """The replicas among the processes that the command has started."""
    names = [(child, " ".join(child.cmdline())) for child in psutil.Process(process.pid).children(recursive=True)]
    return [child for child, name in names if name.startswith("ray::ServeReplica:ptune:engine")]


@pytest.fixture(scope="module")
def serving(folder):
    """The command with two replicas, and its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-W", "ignore", "-m", "ptune", "serve", str(folder), "--scale", "ray"]
    command += ["--min-replicas", "2", "--port", str(port), "--max-wait", "60", "--dtype", "float32", "--device", "cpu"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert f"serving {ADAPTERS} adapters" in line, line
        yield process, port
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


@pytest.mark.long
def test_two_replicas_answer_as_one_server_and_lose_no_request_when_one_is_killed(serving, folder) -> None:
    process, port = serving
    expected = {
        (number, text): load(folder / f"a{number}", dtype="float32", device="cpu").predict(text)[0]["scores"]
        for number in range(ADAPTERS)
        for text in [TEXTS[number % len(TEXTS)]]
    }
    asked = list(expected) * 2

    def check(question: tuple[int, str]) -> None:
        status, scores = ask(port, f"a{question[0]}", question[1])
        assert status == 200, scores
        assert scores == pytest.approx(expected[question], abs=1e-5)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(check, expected))
        assert len(engines(process)) == 2
        answers = [pool.submit(check, question) for question in asked]
        while sum(answer.done() for answer in answers) < len(asked) // 4:
            time.sleep(0.01)
        engines(process)[0].kill()
        for answer in answers:
            answer.result()
    assert ask(port, "nobody", "text")[0] == 404
    end = time.monotonic() + 120
    while len(engines(process)) < 2:  # Serve starts another one
        assert time.monotonic() < end
        time.sleep(0.5)
