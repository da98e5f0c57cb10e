"""`ptune train --resume` with nothing but the output folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ptune.cli import main
from ptune.cli.recorded import OPTIONS_FILE
from ptune.training.checkpoint import CHECKPOINT_FILE
from ptune.training.run import Run
from tests.conftest import review_rows, write_jsonl


def last_json(capsys) -> dict:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def error(capsys, *tokens) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main([str(token) for token in tokens])
    assert caught.value.code == 2
    return capsys.readouterr().err.splitlines()[-1].removeprefix("ptune: error: ")


@pytest.fixture(scope="module")
def finished(backbone_folder, reviews, tmp_path_factory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("finished") / "out"
    options = ["--epochs", "2", "--virtual-tokens", "4", "--lr", "0.05", "--label", "label", "--max-length", "20"]
    main(["train", "--backbone", str(backbone_folder()), "--data", str(reviews), "--output", str(folder), *options])
    return folder


def test_an_interrupted_run_goes_on_with_its_own_options_from_any_folder(
    finished, backbone_folder, reviews, tmp_path, monkeypatch, capsys
) -> None:
    (tmp_path / "here").mkdir()
    shutil.copytree(reviews, tmp_path / "here" / "data")
    monkeypatch.chdir(tmp_path / "here")
    options = ["--epochs", "2", "--virtual-tokens", "4", "--lr", "0.05", "--label", "label", "--max-length", "20"]
    end_epoch = Run._end_epoch

    def interrupted(run, log) -> None:
        end_epoch(run, log)
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "_end_epoch", interrupted)
    with pytest.raises(SystemExit):
        main(["train", "--backbone", str(backbone_folder()), "--data", "data", "--output", "out", *options])
    monkeypatch.setattr(Run, "_end_epoch", end_epoch)
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    capsys.readouterr()
    main(["train", "--resume", "--output", "../here/out", "--json"])
    answer = last_json(capsys)
    whole = json.loads((finished / "metrics.jsonl").read_text().splitlines()[answer["best_epoch"] - 1])
    assert answer["epochs"] == 2
    assert {name: whole[name] for name in answer["metrics"]} == answer["metrics"]


def test_the_record_is_a_configuration_file_without_defaults(finished, backbone_folder, reviews, tmp_path, capsys):
    record = json.loads((finished / OPTIONS_FILE).read_text())
    options = {"epochs": 2, "virtual_tokens": 4, "lr": 0.05, "label": ["label"], "max_length": 20}
    assert record == {"backbone": str(backbone_folder()), "data": str(reviews), **options}
    main(["train", "--config", str(finished / OPTIONS_FILE), "--output", str(tmp_path / "again")])
    assert (tmp_path / "again" / "ptune.json").read_text() == (finished / "ptune.json").read_text()


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (["--epochs", "5"], "--epochs was 2 and is now 5"),
        (["--seed", "7"], "--seed was not given and is now 7"),
        (["--method", "p-tuning", "--lr", "0.1"], "--lr was 0.05 and is now 0.1, --method was not given and is now"),
    ],
)
def test_a_changed_option_is_named(changed, expected, finished, capsys) -> None:
    message = error(capsys, "train", "--resume", "--output", finished, *changed)
    assert f"the run in '{finished}' cannot be resumed with other options: {expected}" in message
    assert "or train without --resume" in message


def test_other_rows_and_another_backbone_are_named_and_not_shown_as_hashes(
    finished, language_model_folder, tmp_path, capsys
) -> None:
    (tmp_path / "data").mkdir()
    write_jsonl(tmp_path / "data" / "train.jsonl", review_rows(40, seed=9))
    arguments = ("train", "--resume", "--output", finished, "--data", tmp_path / "data")
    message = error(capsys, *arguments, "--backbone", language_model_folder("bert"))
    assert "the backbone has other weights, the training or validation rows are not the same" in message


def test_a_run_without_a_report_is_resumed_without_one(backbone_folder, reviews, tmp_path) -> None:
    arguments = ["train", "--backbone", str(backbone_folder()), "--data", str(reviews), "--epochs", "1"]
    main([*arguments, "--output", str(tmp_path / "run"), "--no-report"])
    main(["train", "--resume", "--output", str(tmp_path / "run")])
    assert not (tmp_path / "run" / "report.html").exists()


def test_what_does_not_change_the_result_may_change(finished, reviews, tmp_path, capsys) -> None:
    moved = Path(shutil.copytree(reviews, tmp_path / "moved"))
    main(["train", "--resume", "--output", str(finished), "--data", str(moved), "--checkpoint-steps", "5"])
    assert "already finished" in capsys.readouterr().err


def test_a_folder_without_a_run_is_named_with_what_to_give(finished, tmp_path, capsys) -> None:
    message = error(capsys, "train", "--resume", "--output", tmp_path)
    assert f"no {OPTIONS_FILE} in '{tmp_path}'" in message
    assert "give --backbone and --data too" in message
    assert "there is no folder" in error(capsys, "train", "--resume", "--output", tmp_path / "none")
    assert "--output is missing; name the folder of the run" in error(capsys, "train", "--resume")
    assert "give --data too" in error(capsys, "train", "--resume", "--output", tmp_path, "--backbone", "b")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_record_is_named(finished, tmp_path, capsys) -> None:
    (tmp_path / OPTIONS_FILE).write_text("{")
    assert f"{OPTIONS_FILE}' is not valid JSON" in error(capsys, "train", "--resume", "--output", tmp_path)


def test_a_run_that_was_stopped_in_its_cross_validation_goes_on_with_its_own_options(
    backbone_folder, reviews, tmp_path, monkeypatch, capsys
) -> None:
    options = ["--backbone", str(backbone_folder()), "--data", str(reviews / "train.jsonl"), "--virtual-tokens", "4"]
    folder, begin = str(tmp_path / "run"), Run._train_epoch
    folds: list[int] = []

    def interrupted(run) -> None:
        folds.append(len(run.train_rows.labels))
        if len(folds) == 2:
            raise KeyboardInterrupt
        begin(run)

    monkeypatch.setattr(Run, "_train_epoch", interrupted)
    with pytest.raises(SystemExit):
        main(["train", *options, "--folds", "2", "--epochs", "1", "--output", folder])
    assert "stopped during the cross-validation; continue with --resume" in capsys.readouterr().err
    main(["train", "--resume", "--output", folder, "--json"])
    assert len(folds) == 4  # the second fold again, and the training on all rows
    assert last_json(capsys)["epochs"] == 1


def test_a_configuration_file_may_ask_to_resume(finished, tmp_path, capsys) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(f"output: {finished}\nresume: true\n")
    main(["train", "--config", str(path)])
    assert "already finished" in capsys.readouterr().err
    path.write_text(f"output: {finished}\nresume: true\nepochs: 9\n")
    assert "--epochs was 2 and is now 9" in error(capsys, "train", "--config", path)


def test_a_run_that_was_begun_in_python_needs_its_options(finished, backbone_folder, reviews, tmp_path, capsys) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "out"))
    (folder / OPTIONS_FILE).unlink()
    assert (folder / CHECKPOINT_FILE).is_file()
    given = ["--backbone", str(backbone_folder()), "--data", str(reviews), "--resume", "--output", str(folder)]
    options = ["--epochs", "2", "--virtual-tokens", "4", "--lr", "0.05", "--max-length", "20"]
    main(["train", *given, *options])
    assert "already finished" in capsys.readouterr().err
    message = error(capsys, "train", *given, *options, "--seed", "9")
    assert "--seed was 0 and is now 9" in message


@pytest.mark.parametrize("before", [["--lr", "0.05"], ["--lr", "0.05", "--folds", "2"]], ids=["epochs", "folds"])
def test_a_run_that_died_early_is_not_taken_for_the_one_before_it(
    before, backbone_folder, tmp_path, monkeypatch
) -> None:
    data = write_jsonl(tmp_path / "data.jsonl", review_rows(40))
    command = ["train", "--backbone", str(backbone_folder()), "--data", str(data), "--epochs", "1", "--no-report"]
    main([*command, "--output", str(tmp_path / "fresh")])
    output = ["--output", str(tmp_path / "out")]
    main([*command, *output, *before])

    def killed(run, log) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(Run, "_end_epoch", killed)  # before its first checkpoint
        with pytest.raises(RuntimeError, match="killed"):
            main([*command, *output, "--overwrite"])
    main(["train", "--resume", *output, "--overwrite"])
    fresh, resumed = (tmp_path / name / "adapter_model.safetensors" for name in ("fresh", "out"))
    assert resumed.read_bytes() == fresh.read_bytes()
