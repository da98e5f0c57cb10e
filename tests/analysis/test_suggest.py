"""Rows that are most worth labelling next."""

from __future__ import annotations

import csv
import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest

import ptune
from ptune.analysis.labelling_files import argilla_record, label_studio_task, label_studio_view, write_for_labelling
from ptune.cli import main
from ptune.data.targets import MULTI, REGRESSION, SINGLE
from ptune.errors import ConfigError, DataError
from ptune.model.config import PromptConfig
from tests.analysis.conftest import word_rows
from tests.conftest import star_rows, topic_rows


@pytest.fixture(scope="module")
def classifier(trained):
    return ptune.load(trained("word", 6, "--method", "p-tuning"))


@pytest.fixture(scope="module")
def texts():
    return [row["text"] for row in word_rows(150, seed=31)]


def test_the_rows_are_among_the_least_certain(classifier, texts) -> None:
    found = ptune.suggest(classifier, texts, 12)
    margins = []
    for prediction in classifier.predict(texts):
        best, second = sorted(prediction["scores"].values())[::-1]
        margins.append(best - second)
    assert len({suggestion.row for suggestion in found}) == 12
    assert [suggestion.margin for suggestion in found] == pytest.approx([margins[s.row - 1] for s in found], abs=1e-5)
    assert max(s.margin for s in found) <= sorted(margins)[5 * 12 - 1] + 1e-6
    assert found[0].margin == pytest.approx(min(margins), abs=1e-5)
    assert [s.margin for s in found] == sorted(s.margin for s in found)
    assert [s.texts for s in found] == [(texts[s.row - 1],) for s in found]


def test_rows_that_are_alike_are_suggested_once(classifier) -> None:
    close = ["one two three four"] * 2 + ["One  two three four", " "]
    others = [row["text"] for row in word_rows(6, seed=3)]
    found = ptune.suggest(classifier, [*close, *others], 50)
    assert sorted(suggestion.row for suggestion in found) == [1, 5, 6, 7, 8, 9, 10]


def test_clusters_spread_the_rows(classifier, texts, monkeypatch) -> None:
    import numpy as np

    from ptune.analysis import suggest as module

    vectors = np.eye(4, dtype=np.float32)[[0, 0, 0, 1, 1, 2, 3, 3, 3, 3]]
    assert module._least_certain(vectors, 4, 0) == [0, 3, 5, 6]
    assert module._central(vectors, 4, 0) == [0, 3, 5, 6]
    assert len(module._least_certain(np.ones((6, 3), np.float32), 4, 0)) == 4  # fewer different vectors than clusters


@pytest.mark.parametrize(("task", "rows"), [("topics", topic_rows), ("stars", star_rows)])
def test_several_labels_and_numbers(task, rows, trained) -> None:
    classifier = ptune.load(trained(task, 1))
    found = ptune.suggest(classifier, [row["text"] for row in rows(80, seed=4)], 5)
    assert len(found) == 5
    assert all((suggestion.margin is None) == (task == "stars") for suggestion in found)


def test_a_file_keeps_its_columns(classifier, tmp_path) -> None:
    path = tmp_path / "new.csv"
    path.write_text("id,text\n7,a good film\n8,\n9,was it bad\n", encoding="utf-8")
    found = ptune.suggest(classifier, path, 10)
    assert {(suggestion.row, suggestion.cells["id"]) for suggestion in found} == {(1, "7"), (3, "9")}


def test_wrong_arguments(classifier, tmp_path) -> None:
    with pytest.raises(ConfigError, match="1 or more"):
        ptune.suggest(classifier, ["a"], 0)
    with pytest.raises(DataError, match="no texts"):
        ptune.suggest(classifier, [" "])
    with pytest.raises(DataError, match="no such"):
        ptune.suggest(classifier, tmp_path / "none.csv")


def pairs(backbone):
    model = ptune.PromptClassifier.from_backbone(backbone("bert"), PromptConfig(virtual_tokens=3), labels=["a", "b&c"])
    return ptune.suggest(ptune.TextClassifier.around(model), [("a film", "a <plot>"), ("was", "it")], 2)


def test_label_studio_tasks_fit_their_view(backbone) -> None:
    view = ElementTree.fromstring(label_studio_view(["a", "b&c"], SINGLE, True))
    names = {element.get("name"): element for element in view.iter() if element.get("name")}
    shown = {element.get("value")[1:] for element in view.iter("Text")}
    for suggestion in pairs(backbone):
        task = json.loads(json.dumps(label_studio_task(suggestion, SINGLE)))
        assert shown == {"text", "text_pair"} <= task["data"].keys()
        (result,) = task["predictions"][0]["result"]
        assert names[result["from_name"]].get("toName") == result["to_name"] == "text"
        assert result["type"] == names[result["from_name"]].tag.lower() == "choices"
        assert set(result["value"]["choices"]) <= {choice.get("value") for choice in view.iter("Choice")}


def test_label_studio_tasks_keep_columns_with_names_of_their_own(backbone) -> None:
    suggestion = replace(pairs(backbone)[0], cells={"text": "17", "body": "a film", "row": "r", "margin": "m"})
    data = label_studio_task(suggestion, SINGLE)["data"]
    assert (data["input_text"], data["input_row"], data["input_margin"]) == ("17", "r", "m")
    assert (data["text"], data["row"], data["body"]) == (suggestion.texts[0], suggestion.row, "a film")
    same = replace(suggestion, cells={"text": suggestion.texts[0]})
    assert "input_text" not in label_studio_task(same, SINGLE)["data"]


def test_argilla_records_have_its_keys(backbone, trained) -> None:
    record = argilla_record(pairs(backbone)[0], SINGLE)
    assert record["fields"].keys() == {"text", "text_pair"}
    assert record["suggestions"]["label"].keys() == {"value", "score", "agent"}
    several = ptune.suggest(ptune.load(trained("topics", 1)), ["a good red film", "two"], 2)
    assert all(
        isinstance(argilla_record(s, MULTI)["suggestions"].get("label", {}).get("value", []), list) for s in several
    )
    (number,) = ptune.suggest(ptune.load(trained("stars", 1)), ["good"], 1)
    assert isinstance(argilla_record(number, REGRESSION)["suggestions"]["label"]["value"], str)
    assert label_studio_task(number, REGRESSION)["predictions"][0]["result"][0]["type"] == "number"


def test_cells_without_a_number_are_null(classifier, tmp_path) -> None:
    found = [replace(row, cells={"x": float("nan")}) for row in ptune.suggest(classifier, ["a good film"], 1)]
    write_for_labelling(found, tmp_path / "tasks.json", "label-studio", SINGLE)

    def no_constant(name: str) -> None:
        raise AssertionError(name)

    tasks = json.loads((tmp_path / "tasks.json").read_text(encoding="utf-8"), parse_constant=no_constant)
    assert tasks[0]["data"]["x"] is None


def test_a_table_has_a_column_to_fill_in(classifier, texts, tmp_path) -> None:
    found = ptune.suggest(classifier, texts, 3)
    write_for_labelling(found, tmp_path / "next.csv", "csv", SINGLE)
    with (tmp_path / "next.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == [suggestion.texts[0] for suggestion in found]
    assert {row["label"] for row in rows} == {""}
    assert {row["prediction"] for row in rows} <= {"yes", "no"}


def test_the_command(trained, texts, tmp_path, capsys) -> None:
    adapter, source = str(trained("word", 6, "--method", "p-tuning")), tmp_path / "new.txt"
    source.write_text("\n".join(texts) + "\n", encoding="utf-8")
    capsys.readouterr()
    main(["suggest", adapter, "--input", str(source), "-n", "12"])
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("row ")
    assert out[-1] == "and 2 more"
    for form in ("label-studio", "argilla"):
        output = tmp_path / f"{form}.json"
        main(["suggest", adapter, "--input", str(source), "-n", "4", "--to", form, "--output", str(output), "--json"])
        answer = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert answer["rows"] == len(json.loads(output.read_text(encoding="utf-8"))) == 4
        assert ("view" in answer) == (form == "label-studio")


def test_wrong_input_of_the_command(trained, tmp_path, capsys) -> None:
    adapter, source = str(trained("word", 6, "--method", "p-tuning")), tmp_path / "new.csv"
    source.write_text("id,body\n1,a\n", encoding="utf-8")
    for arguments, message in (
        (["--input", str(tmp_path / "none.csv")], "no such"),
        (["--input", str(source), "-n", "0"], "-n"),
        (["--input", str(source), "--to", "argilla"], "--output FILE.json"),
        (["--input", str(source), "--to", "argilla", "--output", str(tmp_path / "a.csv")], "--output"),
        (["--input", str(source), "--output", str(tmp_path / "a.json")], ".json"),
        (["--input", str(source), "--text-column", "txt"], "--text-column names column 'txt'"),
    ):
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main(["suggest", adapter, *arguments])
        assert caught.value.code == 2
        assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["new.csv"]
