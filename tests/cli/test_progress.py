"""Progress of training and prediction: the whole run with the time left, on a terminal and elsewhere."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from ptune.cli import main, progress
from ptune.cli.progress import Progress, folds_progress, rows_progress, training_progress
from ptune.inference.classifier import TextClassifier
from ptune.model.classifier import PromptClassifier
from ptune.model.config import PromptConfig


class Clock:
    """A clock that goes on when it is told to."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_training_counts_all_epochs_and_says_the_time_left(clock, capsys) -> None:
    with training_progress(epochs=10) as on_step:
        for step in range(1, 61):
            clock.now += 1
            on_step(step % 20 + 1, 20, step // 20 + 1, 0.5)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["ptune: epoch 2/10, loss 0.500, 16%, at most 3 min left"]


def test_a_cross_validation_counts_its_folds(clock, capsys) -> None:
    with folds_progress(4) as on_fold:
        for fold in (2, 3, 4):  # the first was measured before the run was stopped
            for step in range(1, 11):
                clock.now += 4
                on_fold(fold, step / 10)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "ptune: cross-validation, fold 2 of 4, 48%, 84 s left",
        "ptune: cross-validation, fold 3 of 4, 68%, 52 s left",
        "ptune: cross-validation, fold 4 of 4, 88%, 20 s left",
    ]


def test_a_resumed_run_measures_its_own_speed(clock, capsys) -> None:
    with training_progress(epochs=10) as on_step:
        on_step(1, 100, 6, 0.5)  # 501 of 1,000 rows before the clock has moved
        clock.now += 40
        on_step(41, 100, 6, 0.25)
    assert capsys.readouterr().err == "ptune: epoch 6/10, loss 0.250, 54%, at most 8 min left\n"


def test_a_short_task_says_nothing(clock, capsys) -> None:
    with training_progress(epochs=1) as on_step:
        for step in range(1, 20):
            clock.now += 1
            on_step(step, 20, 1, 0.5)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("total", "line"),
    [(4000, "ptune: 960 of 4,000 rows, 24%, 95 s left"), (None, "ptune: 960 rows")],
)
def test_prediction_counts_the_rows_once_when_it_takes_long(total, line, clock, capsys) -> None:
    counted = []

    def count() -> int | None:
        counted.append(clock.now)
        return total

    with rows_progress(count, bar=True) as on_row:
        for row in range(1, 1501):
            clock.now += 1 / 32
            on_row(row)
    assert counted == [30.0]
    assert capsys.readouterr().err.splitlines() == [line]


def test_a_terminal_gets_a_bar_and_a_file_its_lines(clock, monkeypatch) -> None:
    screen, file = Screen(), io.StringIO()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress.sys, "stderr", screen)
    monkeypatch.setattr(progress.sys, "stdout", file)
    with training_progress(epochs=2) as on_step:
        for step in range(1, 9):
            clock.now += 1
            on_step(step, 10, 1, 0.5)
            print(f"line {step}")  # noqa: T201
    assert file.getvalue() == "".join(f"line {step}\n" for step in range(1, 9))
    shown = re.sub(r"\x1b\[[\d;?]*\w", "", screen.getvalue())
    assert "epoch 1/2, loss 0.500" in shown
    assert "at most 12 s left" in shown
    assert "nan" not in shown
    assert "?" not in shown


def test_no_bar_among_predictions_on_a_terminal(clock, monkeypatch) -> None:
    screen = Screen()
    monkeypatch.setattr(progress.sys, "stderr", screen)
    hidden = Progress(bar=False)
    clock.now += 1000
    assert not hidden.is_due()
    assert Progress(bar=True).is_due() is False
    assert screen.getvalue() == ""


def test_predict_says_how_far_it_is(backbone, tmp_path: Path, monkeypatch, capsys) -> None:
    TextClassifier.around(PromptClassifier(backbone("bert"), PromptConfig(), ["a", "b"])).save(tmp_path / "adapter")
    (tmp_path / "in.txt").write_text("good film\n" * 300)
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    main(["predict", str(tmp_path / "adapter"), "--input", str(tmp_path / "in.txt")])
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 300
    assert re.search(r"^ptune: 299 of 300 rows, 100%, \d+ s left$", err, re.MULTILINE)
    main(
        ["predict", str(tmp_path / "adapter"), "--input", str(tmp_path / "in.txt"), "--output", str(tmp_path / "o.csv")]
    )
    assert "ptune: 150 of 300 rows, 50%, " in capsys.readouterr().err


def test_evaluate_says_how_far_it_is(backbone, tmp_path: Path, monkeypatch, capsys) -> None:
    TextClassifier.around(PromptClassifier(backbone("bert"), PromptConfig(), ["a", "b"])).save(tmp_path / "adapter")
    (tmp_path / "in.csv").write_text("text,label\n" + "good film,a\nbad film,b\n" * 1000)
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    main(["evaluate", str(tmp_path / "adapter"), "--data", str(tmp_path / "in.csv")])
    err = capsys.readouterr().err
    assert re.search(r"^ptune: [\d,]+ of 2,000 rows, \d+%, \d+ s left$", err, re.MULTILINE)
    assert "ptune: 2,000 of 2,000 rows, 100%, " in err
