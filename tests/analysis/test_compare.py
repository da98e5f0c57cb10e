"""Runs side by side: metrics, intervals, tests and rows."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import ptune
from ptune.analysis.compare import unique_names
from ptune.analysis.resampling import _multi, _numbers, _single, sampled_metrics
from ptune.cli import main
from ptune.data.targets import MULTI, REGRESSION, SINGLE
from ptune.errors import ConfigError
from ptune.evaluation.metrics import evaluate_logits

GOOD = ("--method", "p-tuning")  # learns the task in six epochs


def last_json(text: str) -> dict:
    return json.loads(text.splitlines()[-1])


@pytest.mark.parametrize("classes", [2, 4])
def test_metrics_of_a_sample_are_those_of_evaluate(classes) -> None:
    generator = torch.Generator().manual_seed(1)
    logits, targets = torch.randn(40, classes, generator=generator), torch.randint(classes, (40,), generator=generator)
    metrics = evaluate_logits(logits, targets)
    own = _single(targets.numpy(), logits.argmax(dim=1).numpy(), np.ones(40), classes)
    assert own == pytest.approx({name: metrics[name] for name in own})
    hot, numbers = torch.randn(40, classes, generator=generator) > 0, torch.randn(40, generator=generator)
    metrics = evaluate_logits(logits, hot.float(), MULTI)
    own = _multi(hot.numpy(), (logits.sigmoid() > 0.5).numpy(), np.ones(40), classes)
    assert own == pytest.approx({name: metrics[name] for name in own})
    metrics = evaluate_logits(logits[:, :1], numbers, REGRESSION)
    own = _numbers(numbers.double().numpy(), logits[:, 0].double().numpy(), np.ones(40), 1)
    assert own == pytest.approx({name: metrics[name] for name in own}, rel=1e-5)


def test_samples_are_paired_and_spread_as_they_should() -> None:
    rand = np.random.default_rng(0)
    truth, predicted = rand.integers(2, size=400), rand.integers(2, size=400)
    one, other = (sampled_metrics(SINGLE, truth, predicted, np.zeros(400), 2)["accuracy"] for _ in range(2))
    assert (one == other).all()
    assert one.std() == pytest.approx(np.sqrt(0.25 / 400), rel=0.1)


def test_a_run_beside_itself_differs_in_nothing(trained) -> None:
    run = trained("word", 6, *GOOD)
    comparison = ptune.compare([run, ptune.load(run)], run.parent / "word", names=["a", "b"])
    assert comparison.metrics[0] == comparison.metrics[1]
    assert all(vars(d) == {"value": 0, "low": 0, "high": 0} for d in comparison.differences[0].values())
    assert (comparison.mcnemar[0].only_first, comparison.mcnemar[0].p) == (0, 1)
    assert comparison.disagreements == []


def test_a_better_run_is_better_by_more_than_chance(trained) -> None:
    worse, better = trained("word", 1), trained("word", 6, *GOOD)
    data = ptune.load_data(better.parent / "word")
    comparison = ptune.compare([worse, better], data)
    values = [ptune.evaluate(ptune.load(run), data).metrics for run in (worse, better)]
    assert comparison.metrics == values
    difference, test = comparison.differences[0]["accuracy"], comparison.mcnemar[0]
    assert difference.value == pytest.approx(values[1]["accuracy"] - values[0]["accuracy"])
    assert 0 < difference.low <= difference.value <= difference.high
    assert difference.clear
    assert test.p < 0.05
    assert test.only_other - test.only_first == round(60 * difference.value)
    assert len(comparison.disagreements) == test.only_first + test.only_other
    row = comparison.disagreements[0]
    assert data.validation.texts[row.row - 1] == row.texts[0]
    assert [answer == row.truth for answer in row.answers] == row.right


@pytest.mark.parametrize("task", ["topics", "stars"])
def test_several_labels_and_numbers(task, trained) -> None:
    runs = [trained(task, 1), trained(task, 2)]
    comparison = ptune.compare(runs, runs[0].parent / task)
    assert len(comparison.metrics) == 2
    assert bool(comparison.mcnemar) == (task == "topics")
    assert json.loads(json.dumps(comparison.to_dict(), default=str))["rows"] == 60
    if task == "stars":
        errors = [[abs(answer - row.truth) for answer in row.answers] for row in comparison.disagreements]
        spread = [max(pair) - min(pair) for pair in errors]
        assert spread == sorted(spread, reverse=True)


def test_labels_may_be_in_another_order(trained, backbone, tmp_path) -> None:
    run = trained("word", 6, *GOOD)
    data = ptune.load_data(run.parent / "word")
    turned = ptune.load_data(run.parent / "word", labels=["yes", "no"])
    model = ptune.PromptClassifier.for_data(backbone("bert"), turned)
    other = ptune.train(model, turned, ptune.TrainConfig(epochs=1), output=tmp_path).classifier
    comparison = ptune.compare([run, other], data)
    assert comparison.metrics[1]["accuracy"] == ptune.evaluate(other, turned).metrics["accuracy"]


def test_names_tell_runs_apart() -> None:
    assert unique_names(["runs/a", "runs/b"]) == ["a", "b"]
    assert unique_names(["x/a", "y/a"]) == ["x/a", "y/a"]
    assert unique_names(["a", "a"]) == ["a (1)", "a (2)"]


def test_there_are_as_many_names_as_runs(trained) -> None:
    run = trained("word", 6, *GOOD)
    with pytest.raises(ConfigError, match="`names` has 1 names for 2 runs"):
        ptune.compare([run, run], run.parent / "word", names=["a"])


def test_runs_of_different_tasks_are_refused(trained) -> None:
    with pytest.raises(ConfigError, match="the same task"):
        ptune.compare([trained("word", 1), trained("stars", 1)], trained("word", 1).parent / "word")
    with pytest.raises(ConfigError, match="at least two"):
        ptune.compare([trained("word", 1)], "x")


def test_data_with_other_labels_are_refused(trained) -> None:
    run = trained("word", 1)
    data = ptune.load_data(run.parent / "word")
    with pytest.raises(ConfigError, match="the model was made for"):
        ptune.compare([run, run], replace(data, labels=["maybe", "never"]))


def test_the_command_reads_the_rows_of_the_training(trained, tmp_path, capsys) -> None:
    worse, better = trained("word", 1), trained("word", 6, *GOOD)
    capsys.readouterr()
    page = tmp_path / "new" / "page.html"
    main(["compare", str(worse), str(better), "--rows", "2", "--html", str(page)])
    out = capsys.readouterr().out
    assert "60 rows of" in out
    assert "(McNemar), more than chance" in out
    assert "rows on which they disagree: 2 of" in out
    html = page.read_text(encoding="utf-8")
    assert "Matthews correlation" in html
    assert "default-src 'none'" in html
    main(["compare", str(worse), str(better), "--json"])
    answer = last_json(capsys.readouterr().out)
    assert len(answer["metrics"]) == 2


def test_wrong_input_of_the_command(trained, tmp_path, capsys) -> None:
    worse, better = trained("word", 1), trained("word", 6, *GOOD)
    for arguments, message in (
        ([worse], "at least two runs"),
        ([worse, tmp_path / "none"], "none"),
        ([worse, better, "--html", tmp_path / "a.pdf"], "--html"),
        ([worse, better, "--split", "test"], "has no split 'test'"),
    ):
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main(["compare", *map(str, arguments)])
        assert caught.value.code == 2
        assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_rows_that_were_held_back_differently_are_refused(backbone_folder, tmp_path, capsys) -> None:
    from tests.conftest import review_rows, write_jsonl

    data = write_jsonl(tmp_path / "all.jsonl", review_rows(60))
    for seed in ("0", "1"):
        main(["train", "--backbone", str(backbone_folder("bert")), "--data", str(data), "--seed", seed,
              "--output", str(tmp_path / seed), "--epochs", "1"])  # fmt: skip
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["compare", str(tmp_path / "0"), str(tmp_path / "1")])
    assert "--data" in capsys.readouterr().err
    main(["train", "--backbone", str(backbone_folder("bert")), "--data", str(data), "--folds", "2",
          "--output", str(tmp_path / "folds"), "--epochs", "1"])  # fmt: skip
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["compare", str(tmp_path / "0"), str(tmp_path / "folds")])
    assert "folds' was trained on all rows and measured by cross-validation" in capsys.readouterr().err
    main(["compare", str(tmp_path / "0"), str(tmp_path / "1"), "--data", str(data)])
    assert "60 rows of" in capsys.readouterr().out
    main(["train", "--backbone", str(backbone_folder("bert")), "--data", str(data), "--seed", "2",
          "--output", str(tmp_path / "2"), "--epochs", "1", "--max-train-rows", "20"])  # fmt: skip
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["compare", str(tmp_path / "2"), str(tmp_path / "1")])
    assert "may have held back different rows" in capsys.readouterr().err
