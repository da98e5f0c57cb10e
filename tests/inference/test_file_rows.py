"""Files of which some rows have no text: their answers are null, or they are left out, and all others are predicted."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ptune.data.readers import read_rows
from ptune.data.targets import MULTI, REGRESSION, SINGLE, ProblemType
from ptune.data.writers import open_writer
from ptune.errors import ConfigError, DataError
from ptune.inference.answers import PREDICTION_KEYS
from ptune.inference.classifier import TextClassifier
from ptune.model.backbone import Backbone
from ptune.model.classifier import PromptClassifier
from ptune.model.config import PromptConfig

NAMES: dict[ProblemType, list[str]] = {SINGLE: ["a", "b"], MULTI: ["a", "b"], REGRESSION: ["stars"]}
KINDS = list(NAMES)


@pytest.fixture
def make(backbone: Callable[..., Backbone]) -> Callable[..., TextClassifier]:
    """Make an untrained classifier of a problem type."""

    def classifier(problem_type: ProblemType = SINGLE, family: str = "bert") -> TextClassifier:
        prompt = PromptConfig(virtual_tokens=3)
        model = PromptClassifier.from_backbone(
            backbone(family), prompt, labels=NAMES[problem_type], problem_type=problem_type
        )
        return TextClassifier.around(model)

    return classifier


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a file with seven rows, of which the first, the third, the fourth and the last have no text."""
    path = tmp_path / "in.csv"
    path.write_text('id,text\n1,\n2,good film\n3," "\n4,""\n5,bad film\n6,fine\n7,\n')
    return path


@pytest.mark.parametrize("problem_type", KINDS)
def test_rows_without_text_get_nulls_in_their_place(
    problem_type: ProblemType, make: Any, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    classifier = make(problem_type)
    rows = list(classifier.stream_file(file))
    keys = PREDICTION_KEYS[problem_type]
    assert [row["id"] for row in rows] == list("1234567")
    nulls = dict.fromkeys(keys)
    assert [{key: row[key] for key in keys} == nulls for row in rows] == [True, False, True, True, False, False, True]
    expected = classifier.predict(["good film", "bad film", "fine"])
    assert [{key: row[key] for key in keys} for row in rows if row[keys[-1]] is not None] == expected
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.message.endswith("4 of 7 rows have no text; their answers are null (rows 1, 3, 4, 7)")


def test_rows_without_text_are_left_out_on_request(make: Any, file: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = list(make().stream_file(file, on_empty="skip"))
    assert [row["id"] for row in rows] == list("256")
    assert "4 of 7 rows have no text; they are left out" in caplog.text


def test_rows_without_text_are_an_error_on_request(make: Any, file: Path) -> None:
    with pytest.raises(DataError, match=r"row 1: column 'text' is empty"):
        list(make().stream_file(file, on_empty="error"))
    with pytest.raises(ConfigError, match="use one of null, skip, error"):
        make().stream_file(file, on_empty="none")


def test_a_pair_needs_both_texts(make: Any, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    pairs = [("good", "film"), ("good", None), (None, "film"), ("bad", "plot")]
    path.write_text("".join(json.dumps({"text": one, "text_pair": two}) + "\n" for one, two in pairs))
    assert [row["label"] is None for row in make().stream_file(path)] == [False, True, True, False]


def test_a_blank_line_of_a_text_file_keeps_its_place(make: Any, tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_text("good film\n\nbad film\n")
    assert [(row["text"], row["label"] is None) for row in make().stream_file(path)] == [
        ("good film", False),
        ("", True),
        ("bad film", False),
    ]


def test_a_file_without_any_text_is_all_nulls(make: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "in.csv"
    path.write_text("id,text\n" + "".join(f"{n},\n" for n in range(3000)))
    rows = list(make().stream_file(path))
    assert len(rows) == 3000
    assert {row["label"] for row in rows} == {None}
    assert caplog.records[0].message.endswith("19, 20, …)")


@pytest.mark.parametrize("problem_type", KINDS)
@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet", "jsonl"])
def test_nulls_are_written_to_every_format(
    ending: str, problem_type: ProblemType, make: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, target = tmp_path / "in.csv", tmp_path / f"out.{ending}"
    source.write_text("id,text\n" + "".join(f"{n},\n" for n in range(1100)) + "1100,good film\n")
    classifier = make(problem_type)
    labels = () if problem_type == REGRESSION else classifier.labels
    open_writer(target)(classifier.stream_file(source), target, labels, lambda: classifier.blank_row(source))
    rows = list(read_rows(target))
    key = PREDICTION_KEYS[problem_type][0]
    assert len(rows) == 1101
    assert {row[key] or None for row in rows[:1100]} == {None}
    number = {SINGLE: "score_a", MULTI: "score_a", REGRESSION: "value"}[problem_type]
    last = rows[-1]["scores"]["a"] if ending == "jsonl" and number == "score_a" else rows[-1][number]
    assert isinstance(float(last), float)
    if ending == "parquet":
        assert isinstance(last, float)


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_empty_texts_from_python_are_texts_like_others(family: str, make: Any) -> None:
    classifier = make(family=family)
    texts = ["good film", "", " ", "bad film"]
    both = classifier.predict_proba(texts)
    assert len(classifier.predict(texts)) == 4
    assert torch.isfinite(both).all()
    torch.testing.assert_close(both[[0, 3]], classifier.predict_proba([texts[0], texts[3]]))
    assert classifier.predict("")[0]["label"] in ("a", "b")
    assert len(classifier.predict([("good film", ""), ("", "bad")])) == 2
