"""Several processes train what a single one trains."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import ptune
from ptune.cli import main
from ptune.errors import ConfigError, TrainingError
from ptune.processes import Processes, gradients

OPTIONS = [
    "--method",
    "deep",
    "--virtual-tokens",
    "4",
    "--objective",
    "labels",
    "--dtype",
    "float32",
    "--device",
    "cpu",
]
OPTIONS += ["--lr", "0.003", "--seed", "3"]


def _launch(
    count: int, arguments: list[str], program: Sequence[str] = ("-m", "ptune", "train")
) -> list[subprocess.Popen]:
    """Start a program in processes, as torchrun does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = []
    for rank in range(count):
        places = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
        places |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-W", "ignore", *program, *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, env={**os.environ, **places}, **pipes))
    return started


def _finish(processes: list[subprocess.Popen]) -> list[tuple[str, str]]:
    outputs = [process.communicate(timeout=180) for process in processes]
    for process, (_, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, errors
    return outputs


def _same(first: Path, second: Path) -> None:
    """Check that two runs have the same adapter and metrics, up to rounding."""
    one, two = (load_file(folder / "adapter_model.safetensors") for folder in (first, second))
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, atol=2e-4, rtol=1e-3)
    lines = [
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()] for folder in (first, second)
    ]
    assert len(lines[0]) == len(lines[1])
    for expected, line in zip(*lines, strict=True):
        assert line["loss"] == pytest.approx(expected["loss"], abs=1e-3)
        assert line["train_loss"] == pytest.approx(expected["train_loss"], abs=1e-3)
        assert line["accuracy"] == pytest.approx(expected["accuracy"], abs=0.05)


@pytest.fixture(scope="module")
def places(backbone_folder, reviews) -> list[str]:
    return ["--backbone", str(backbone_folder("bert")), "--data", str(reviews)]


@pytest.fixture(scope="module")
def alone(places, tmp_path_factory) -> Path:
    """A run in one process with batches of 12."""
    folder = tmp_path_factory.mktemp("alone")
    main(["train", *places, "--output", str(folder), *OPTIONS, "--epochs", "2", "--batch-size", "12"])
    return folder


@pytest.mark.parametrize("count", [2, pytest.param(3, marks=pytest.mark.long)])
def test_processes_equal_one(count, places, alone, tmp_path) -> None:
    arguments = [*places, "--output", str(tmp_path), *OPTIONS, "--epochs", "2", "--batch-size", str(12 // count)]
    outputs = _finish(_launch(count, arguments))
    _same(alone, tmp_path)
    assert "adapter:" in outputs[0][0]
    assert [out for out, _ in outputs[1:]] == [""] * (count - 1)


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("bert", ["--method", "deep", "--gradient-checkpointing"]),
        pytest.param("bert", ["--method", "p-tuning"], marks=pytest.mark.long),
        pytest.param("llama", ["--method", "p-tuning", "--seeds", "2"], marks=pytest.mark.long),
        pytest.param("bloom", ["--method", "deep"], marks=pytest.mark.long),
        pytest.param("albert", ["--method", "deep"], marks=pytest.mark.long),
        pytest.param("deberta-v2", ["--method", "deep"], marks=pytest.mark.long),
    ],
)
def test_a_backbone_that_is_spread_over_processes_trains_the_same(
    family, options, backbone_folder, reviews, tmp_path
) -> None:
    """With 11 rows a batch and two processes, their numbers of rows and of passes differ."""
    places = ["--backbone", str(backbone_folder(family)), "--data", str(reviews), *OPTIONS[2:], *options]
    main(["train", *places, "--output", str(tmp_path / "alone"), "--epochs", "1", "--batch-size", "12"])
    sharded = [*places, "--output", str(tmp_path / "sharded"), "--epochs", "1", "--batch-size", "6", "--shard"]
    _finish(_launch(2, sharded))
    _same(tmp_path / "alone", tmp_path / "sharded")


def test_each_process_holds_a_part_of_every_layer(backbone_folder, tmp_path) -> None:
    program = """
import sys, torch
import ptune
from ptune.processes import Processes
backbone = ptune.load_backbone(sys.argv[1], dtype="float32", device="cpu", shard=True)
whole = sum(parameter.numel() for parameter in backbone.base.encoder.parameters())
held = sum(parameter.to_local().numel() for parameter in backbone.base.encoder.parameters())
assert held <= 0.52 * whole, (held, whole)
inputs = ptune.data.batch.Inputs(torch.full((1, 5), 7), None)
for _ in range(3 if Processes.launched().first else 1):  # the other one has fewer passes
    with torch.no_grad():
        states = backbone(inputs).states
with torch.no_grad():
    backbone.shards.wait_for_others(lambda: backbone(inputs))
plain = ptune.load_backbone(sys.argv[1], dtype="float32", device="cpu")
torch.testing.assert_close(states, plain(inputs).states, atol=1e-5, rtol=1e-5)
"""
    _finish(_launch(2, [str(backbone_folder("bert"))], ("-c", program)))


def test_a_sharded_backbone_needs_whole_weights(backbone_folder) -> None:
    with pytest.raises(ConfigError, match="`shard` spreads layers over processes; it cannot be used with `quan"):
        ptune.load_backbone(str(backbone_folder("bert")), quantize="8bit", shard=True)


def test_one_process_shards_nothing(backbone_folder, caplog) -> None:
    assert ptune.load_backbone(str(backbone_folder("bert")), device="cpu", shard=True).shards is None
    assert "`shard` has no effect: there is one process" in caplog.text


def test_killed_and_resumed_with_one(places, alone, tmp_path) -> None:
    arguments = [*places, "--output", str(tmp_path), *OPTIONS, "--epochs", "2", "--batch-size", "6"]
    processes = _launch(2, [*arguments, "--checkpoint-steps", "1"])
    deadline = time.monotonic() + 120
    while not (tmp_path / "checkpoint.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    for process in processes:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    main(["train", "--resume", "--output", str(tmp_path)])
    _same(alone, tmp_path)


@pytest.mark.slow
def test_processes_that_read_other_rows_end_with_an_error(places, reviews, tmp_path) -> None:
    """As on two machines, one of which has an old copy of the data."""
    shutil.copytree(reviews, tmp_path / "old")
    path = tmp_path / "old" / "train.jsonl"
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    code = "import os, sys; os.chdir(sys.argv[1] + os.environ['RANK']); from ptune.cli import main; main(sys.argv[2:])"
    for rank, data in (("0", reviews), ("1", tmp_path / "old")):
        (tmp_path / f"at{rank}").mkdir()
        (tmp_path / f"at{rank}" / "data").symlink_to(data)
    arguments = [*places[:2], "--data", "data", "--output", str(tmp_path / "run"), *OPTIONS, "--epochs", "1"]
    running = _launch(2, [str(tmp_path / "at"), "train", *arguments], ("-c", code))
    errors = [process.communicate(timeout=180)[1] for process in running]
    assert [process.returncode for process in running] == [2, 2], errors
    assert "process 1 does not train the same as the first process: the training or validation rows" in errors[1]
    assert not (tmp_path / "run" / "ptune.json").exists()


@pytest.mark.slow
def test_what_the_first_process_refuses_ends_all(places, alone) -> None:
    running = _launch(2, [*places, "--output", str(alone), *OPTIONS])
    errors = [process.communicate(timeout=180)[1] for process in running]
    assert [process.returncode for process in running] == [2, 2], errors
    assert "--overwrite" in errors[0]
    assert errors[1] == ""


def test_standard_input_is_for_one_process(places, tmp_path, monkeypatch, capsys) -> None:
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "1")):
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit):
        main(["train", *places[:2], "--data=-", "--output", str(tmp_path / "run")])
    assert "--data - is standard input, which only one of several processes can read" in capsys.readouterr().err


def test_a_process_that_is_gone_is_told_in_plain_words(monkeypatch) -> None:
    def closed(*_: object, **__: object) -> None:
        raise RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer")

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "barrier", closed)
    with pytest.raises(TrainingError, match="another process of the run has ended"):
        Processes(2, 0).wait()


@pytest.mark.long
def test_stopped_together(places, tmp_path) -> None:
    """A signal to one process stops all of them between two steps."""
    arguments = [*places, "--output", str(tmp_path), *OPTIONS, "--epochs", "500", "--batch-size", "6"]
    processes = _launch(2, arguments)
    while not (tmp_path / "metrics.jsonl").exists() and processes[0].poll() is None:
        time.sleep(0.05)
    processes[1].send_signal(signal.SIGTERM)
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [130, 130]
    assert "continue with --resume" in outputs[0][1]
    assert (tmp_path / "checkpoint.safetensors").exists()


def test_one_process_exchanges_nothing() -> None:
    alone = Processes()
    tensor = torch.ones(2)
    alone.add_up([tensor])
    assert tensor.tolist() == [1, 1]
    assert alone.any(True)
    assert not alone.any(False)
    assert alone.share([1, 2, 3]) == [1, 2, 3]
    assert alone.text_of_first("text") == "text"
    parameter = torch.nn.Parameter(torch.ones(3))
    assert gradients([parameter])[0].tolist() == [0, 0, 0]
    assert [Processes(2, rank).share(range(5)) for rank in (0, 1)] == [range(0, 5, 2), range(1, 5, 2)]


SCRIPT = """
import sys
import ptune
from ptune.model.tokenizer import tokenizer_of
from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

backbone, data, folder, batch = sys.argv[1:]
loaded, rows = ptune.load_backbone(backbone, dtype="float32", device="cpu"), ptune.load_data(data)
prompt = ptune.PromptConfig(method="deep", virtual_tokens=4)
model, tokenizer = ptune.PromptClassifier.for_data(loaded, rows, prompt), tokenizer_of(loaded)
examples = [{**tokenizer(text), "labels": n} for text, n in zip(rows.train.texts, rows.train.labels)]
arguments = TrainingArguments(
    folder, per_device_train_batch_size=int(batch), num_train_epochs=1, learning_rate=3e-3, report_to=[], use_cpu=True,
    ddp_backend="gloo", seed=1, logging_strategy="no", save_strategy="no", disable_tqdm=True,
    dataloader_drop_last=True,
)
trainer = Trainer(model, arguments, DataCollatorWithPadding(tokenizer), examples, processing_class=tokenizer)
trainer.train()
trainer.save_model(folder)
"""


@pytest.mark.long
def test_the_trainer_distributes_a_classifier(places, tmp_path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    for count in (1, 2):
        output, batch = str(tmp_path / str(count)), str(12 // count)
        _finish(_launch(count, [places[1], places[3], output, batch], [str(script)]))
    output = str(tmp_path / "accelerate")
    options = ["--multi_gpu", "--num_processes=2", "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no"]
    command = [sys.executable, "-m", "accelerate.commands.launch", *options, str(script), places[1], places[3]]
    subprocess.run([*command, output, "6"], check=True, capture_output=True, timeout=180)
    one, two, three = (
        ptune.load(tmp_path / name, dtype="float32").predict("a good film")[0] for name in ("1", "2", "accelerate")
    )
    assert one["score"] == pytest.approx(two["score"], abs=1e-4)
    assert three["score"] == pytest.approx(two["score"], abs=1e-4)
