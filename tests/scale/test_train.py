"""`ptune train --scale ray`: what workers say and raise, and two workers that train what one process trains."""

from __future__ import annotations

import json
import queue
import subprocess
import sys

import pytest

from ptune.cli import main
from ptune.errors import DataError
from ptune.scale.train import _print, _run_worker
from tests.training.test_processes import OPTIONS, _same


def failure(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(["train", *map(str, arguments)])
    assert stopped.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(("rank", "sent"), [("0", [("output", ("stdout", "line"))]), ("1", [])])
def test_what_the_first_worker_prints_is_printed_by_the_command(rank, sent, monkeypatch, capsys) -> None:
    messages: queue.Queue = queue.Queue()
    monkeypatch.setenv("RANK", rank)
    _run_worker({"work": lambda: sys.stdout.write("line"), "messages": messages})
    assert list(messages.queue) == sent
    capsys.readouterr()
    messages.put(("end", ""))
    _print(messages, [])
    assert capsys.readouterr().out == "".join(text for _, (_, text) in sent)


def test_an_error_of_a_worker_is_raised_by_the_command(monkeypatch) -> None:
    def fail() -> None:
        raise DataError("data 'a.csv': there is no such file")

    messages: queue.Queue = queue.Queue()
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(DataError):
        _run_worker({"work": fail, "messages": messages})
    messages.put(("end", ""))
    failed: list = []
    _print(messages, failed)
    assert [(type(err), str(err)) for err in failed] == [(DataError, "data 'a.csv': there is no such file")]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--workers", "2"], "--workers and --ray-address are for --scale ray; add it"),
        (["--scale", "ray", "--ray-address", "127.0.0.1:1"], "there is no Ray cluster at --ray-address 127.0.0.1:1"),
    ],
)
def test_options_that_do_not_go_together_are_named(options, said, backbone_folder, reviews, tmp_path, capsys) -> None:
    places = ["--backbone", backbone_folder("bert"), "--data", reviews, "--output", tmp_path]
    assert said in failure(capsys, *places, *options)


def test_what_workers_could_not_share_is_refused(backbone_folder, reviews, tmp_path, capsys) -> None:
    bert = ["--backbone", backbone_folder("bert"), "--scale", "ray"]
    assert "all workers need the folder as a path" in failure(capsys, *bert, "--data", reviews, "--output", "s3://b/a")
    assert "reads data that all workers see" in failure(capsys, *bert, "--data=-", "--output", tmp_path)


@pytest.mark.long
def test_two_workers_of_a_cluster_equal_one_process(backbone_folder, reviews, tmp_path) -> None:
    places = ["--backbone", str(backbone_folder("bert")), "--data", str(reviews)]
    main(["train", *places, "--output", str(tmp_path / "one"), *OPTIONS, "--epochs", "2", "--batch-size", "12"])
    arguments = [*places, "--output", str(tmp_path / "two"), *OPTIONS, "--epochs", "2", "--batch-size", "6", "--json"]
    command = [sys.executable, "-W", "ignore", "-m", "ptune", "train", *arguments, "--scale", "ray", "--workers", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert json.loads(lines[-1])["adapter"] == str(tmp_path / "two")
    said = [line for line in done.stderr.splitlines() if line.startswith("epoch ")]
    assert len(said) == len(set(said)) == 2
    assert lines[-1] not in done.stderr
    _same(tmp_path / "one", tmp_path / "two")
