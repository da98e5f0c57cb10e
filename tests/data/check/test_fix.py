"""What `fix` writes."""

from __future__ import annotations

import csv
import json

import pytest

import ptune
from ptune.errors import ConfigError, DataError, OutputError


def test_what_needs_no_judgement_is_repaired(tmp_path) -> None:
    rows = [
        {"id": 1, "text": "a good film", "label": "pos"},
        {"id": 2, "text": "a bad film", "label": "neg"},
        {"id": 3, "text": "A good  film", "label": "Pos"},  # a repeat, once its label is spelled right
        {"id": 4, "text": "cafÃ©", "label": "pos"},
        {"id": 5, "text": " ", "label": "pos"},
        {"id": 6, "text": "a bad film", "label": "pos"},  # a conflict stays
    ]
    counts = ptune.check_data(rows).fix(tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        written = list(csv.DictReader(file))
    assert [(row["id"], row["text"], row["label"]) for row in written] == [
        ("1", "a good film", "pos"),
        ("2", "a bad film", "neg"),
        ("4", "café", "pos"),
        ("6", "a bad film", "pos"),
    ]
    assert counts == {"missing": 1, "label_spellings": 1, "encoding": 1, "repeats": 1, "leaks": 0}


def test_repaired_rows_have_nothing_left_to_repair(tmp_path) -> None:
    words = ["red", "blue", "warm", "cold", "slow", "quick"]
    train = [{"text": f"{one} {two}", "label": "a" if one < two else "b"} for one in words for two in words]
    data = {"train": [*train, *train[:5]], "validation": [*train[:3], {"text": "new", "label": "a"}]}
    ptune.check_data(data).fix(tmp_path / "fixed")
    again = ptune.check_data(tmp_path / "fixed")
    assert again.splits == {"train": 33, "validation": 4}
    assert not {finding.kind for finding in again.findings} & {"repeats", "leaks"}


def test_names_are_written_where_the_data_hold_indices(tmp_path) -> None:
    from datasets import ClassLabel, Dataset, Features, Value

    features = Features({"text": Value("string"), "label": ClassLabel(names=["neg", "pos"])})
    data = Dataset.from_dict({"text": ["x", "y", "X"], "label": [0, 1, 0]}, features=features)
    ptune.check_data(data).fix(tmp_path / "out.jsonl")
    lines = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["label"] for line in lines] == ["neg", "pos"]


def test_several_labels_of_a_row_keep_their_separator(tmp_path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\na,red|round\nb,Red\nc,red\n", encoding="utf-8")
    ptune.check_data(path, label_separator="|").fix(tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text(encoding="utf-8") == "text,label\na,red|round\nb,red\nc,red\n"


@pytest.mark.parametrize(
    ("name", "error"), [("out.pdf", ConfigError), ("out", ConfigError), ("taken/out.csv", OutputError)]
)
def test_a_place_that_cannot_be_written_is_refused(name, error, tmp_path) -> None:
    (tmp_path / "taken").write_text("a file", encoding="utf-8")
    with pytest.raises(error):
        ptune.check_data([{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]).fix(tmp_path / name)


def test_several_splits_need_a_folder(tmp_path) -> None:
    data = {"train": [{"text": "a", "label": "x"}], "validation": [{"text": "b", "label": "y"}]}
    with pytest.raises(ConfigError, match=r"`fix='.*out'`"):
        ptune.check_data(data).fix(tmp_path / "out.csv")
    assert list(tmp_path.iterdir()) == []


def test_rows_that_cannot_be_parsed_are_not_lost(tmp_path) -> None:
    rest = "".join(f"film {number},x\n" for number in range(100))
    (tmp_path / "quote.csv").write_text(f'text,label\ngood film,x\n"bad film,y\n{rest}', encoding="utf-8")
    lost = r"1 row cannot be parsed and would be lost: .*quote\.csv, row 2 \(.*correct them"
    with pytest.raises(DataError, match=lost):
        ptune.check_data(str(tmp_path / "quote.csv")).fix(tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_rows_with_another_kind_of_label_stay_as_they_are(tmp_path) -> None:
    rows = [{"text": "a", "label": "x"}, {"text": "b", "label": 0.5}, {"text": "c", "label": "y"}]
    found = ptune.check_data(rows)
    (unreadable,) = [finding for finding in found.findings if finding.kind == "unreadable"]
    assert not unreadable.fixable
    found.fix(tmp_path / "out.jsonl")
    lines = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == rows


def test_a_split_without_rows_is_an_error(tmp_path) -> None:
    rows = [{"text": "a good film", "label": "x"}, {"text": "a bad film", "label": "y"}]
    with pytest.raises(DataError, match=r"no row of train is left after the repair: 2 texts in two splits"):
        ptune.check_data({"train": rows, "validation": rows}).fix(tmp_path / "out")
    with pytest.raises(DataError, match="no row of train is left after the repair: 1 rows without text or label"):
        ptune.check_data([{"text": "", "label": "x"}]).fix(tmp_path / "out.csv")
    assert list(tmp_path.iterdir()) == []


def test_files_of_other_data_in_the_folder_are_noticed(tmp_path) -> None:
    (tmp_path / "test.jsonl").write_text("{}", encoding="utf-8")
    names = ("train", "validation")
    splits = {name: [{"text": f"{name} {n}", "label": "xy"[n % 2]} for n in range(4)] for name in names}
    with pytest.raises(ConfigError, match=r"holds other files, such as 'test\.jsonl'"):
        ptune.check_data(splits).fix(tmp_path)
    (tmp_path / "test.jsonl").unlink()
    ptune.check_data(splits).fix(tmp_path)
    ptune.check_data(splits).fix(tmp_path)  # its own files are replaced
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train.jsonl", "validation.jsonl"]


def test_lists_that_are_written_as_text_get_one_spelling(tmp_path) -> None:
    (tmp_path / "tags.csv").write_text(
        "text,label\na,\"['Red', 'blue']\"\nb,\"['red']\"\nc,\"['red', 'blue']\"\n", encoding="utf-8"
    )
    ptune.check_data(str(tmp_path / "tags.csv")).fix(tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        assert [row["label"] for row in csv.DictReader(file)] == ["['red', 'blue']", "['red']", "['red', 'blue']"]


def test_typing_errors_are_left_to_people() -> None:
    rows = [{"text": f"film {n}", "label": "business" if n < 40 else "sport"} for n in range(80)]
    found = ptune.check_data([*rows, {"text": "film x", "label": "busines"}])
    (finding,) = [finding for finding in found.findings if finding.kind == "label_spellings"]
    assert not finding.fixable
