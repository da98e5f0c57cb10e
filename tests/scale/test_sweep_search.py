"""The search of a sweep: which trials it gives, what it keeps on disk, and that it goes on after it was killed."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest

from ptune.errors import ConfigError
from ptune.scale import sweep_search
from ptune.scale.sweep_search import MOST_LOSSES, Search, best_trial
from ptune.scale.sweep_settings import read_settings
from ptune.scale.sweep_trials import Task, Trial, read_trials

SPACE = {"lr": {"log-uniform": [1e-4, 1e-1]}, "virtual_tokens": [2, 4], "seed": {"int": [0, 5]}}


@pytest.fixture(autouse=True)
def no_adapters(monkeypatch) -> None:
    """The trials here are not trained, so there is nothing to copy."""
    monkeypatch.setattr(sweep_search, "read_adapter", lambda folder: folder)
    monkeypatch.setattr(sweep_search, "copy_adapter", lambda file, folder: None)


def search_in(folder: Path, **settings: Any) -> Search:
    task = Task("bert", {}, {}, settings.pop("metric", "accuracy"), folder)
    return Search(read_settings({"space": SPACE, "trials": 6, **settings}, {}), task)


def run(search: Search, number_of_epochs: int = 3, most: int = 100) -> list[Trial]:
    """Run trials whose accuracy is known, and return those that were run."""
    ran = []
    while len(ran) < most and (trial := search.next("here")) is not None:
        accuracy = 0.5 + trial.values["lr"]
        stopped = False
        for epoch in range(1, number_of_epochs + 1):
            stopped = search.report(trial.number, {"epoch": epoch, "accuracy": accuracy})
            if stopped:
                break
        state = "stopped" if stopped else "finished"
        metrics = {"accuracy": accuracy, "loss": 1.0}
        search.finish(dataclasses.replace(trial, state=state, value=accuracy, metrics=metrics))
        ran.append(trial)
    return ran


@pytest.mark.parametrize("kind", ["random", "tpe"])
def test_a_sweep_that_is_resumed_tries_what_it_would_have_tried(tmp_path, kind) -> None:
    whole = [trial.values for trial in run(search_in(tmp_path / "whole", search=kind, trials=12))]
    before = [trial.values for trial in run(search_in(tmp_path / "parts", search=kind, trials=12), most=5)]
    after = [trial.values for trial in run(search_in(tmp_path / "parts", search=kind, trials=12))]
    assert len(whole) == 12
    assert before + after == whole


def test_the_order_in_which_settings_are_listed_does_not_matter(tmp_path) -> None:
    listed = [SPACE, dict(sorted(SPACE.items()))]
    assert list(listed[0]) != list(listed[1])
    tried = [
        [trial.values for trial in run(search_in(tmp_path / str(number), search="random", space=space))]
        for number, space in enumerate(listed)
    ]
    assert tried[0] == tried[1]


def test_another_seed_tries_other_values(tmp_path) -> None:
    first, second = (run(search_in(tmp_path / str(seed), search="random", seed=seed)) for seed in (0, 1))
    assert [trial.values for trial in first] != [trial.values for trial in second]


def test_the_trial_that_was_running_comes_first_with_its_values(tmp_path) -> None:
    search = search_in(tmp_path)
    run(search, most=2)
    lost = search.next("here")
    assert lost is not None
    search.report(lost.number, {"epoch": 1, "accuracy": 0.7})
    again = search_in(tmp_path).next("there")
    assert again is not None
    assert (again.number, again.values, again.worker) == (2, lost.values, "there")


def test_a_trial_whose_folder_was_deleted_is_run_again_with_the_same_values(tmp_path) -> None:
    before = run(search_in(tmp_path, search="random"))
    shutil.rmtree(tmp_path / "trials" / "0001")
    (again,) = run(search_in(tmp_path, search="random"))
    assert (again.number, again.values) == (1, before[1].values)


def test_a_grid_has_every_combination_once(tmp_path) -> None:
    space = {"lr": [0.01, 0.02], "seed": {"int": [1, 3]}}
    ran = run(search_in(tmp_path, space=space, search="grid", trials=None))
    assert sorted((trial.values["lr"], trial.values["seed"]) for trial in ran) == [
        (lr, seed) for lr in (0.01, 0.02) for seed in (1, 2, 3)
    ]


def test_more_trials_extend_a_sweep(tmp_path) -> None:
    run(search_in(tmp_path, trials=2))
    assert [trial.number for trial in run(search_in(tmp_path, trials=5))] == [2, 3, 4]


def test_early_stopping_ends_trials_that_fall_behind(tmp_path) -> None:
    space = {"lr": [0.1, 0.2, 0.05, 0.3]}
    settings = {"space": space, "search": "grid", "trials": None, "asha": {"reduction": 2}}
    search = search_in(tmp_path, **settings)
    run(search)
    assert [trial.state for trial in search.trials] == ["finished", "finished", "stopped", "finished"]
    assert [len(trial.history) for trial in search.trials] == [3, 3, 1, 3]


def test_early_stopping_remembers_the_trials_from_before(tmp_path) -> None:
    space = {"lr": [0.1, 0.2, 0.05, 0.3]}
    settings = {"space": space, "search": "grid", "trials": None, "asha": {"reduction": 2}}
    run(search_in(tmp_path, **settings), most=2)
    again = search_in(tmp_path, **settings)
    run(again)
    assert [len(trial.history) for trial in again.trials] == [3, 3, 1, 3]


def test_the_trial_of_a_lost_worker_waits_for_another_until_it_is_the_suspect(tmp_path) -> None:
    search = search_in(tmp_path, trials=1)
    for _ in range(MOST_LOSSES):
        trial = search.next("worker 1")
        assert trial is not None
        assert search.lose("worker 1")
    assert not search.lose("worker 1")
    assert search.trials[0].state == "failed"
    assert "lost" in str(search.trials[0].error)
    assert search.next("worker 1") is None


def test_a_worker_that_was_taken_for_lost_changes_nothing(tmp_path) -> None:
    search = search_in(tmp_path, trials=1)
    slow = search.next("worker 1")
    search.lose("worker 1")
    run(search)
    assert slow is not None
    search.finish(dataclasses.replace(slow, state="finished", value=0.1, metrics={"accuracy": 0.1, "loss": 9.0}))
    assert search.trials[0].value > 0.1


def test_the_best_trial_has_the_best_value_and_then_the_lower_loss() -> None:
    trials = [
        Trial(0, {}, "finished", 0.9, metrics={"loss": 0.5}),
        Trial(1, {}, "stopped", 0.9, metrics={"loss": 0.4}),
        Trial(2, {}, "failed"),
        Trial(3, {}, "finished", 0.2, metrics={"loss": 0.1}),
    ]
    assert best_trial(trials, "accuracy") is trials[1]
    assert best_trial(trials, "loss") is trials[3]
    assert best_trial(trials[2:3], "accuracy") is None


def test_a_damaged_record_is_named(tmp_path) -> None:
    run(search_in(tmp_path), most=1)
    path = tmp_path / "trials" / "0000" / "trial.json"
    path.write_text("{")
    with pytest.raises(ConfigError, match=r"0000.*trial.json' is not the record of a trial"):
        read_trials(tmp_path)
