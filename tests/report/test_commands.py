"""The report of `ptune report`, `ptune train` and `ptune evaluate --report`, with a trained adapter."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import ptune
from ptune.cli import main
from ptune.report import gather
from tests.conftest import review_rows, star_rows, topic_rows, write_jsonl

TASKS = {"reviews": (review_rows, "label"), "topics": (topic_rows, "labels"), "stars": (star_rows, "stars")}


def last_json(text: str) -> dict:
    return json.loads(text.splitlines()[-1])


@pytest.fixture(scope="module")
def trained(backbone_folder, tmp_path_factory):
    """Train a task for two epochs, once for each; return its folder."""
    made: dict[str, Path] = {}

    def train(task: str) -> Path:
        if task not in made:
            rows, label = TASKS[task]
            data = tmp_path_factory.mktemp(task)
            write_jsonl(data / "train.jsonl", rows(48, seed=1))
            write_jsonl(data / "validation.jsonl", rows(30, seed=2))
            made[task] = data / "run"
            arguments = ["--backbone", backbone_folder("bert"), "--data", data, "--output", made[task]]
            main(["train", *map(str, arguments), "--label", label, "--epochs", "2"])
        return made[task]

    return train


@pytest.mark.parametrize("task", TASKS)
def test_training_ends_with_a_report(trained, task) -> None:
    page = (trained(task) / "report.html").read_text(encoding="utf-8")
    assert "epoch kept" in page
    assert "30 rows" in page
    assert "Lengths of the texts" in page
    assert ("Predicted and true" in page) == (task == "stars")
    assert ("threshold" in page) == (task == "topics")
    assert ("Confusion matrix" in page) == (task == "reviews")


def test_a_report_can_be_made_again_and_says_the_same(trained, capsys) -> None:
    run = trained("reviews")
    before = (run / "report.html").read_text(encoding="utf-8")
    (run / "report.html").unlink()
    main(["report", str(run), "--json"])
    answer = last_json(capsys.readouterr().out)
    recorded = ptune.read_adapter(run).record
    assert answer["metrics"] == pytest.approx(recorded.metrics)
    assert (answer["best_epoch"], len(answer["history"])) == (recorded.training["best_epoch"], 2)
    assert answer["files"] == [str(run / "report.html")]
    assert answer["prompt"]["rows"] == 30
    after = (run / "report.html").read_text(encoding="utf-8")
    rows = [page.split('id="rows"')[1].split("</section>")[0] for page in (before, after)]
    assert rows[0] == rows[1]
    assert answer["mistakes"] == sorted(answer["mistakes"], key=lambda row: -row["certainty"])


def test_training_measures_no_row_again_for_its_report(trained, monkeypatch, tmp_path, backbone_folder) -> None:
    def never(*_: object) -> None:
        raise AssertionError("the rows were measured again")

    monkeypatch.setattr("ptune.inference.classifier.TextClassifier.split_logits", never)
    data = trained("reviews").parent
    main(["train", "--backbone", str(backbone_folder("bert")), "--data", str(data), "--output", str(tmp_path),
          "--epochs", "1"])  # fmt: skip
    assert (tmp_path / "report.html").exists()


def test_a_problem_in_the_report_is_one_warning(trained, monkeypatch, tmp_path, backbone_folder, capsys) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("no rows")

    monkeypatch.setattr(gather, "gather_report", broken)
    arguments = ["--backbone", backbone_folder("bert"), "--data", trained("reviews").parent, "--output", tmp_path / "a"]
    main(["train", *map(str, arguments), "--epochs", "1", "--json"])
    printed = capsys.readouterr()
    assert printed.err.count("the report could not be written: ZeroDivisionError: no rows") == 1
    assert "report" not in last_json(printed.out)
    assert ptune.load(tmp_path / "a").labels == ["negative", "positive"]


def test_no_report_writes_none_and_removes_that_of_the_run_before(trained, tmp_path, backbone_folder, capsys) -> None:
    arguments = ["--backbone", backbone_folder("bert"), "--data", trained("reviews").parent, "--output", tmp_path / "a"]
    command = ["train", *map(str, arguments), "--epochs", "1", "--overwrite", "--json"]
    main(command)
    assert last_json(capsys.readouterr().out)["report"] == str(tmp_path / "a" / "report.html")
    main([*command, "--no-report"])
    assert "report" not in last_json(capsys.readouterr().out)
    assert not (tmp_path / "a" / "report.html").exists()


def test_a_configuration_file_may_leave_the_report_out(trained, tmp_path, backbone_folder) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(
        f"backbone: {backbone_folder('bert')}\ndata: {trained('reviews').parent}\nreport: false\nepochs: 1\n"
    )
    main(["train", "--config", str(config), "--output", str(tmp_path / "a")])
    assert not (tmp_path / "a" / "report.html").exists()


def test_cross_validation_reports_the_rows_that_it_measured(tmp_path, backbone_folder) -> None:
    data = write_jsonl(tmp_path / "few.jsonl", review_rows(20, seed=3))
    arguments = ["--backbone", backbone_folder("bert"), "--data", data, "--output", tmp_path / "a"]
    main(["train", *map(str, arguments), "--epochs", "1", "--folds", "2", "--objective", "labels"])
    page = (tmp_path / "a" / "report.html").read_text(encoding="utf-8")
    assert "20 rows of few.jsonl, cross-validation" in page
    metrics = ptune.read_adapter(tmp_path / "a").record.metrics
    assert f"<dd>{metrics['accuracy']:.4f}" in page
    main(["report", str(tmp_path / "a")])
    assert "trained on all rows" in (tmp_path / "a" / "report.html").read_text(encoding="utf-8")


def test_evaluation_writes_a_report_of_any_data(trained, tmp_path, capsys) -> None:
    rows = write_jsonl(tmp_path / "other.jsonl", review_rows(12, seed=9))
    arguments = ["evaluate", str(trained("reviews")), "--data", str(rows), "--json"]
    main(arguments)
    plain = last_json(capsys.readouterr().out)
    main([*arguments, "--report", str(tmp_path / "new" / "other.html")])
    answer = last_json(capsys.readouterr().out)
    assert answer.pop("report") == str(tmp_path / "new" / "other.html")
    assert answer == plain
    page = (tmp_path / "new" / "other.html").read_text(encoding="utf-8")
    assert "12 rows of other.jsonl" in page
    assert "epoch kept" not in page


def test_a_report_of_other_rows_has_the_numbers_of_evaluate(trained, tmp_path, capsys) -> None:
    rows = write_jsonl(tmp_path / "other.jsonl", review_rows(12, seed=9))
    page = tmp_path / "other.html"
    main(
        [
            "report",
            str(trained("reviews")),
            "--data",
            str(rows),
            "--output",
            str(page),
            "--prompt-seconds",
            "0",
            "--json",
        ]
    )
    answer = last_json(capsys.readouterr().out)
    expected = ptune.evaluate(ptune.load(trained("reviews")), ptune.load_data(rows, only="validation"), "validation")
    assert answer["metrics"] == pytest.approx(expected.metrics)
    assert answer["matrix"] == expected.confusion_matrix
    assert answer["prompt"] is None
    assert page.exists()


def test_the_library_writes_reports_too(trained, tmp_path) -> None:
    run = trained("stars")
    report = ptune.gather_report(ptune.load(run), ptune.load_data(run.parent, label="stars"), prompt_seconds=0)
    assert isinstance(report, ptune.Report)
    assert len(report.numbers.truth) == 30
    assert ptune.write_report(report, tmp_path / "stars.html") == [tmp_path / "stars.html"]


def test_texts_that_are_cut_are_counted_with_their_whole_length(trained, tmp_path, backbone_folder) -> None:
    rows = [{**row, "text": f"{row['text']} {'film ' * 20}"} for row in review_rows(40)]
    data = write_jsonl(tmp_path / "long.jsonl", rows)
    arguments = ["--backbone", backbone_folder("bert"), "--data", data, "--output", tmp_path / "a"]
    main(["train", *map(str, arguments), "--epochs", "1", "--max-length", "12", "--no-report"])
    classifier = ptune.load(tmp_path / "a")
    lengths = gather.text_lengths(classifier, ptune.load_data(data).validation)
    assert (lengths.most, lengths.cut) == (12, len(lengths.lengths))
    assert min(lengths.lengths) > 22


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["report", "{run}", "--output", "page.txt"], "--output page.txt is not the name of an .html file"),
        (["evaluate", "{run}", "--data", "{data}", "--report", "page.pdf"], "--report page.pdf is not the name of"),
        (["report", "{run}", "--prompt-seconds", "-1"], "prompt-seconds"),
        (["report", "{data}"], "adapter"),
    ],
)
def test_wrong_input_is_refused_in_one_line(trained, arguments, said, capsys, tmp_path, monkeypatch) -> None:
    run = trained("reviews")
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([each.format(run=run, data=run.parent) for each in arguments])
    printed = capsys.readouterr()
    assert stop.value.code == 2
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert said in printed.err
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_names_no_data_asks_for_it(trained, tmp_path, capsys) -> None:
    ptune.load(trained("reviews")).save(tmp_path / "copy")
    with pytest.raises(SystemExit):
        main(["report", str(tmp_path / "copy")])
    assert "name labelled rows with --data" in capsys.readouterr().err
    assert not (tmp_path / "copy" / "report.html").exists()


def test_a_damaged_metrics_file_costs_the_curves_alone(trained, tmp_path, caplog) -> None:
    run = trained("reviews")
    ptune.load(run).save(tmp_path / "copy")
    (tmp_path / "copy" / "metrics.jsonl").write_text('{"epoch": 1}\n')
    main(["report", str(tmp_path / "copy"), "--data", str(run.parent), "--prompt-seconds", "0"])
    assert "epoch kept" not in (tmp_path / "copy" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("command", ["report", "compare"])
def test_options_of_another_run_are_not_used(trained, command, tmp_path, capsys) -> None:
    """A run that was stopped before its first adapter leaves its options beside the adapter before it."""
    run = shutil.copytree(trained("reviews"), tmp_path / "run")
    path = run / "options.json"
    options = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**options, "seed": 5}), encoding="utf-8")
    with pytest.raises(SystemExit):
        main([command, str(run), *([str(run)] if command == "compare" else [])])
    assert "is that of a run" in capsys.readouterr().err
    main([command, str(run), *([str(run)] if command == "compare" else []), "--data", options["data"]])
