"""`ptune sweep` from the settings file to the best adapter."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as parquet
import pytest
import yaml

import ptune
from ptune.cli import main
from ptune.cli.sweep_table import trials_table
from ptune.scale import sweep, sweep_results, sweep_trials
from ptune.scale.sweep_trials import Trial, read_trials

SWEEP = {
    "trials": 4,
    "search": "random",
    "space": {"lr": {"log-uniform": [1e-4, 1e-1]}, "virtual_tokens": [2, 3]},
}
Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def no_picture(monkeypatch) -> None:
    """Drawing takes longer than the tiny trainings."""
    monkeypatch.setattr(sweep_results, "have_matplotlib", lambda: False)


@pytest.fixture
def settings_file(tmp_path, backbone_folder, reviews) -> Write:
    """Write a settings file whose sweep goes to tmp_path/out."""

    def write(options: dict[str, Any] | None = None, **section: Any) -> Path:
        content = {
            "backbone": str(backbone_folder("bert")),
            "data": str(reviews),
            "output": str(tmp_path / "out"),
            "epochs": 2,
            "objective": "labels",
            **(options or {}),
            "sweep": {**SWEEP, **section},
        }
        path = tmp_path / "sweep.yaml"
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        return path

    return write


def run(*arguments: object) -> None:
    main(["sweep", *map(str, arguments)])


def test_a_sweep_keeps_the_best_adapter_a_table_and_a_picture(
    settings_file, tmp_path, reviews, capsys, monkeypatch
) -> None:
    monkeypatch.setattr(sweep_results, "have_matplotlib", lambda: True)
    run(settings_file(), "--scale", "local", "--json")
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    table = parquet.read_table(answer["trials"]).to_pylist()
    assert [row["trial_number"] for row in table] == [0, 1, 2, 3]
    best = max(table, key=lambda row: (row["metric_accuracy"], -row["metric_loss"]))
    assert (answer["best_trial"], answer["value"]) == (best["trial_number"], best["trial_value"])
    assert {name: best[name] for name in ("lr", "virtual_tokens")} == answer["settings"]
    classifier = ptune.load(answer["adapter"])
    assert classifier.model.config.virtual_tokens == answer["settings"]["virtual_tokens"]
    metrics = ptune.evaluate(classifier, ptune.load_data(reviews)).metrics
    assert metrics["loss"] == pytest.approx(best["metric_loss"], abs=1e-6)
    assert set(answer["importance"]) == {"lr", "virtual_tokens"}
    assert (tmp_path / "out" / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert not list((tmp_path / "out").rglob("checkpoint.safetensors"))
    options = json.loads((tmp_path / "out" / "best" / "options.json").read_text())
    assert options["lr"] == answer["settings"]["lr"]


def test_a_sweep_that_is_interrupted_keeps_what_is_finished_and_goes_on(settings_file, tmp_path, monkeypatch) -> None:
    path, loaded, steps = settings_file(), [], []
    run(path, "--scale", "local", "--output", tmp_path / "whole")
    run_trial = sweep.run_trial

    def interrupted(trial: Trial, *arguments: Any) -> Trial:
        if trial.number == 2:

            def report(number: int, line: dict[str, Any]) -> bool:
                raise KeyboardInterrupt

            arguments = (*arguments[:-1], report)
        return run_trial(trial, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(sweep, "run_trial", interrupted)
        with pytest.raises(SystemExit) as stopped:
            run(path, "--scale", "local")
    assert stopped.value.code == 130
    assert [trial.state for trial in read_trials(tmp_path / "out")] == ["finished", "finished", "waiting"]
    kept = (tmp_path / "out" / "trials" / "0001" / "trial.json").stat().st_mtime_ns
    load = sweep_trials.Task.load_backbone
    monkeypatch.setattr(sweep_trials.Task, "load_backbone", lambda task: loaded.append(1) or load(task))
    monkeypatch.setattr(
        sweep, "run_trial", lambda trial, *others: steps.append(trial.number) or run_trial(trial, *others)
    )
    run(path, "--scale", "local", "--resume")
    assert steps == [2, 3]
    assert len(loaded) == 1
    assert (tmp_path / "out" / "trials" / "0001" / "trial.json").stat().st_mtime_ns == kept
    whole, parts = (read_trials(tmp_path / name) for name in ("whole", "out"))
    assert [(t.values, t.metrics, t.history) for t in parts] == [(t.values, t.metrics, t.history) for t in whole]
    for name in ("best", "trials/0002"):
        files = [tmp_path / part / name / "adapter_model.safetensors" for part in ("whole", "out")]
        assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"space": {"learning_rat": [0.1]}}, "sweep.yaml': sweep: space: 'learning_rat' is not a setting"),
        ({"trails": 5}, "trails"),
        ({"metric": "acuracy"}, "metric 'acuracy' is not a metric of single_label_classification; use one of accuracy"),
    ],
)
def test_a_mistake_in_the_section_ends_the_command_before_anything_is_written(
    settings_file, tmp_path, capsys, section, message
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(settings_file(**section), "--scale", "local")
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("options", [("--workers", "2"), ("--ray-address", "127.0.0.1:1")])
def test_options_of_a_cluster_are_refused_without_one(settings_file, tmp_path, capsys, options) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(settings_file(), "--scale", "local", *options)
    assert stopped.value.code == 2
    assert "are for --scale ray" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_settings_file_without_the_section_or_the_data_is_named(settings_file, tmp_path, capsys) -> None:
    path = tmp_path / "plain.yaml"
    for content, message in (
        ("backbone: b\ndata: d\noutput: o\n", "there is no section 'sweep'; add one, such as"),
        ("backbone: b\nsweep: {space: {lr: [0.1]}}\n", "missing data and output"),
        ("backbone: b\ndata: d\noutput: s3://b/o\nsweep: {space: {lr: [0.1]}}\n", "a sweep needs a folder on disk"),
        ("workers: 7\nray-address: head:1\nsweep: {}\n", "give --ray-address and --workers there"),
        ("backbone: b\nsweep: {space: {lr: [0.1]}}\nepoch: 1\n", "unknown key 'epoch', did you mean 'epochs'"),
    ):
        path.write_text(content)
        with pytest.raises(SystemExit) as stopped:
            run(path, "--scale", "local")
        assert stopped.value.code == 2
        assert message in capsys.readouterr().err


def test_a_sweep_is_neither_replaced_nor_resumed_with_other_settings_unasked(settings_file, tmp_path, capsys) -> None:
    run(settings_file(trials=1), "--scale", "local")
    for other, section, options, message in (
        ({}, {}, (), "holds a sweep already; give another --output, --resume"),
        ({}, {"seed": 1}, ("--resume",), "cannot go on with other settings: sweep.seed was 0 and is 1"),
        ({"epochs": 3}, {}, ("--resume",), "epochs was 2 and is 3"),
    ):
        capsys.readouterr()
        with pytest.raises(SystemExit):
            run(settings_file(other, trials=1, **section), "--scale", "local", *options)
        assert message in capsys.readouterr().err
    run(settings_file({"overwrite": True}, trials=1, seed=1), "--scale", "local")
    assert len(read_trials(tmp_path / "out")) == 1


def test_several_prompts_of_a_trial_share_its_forward_passes(settings_file, tmp_path) -> None:
    run(settings_file({"seeds": 2}, trials=1), "--scale", "local")
    (trial,) = read_trials(tmp_path / "out")
    lines = (trial.folder(tmp_path / "out") / "metrics.jsonl").read_text().splitlines()
    assert [len(json.loads(line)["by_seed"]) for line in lines] == [2, 2]
    assert trial.value == trial.metrics["accuracy"]


def test_a_trial_that_fails_does_not_end_the_sweep(settings_file, tmp_path, monkeypatch, capsys) -> None:
    path = settings_file({"folds": None}, space={"head": ["linear", "verbalizer"]}, search="grid", trials=None)
    run(path, "--scale", "local")
    states = [trial.state for trial in read_trials(tmp_path / "out")]
    assert states == ["finished", "failed"]
    assert "failed: " in capsys.readouterr().out


def test_a_sweep_whose_trials_all_fail_says_why(settings_file, tmp_path, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(settings_file(space={"head": ["verbalizer"]}, search="grid", trials=None), "--scale", "local")
    assert stopped.value.code == 2
    assert "all 1 trials failed; the first one because: " in capsys.readouterr().err


@pytest.mark.long
def test_a_sweep_on_a_cluster_survives_a_lost_worker_and_a_killed_driver(settings_file, tmp_path, capsys) -> None:
    path = settings_file({"epochs": 20, "patience": 0, "dtype": "float32"}, trials=6)
    command = [sys.executable, "-m", "ptune", "sweep", str(path), "--workers", "2"]
    killed = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    wait_for(killed, lambda: any(trial.done for trial in records(tmp_path / "out")))
    killed.kill()
    killed.wait()
    before = {trial.number: trial for trial in records(tmp_path / "out") if trial.done}
    assert 0 < len(before) < 6
    with subprocess.Popen([*command, "--resume", "--json"], stdout=subprocess.PIPE, text=True) as resumed:
        wait_for(resumed, lambda: sum(trial.done for trial in records(tmp_path / "out")) > len(before))
        kill_a_worker_of(resumed.pid)
        answer = json.loads(resumed.communicate()[0].splitlines()[-1])
    after = read_trials(tmp_path / "out")
    assert [trial.state for trial in after] == ["finished"] * 6
    assert {trial.number: trial for trial in after if trial.number in before} == before
    run(path, "--scale", "local", "--output", tmp_path / "one")
    one = read_trials(tmp_path / "one")
    assert [(trial.values, trial.history) for trial in after] == [(trial.values, trial.history) for trial in one]
    assert answer["value"] == max(trial.value for trial in one)


@pytest.mark.long
def test_what_is_wrong_with_the_backbone_on_a_cluster_is_said_in_one_line(settings_file, tmp_path, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(settings_file({"backbone": str(tmp_path / "nothing")}))
    assert not (tmp_path / "out").exists()
    assert stopped.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("ptune: error: backbone")


def records(output: Path) -> list[Trial]:
    """The trials on disk; none while a file is missing."""
    return read_trials(output) if output.exists() else []


def wait_for(process: subprocess.Popen[Any], condition: Callable[[], bool], seconds: float = 600) -> None:
    """Wait until a condition holds while a process runs."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, f"the command has ended with {process.returncode}"
        assert time.monotonic() < end
        time.sleep(0.05)


def kill_a_worker_of(driver: int) -> None:
    """Kill one of the processes that train, as the system does where memory ends."""
    workers = [
        process
        for process in psutil.Process(driver).children(recursive=True)
        if "Worker.work" in process.name() or "Worker.work" in " ".join(process.cmdline())
    ]
    assert workers
    workers[0].kill()


def test_train_takes_the_same_file(settings_file, tmp_path) -> None:
    main(["train", "--config", str(settings_file({"epochs": 1})), "--output", str(tmp_path / "one"), "--no-report"])
    assert (tmp_path / "one" / "ptune.json").exists()


def test_the_live_table_shows_running_trials_and_then_the_best() -> None:
    from rich.console import Console

    trials = [
        Trial(0, {"lr": 0.01}, "finished", 0.5, [0.5], 1),
        Trial(1, {"lr": 0.02}, "finished", 0.9, [0.9], 1),
        Trial(2, {"lr": 0.03}, "running", history=[0.7]),
        Trial(3, {"lr": 0.04}, "failed"),
    ]
    console = Console(width=80, record=True, file=None, quiet=False, force_terminal=False)
    with console.capture() as capture:
        console.print(trials_table(trials, "accuracy", 9))
    text = capture.get()
    assert "3 of 9 trials" in text
    assert [text.index(word) for word in ("0.7000", "0.9000", "0.5000", "failed")] == sorted(
        text.index(word) for word in ("0.7000", "0.9000", "0.5000", "failed")
    )
