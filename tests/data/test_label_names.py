"""Labels as people write them: lists as text, columns of zeros and ones, truth values, and names that look wrong."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet as parquet
import pytest

from ptune.data.cells import read_written_lists
from ptune.data.label_names import fold_label
from ptune.data.load import load_data
from ptune.data.splits import TextData
from ptune.errors import DataError


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder without words of the test's name, which pytest's own has and messages are searched for."""
    return tmp_path_factory.mktemp("d")


def jsonl(path: Path, *labels: Any, times: int = 1) -> Path:
    rows = [{"text": f"text {n}", "label": label} for n, label in enumerate(labels * times)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def message(source: Path, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        load_data(source, **options)
    return str(caught.value)


def labels_by_text(data: TextData) -> dict[str, Any]:
    found = {}
    for split in data.splits.values():
        for text, target in zip(split.texts, split.labels or (), strict=True):
            found[text] = [data.labels[label] for label in target] if isinstance(target, tuple) else data.labels[target]  # type: ignore[index]
    return found


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("['pos', 'long']", ["pos", "long"]),
        ('["pos", "long"]', ["pos", "long"]),
        ("[]", []),
        (" [1, 2] ", [1, 2]),
        ("['pos' 'it is' 'long']", ["pos", "it is", "long"]),
        ("['pos'\n 'long']", ["pos", "long"]),
        ("[pos, very long]", ["pos", "very long"]),
    ],
)
def test_a_list_written_as_text_is_a_list(text: str, items: list[Any]) -> None:
    assert read_written_lists([text, None, "['a']"]) == [items, None, ["a"]]


@pytest.mark.parametrize("cells", [["['a']", "b"], ["[", "['a']"], [1, 2], ["[[a]]", "['a']"], ["[a", "b]"]])
def test_other_cells_stay_as_they_are(cells: list[Any]) -> None:
    assert read_written_lists(cells) == cells


def test_lists_written_as_text_are_several_labels(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", "['pos', 'long']", "['neg']", "[]", "['neg' 'long']", times=3)
    data = load_data(path)
    assert (data.problem_type, data.labels) == ("multi_label_classification", ["long", "neg", "pos"])
    assert list(labels_by_text(data).values()).count(["long", "neg"]) == 3
    assert load_data(path, label_separator=",").labels == data.labels
    said = message(jsonl(tmp_path / "b.jsonl", "['pos', 'long']", "neg", times=2))
    assert "label '['pos', 'long']' looks like a list, but not every row has one" in said


def test_lists_of_one_label_each_are_single_labels(tmp_path: Path) -> None:
    data = load_data(jsonl(tmp_path / "a.jsonl", ["pos"], ["neg"], times=4))
    assert (data.problem_type, data.labels) == ("single_label_classification", ["neg", "pos"])
    assert "problem type: single_label_classification (every list holds one label)" in data.notes
    asked = load_data(tmp_path / "a.jsonl", problem_type="multi_label_classification")
    assert asked.train.labels is not None
    assert isinstance(asked.train.labels[0], tuple)


HOT = "id,comment,toxic,rude,long\n" + "".join(
    f"{n},text {n},{n % 2},{int(n % 3 == 0)},{'true' if n % 4 == 0 else 'false'}\n" for n in range(12)
)


@pytest.mark.parametrize("label", ["toxic,rude,long", " toxic, rude ,long", ["toxic", "rude", "long"]])
def test_several_columns_of_zeros_and_ones_are_the_labels_of_a_row(label: Any, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(HOT)
    data = load_data(tmp_path / "a.csv", label=label)
    assert (data.problem_type, data.labels) == ("multi_label_classification", ["toxic", "rude", "long"])
    assert "problem type: multi_label_classification (there is a column for each label)" in data.notes
    assert data.columns.text == "comment"
    assert labels_by_text(data) == {
        f"text {n}": [name for name, there in zip(data.labels, (n % 2, n % 3 == 0, n % 4 == 0), strict=True) if there]
        for n in range(12)
    }


def test_they_are_several_labels_even_if_every_row_has_one(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,up,down\n" + "".join(f"text {n},{n % 2},{1 - n % 2}\n" for n in range(8)))
    data = load_data(tmp_path / "a.csv", label="up,down")
    assert (data.problem_type, data.labels) == ("multi_label_classification", ["up", "down"])


def test_an_adapter_finds_such_columns_again(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(HOT)
    trained = {"text": "comment", "text_pair": None, "label": "toxic,rude"}
    known = {"labels": ["toxic", "rude"], "problem_type": "multi_label_classification"}
    data = load_data(tmp_path / "a.csv", only="test", trained=trained, **known)  # type: ignore[arg-type]
    assert data.test.labels is not None
    assert data.test.labels[3] == (0, 1)


def test_what_is_no_zero_or_one_is_named_by_column_and_rows(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(HOT + "12,text,0,2,1\n13,text,0,,1\n")
    said = message(tmp_path / "a.csv", label="toxic,rude,long")
    assert "rows 13 and 14: column 'rude' holds '2'; with several label columns, 0 or 1" in said
    assert "`label` names column 'toxic,rood', but the columns are 'id'" in message(
        tmp_path / "a.csv", label="toxic,rood"
    )


def test_truth_values_are_one_label_however_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\n" + "a,True\nb,False\nc,TRUE\nd,false\n" * 3)
    jsonl(tmp_path / "test.jsonl", True, False, True)
    parquet.write_table(pyarrow.table({"text": ["x", "y"], "label": [False, True]}), tmp_path / "dev.parquet")
    data = load_data(tmp_path)
    assert data.labels == ["False", "TRUE"]
    assert (data.validation.labels, data.test.labels) == ([0, 1], [1, 0, 1])
    assert load_data(tmp_path / "test.jsonl", only="test", labels=["False", "True"]).test.labels == [1, 0, 1]
    assert load_data(tmp_path / "train.csv", only="test", labels=["true", "false"]).test.labels == [0, 1, 0, 1] * 3


def test_labels_that_are_nearly_the_same_are_named_with_their_rows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = jsonl(tmp_path / "a.jsonl", "Billing", "billing", "billing ", "so so", "so-so", "c", "c++", "C#", times=2)
    data = load_data(path)
    assert len(data.labels) == 7
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert [text.split(": labels ")[1] for text in warnings] == [
        "'Billing' (2 rows) and 'billing' (4 rows) are nearly the same; they are learned as different classes",
        "'so so' (2 rows) and 'so-so' (2 rows) are nearly the same; they are learned as different classes",
    ]


def test_so_are_those_of_rows_with_several_labels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    load_data(jsonl(tmp_path / "a.jsonl", ["News", "long"], ["news"], [], times=3))
    assert "labels 'News' (3 rows) and 'news' (3 rows) are nearly the same" in caplog.text


@pytest.mark.parametrize(
    ("labels", "separator"),
    [(["1", "2", "1,2"], ","), (["27", "3,4"], ","), (["a|b", "b|c", "a|c"], "|"), (["cat; dog", "cat", "dog"], ";")],
)
def test_labels_that_look_joined_are_asked_about(labels: list[str], separator: str, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", *labels, times=3)
    said = message(path)
    assert "look like several labels in a row" in said
    assert f"`label_separator='{separator}'`" in said
    assert load_data(path, label_separator=separator).problem_type == "multi_label_classification"
    kept = load_data(path, problem_type="single_label_classification")
    assert len(kept.labels) == len(labels)


def test_numbers_with_a_decimal_comma_are_asked_about_and_read(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", "3,5", "1,25", "4", times=3)
    assert "if they are numbers with a decimal comma, `problem_type='regression'`" in message(path)
    data = load_data(path, problem_type="regression")
    assert set(data.train.labels) | set(data.split("validation").labels) == {3.5, 1.25, 4.0}


def test_names_with_commas_in_them_are_names(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", "arts, culture", "sports, leisure", "news", times=3)
    assert len(load_data(path).labels) == 3


@pytest.mark.parametrize("name", ["-", "N/A", "nan", "?"])
def test_a_name_that_stands_for_no_label_is_no_label(name: str, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", "yes", "no", name, times=3)
    said = message(path)
    assert f"rows 3, 6 and 9: column 'label' holds '{name}', which stands for no label" in said
    data = load_data(path, on_empty="skip")
    assert (data.labels, len(data.train) + len(data.validation)) == (["no", "yes"], 6)
    known = load_data(path, only="test", labels=["no", "yes", name])
    assert known.test.labels == [1, 0, 2] * 3


def test_a_minus_beside_a_plus_is_a_label(tmp_path: Path) -> None:
    assert load_data(jsonl(tmp_path / "a.jsonl", "+", "-", times=3)).labels == ["+", "-"]


def test_minus_one_among_named_labels_is_no_label(tmp_path: Path) -> None:
    features = {"label": {"names": ["up", "down"], "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pyarrow.table({"text": [f"text {n}" for n in range(7)], "label": [0, 1, 0, 1, 0, 1, -1]})
    parquet.write_table(table.replace_schema_metadata(metadata), tmp_path / "a.parquet")
    assert "row 7: column 'label' holds '-1', which stands for no label" in message(tmp_path / "a.parquet")
    assert len(load_data(tmp_path / "a.parquet", on_empty="skip", only="train").train) == 6


def test_dashes_count_only_between_words() -> None:
    assert fold_label("Not-Spam") == fold_label("not_spam") == fold_label(" not  spam") == "not spam"
    for one, other in (("-1", "1"), ("A-", "A"), ("A+", "A-"), ("_", "-")):
        assert fold_label(one) != fold_label(other)
