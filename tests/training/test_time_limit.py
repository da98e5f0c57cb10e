"""Runs that end when their time is over."""

from __future__ import annotations

import json

import pytest

import ptune
from ptune.cli import main
from ptune.durations import in_words
from ptune.training import time_limit
from ptune.training.time_limit import Deadline, seconds_of


class Clock:
    """A clock that goes on by a second at every look."""

    def __init__(self, monkeypatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(time_limit.time, "monotonic", self)

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    class Time:
        monotonic = None

    monkeypatch.setattr(time_limit, "time", Time)
    return Clock(monkeypatch)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("10m", 600),
        ("10 min", 600),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("45", 45),
        (12.5, 12.5),
        (None, None),
    ],
)
def test_times_are_read_as_people_write_them(text, seconds) -> None:
    assert seconds_of(text) == seconds
    assert ptune.TrainConfig(time_limit=text).time_limit == seconds


def test_times_in_words() -> None:
    words = ["45 s", "90.5 s", "119 s", "2 min", "10 min", "1 h", "1 h 30 min"]
    assert [in_words(each) for each in (45, 90.5, 119, 121, 600, 3600, 5400)] == words


@pytest.mark.parametrize("wrong", ["soon", "10x", "", "-5", "0", "m10"])
def test_what_is_no_time_is_refused(wrong, capsys, tmp_path) -> None:
    with pytest.raises(ValueError, match="time"):
        ptune.TrainConfig(time_limit=wrong)
    with pytest.raises(SystemExit) as stop:
        main(["train", "--backbone", "a", "--data", "b", "--output", str(tmp_path / "c"), f"--time-limit={wrong}"])
    assert stop.value.code == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert "time-limit" in printed


def test_a_deadline_leaves_time_for_the_last_measurement(clock) -> None:
    deadline = Deadline(10)  # the clock shows 1
    assert not deadline.over
    deadline.reserved = 9
    assert deadline.over
    deadline.reserved = 0  # a validation that was faster than the one before
    assert deadline.over  # the run has begun to end
    assert not Deadline(None).over


def train(backbone_folder, reviews, output, capsys, *options: str):
    arguments = ["--backbone", backbone_folder("bert"), "--data", reviews, "--output", output]
    main(["train", *map(str, arguments), "--no-report", "--json", *options])
    printed = capsys.readouterr()
    return json.loads(printed.out.splitlines()[-1]), printed.err


def test_a_run_ends_in_time_keeps_the_best_and_says_what_is_left_out(
    backbone_folder, reviews, tmp_path, capsys, clock
) -> None:
    answer, said = train(backbone_folder, reviews, tmp_path, capsys, "--epochs", "6", "--patience", "0",
                         "--time-limit", "10s")  # fmt: skip
    assert 1 <= answer["epochs"] < 6
    record = ptune.read_adapter(tmp_path).record
    assert record.training["best_epoch"] == answer["best_epoch"]
    assert f"in epoch {answer['epochs']} of 6; epoch {answer['best_epoch']} is kept" in said
    assert "the time limit of 10 s was reached" in said
    assert "time_limit" not in record.training


def test_a_run_that_was_ended_can_go_on(backbone_folder, reviews, tmp_path, capsys, clock) -> None:
    first, _ = train(
        backbone_folder, reviews, tmp_path, capsys, "--epochs", "6", "--patience", "0", "--time-limit", "10s"
    )
    main(["train", "--resume", "--output", str(tmp_path), "--time-limit", "1h", "--no-report", "--json"])
    printed = capsys.readouterr()
    second = json.loads(printed.out.splitlines()[-1])
    assert first["epochs"] < second["epochs"] == 6
    assert "time limit" not in printed.err


def test_a_limit_that_is_not_reached_changes_nothing(backbone_folder, reviews, tmp_path, capsys) -> None:
    train(backbone_folder, reviews, tmp_path / "a", capsys, "--epochs", "1")
    _, said = train(backbone_folder, reviews, tmp_path / "b", capsys, "--epochs", "1", "--time-limit", "1h")
    files = [(tmp_path / name / "adapter_model.safetensors").read_bytes() for name in "ab"]
    assert files[0] == files[1]
    assert "time limit" not in said


def test_folds_get_a_share_of_the_time_and_the_training_what_is_left(backbone_folder, tmp_path, monkeypatch) -> None:
    from ptune.training import run
    from tests.conftest import review_rows

    limits = []
    monkeypatch.setattr(run, "Deadline", lambda seconds: limits.append(seconds) or Deadline(seconds))
    data = ptune.load_data(review_rows(20))
    model = ptune.PromptClassifier.for_data(str(backbone_folder("bert")), data)
    config = ptune.TrainConfig(epochs=1, folds=2, objective="labels", time_limit="90s")
    ptune.train(model, data, config, output=tmp_path)
    first, second, rest = [limit for limit in limits if limit is not None]
    assert first == second == 30
    assert 30 < rest < 90  # what the folds have left of the whole time
