"""Blocks of files, and the folder of shards."""

from __future__ import annotations

import pytest

from ptune.atomic import write_files
from ptune.errors import ConfigError, DataError
from ptune.inference.tally import Tally
from ptune.places import as_place
from ptune.scale.predict_files import Shards, facts_of, list_files, read_blocks


def test_a_folder_means_all_data_files_in_it_in_order(tmp_path) -> None:
    for name in ("b.csv", "a.jsonl", "inner/c.parquet", "_SUCCESS", ".hidden.csv", "notes.md", "_old/d.csv"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("text\nx\n")
    assert [file.place.name for file in list_files(str(tmp_path))] == ["a.jsonl", "b.csv", "c.parquet"]
    assert [file.place.name for file in list_files(str(tmp_path / "b.csv"))] == ["b.csv"]
    assert [file.place.name for file in list_files(f"file://{tmp_path}")] == ["a.jsonl", "b.csv", "c.parquet"]


def test_an_input_without_data_is_named(tmp_path) -> None:
    with pytest.raises(DataError, match="holds no data files"):
        list_files(str(tmp_path))
    with pytest.raises(DataError, match=r"nothing\.csv': there is no such file"):
        list_files(str(tmp_path / "nothing.csv"))


@pytest.mark.parametrize(("rows", "sizes"), [(0, [0]), (4, [4]), (5, [4, 1]), (8, [4, 4])])
def test_a_file_is_read_in_blocks(tmp_path, rows, sizes) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text\n" + "".join(f"row {number}\n" for number in range(rows)))
    blocks = list(read_blocks(list_files(str(path))[0], 4))
    assert [len(block) for block in blocks] == sizes
    assert [row["text"] for block in blocks for row in block] == [f"row {number}" for number in range(rows)]


@pytest.mark.parametrize("where", ["disk", "object store"])
def test_predictions_of_something_else_are_not_mixed_with_new_ones(where, tmp_path) -> None:
    shards = Shards(tmp_path / "out" if where == "disk" else as_place(f"memory://{tmp_path}/out"))
    shards.begin({"adapter": "a", "on_empty": "null"}, overwrite=False)
    write_files(shards.folder, {shards.path(3, 12).name: b""})
    shards.begin({"adapter": "a", "on_empty": "null"}, overwrite=False)
    assert [path.name for path in shards.finished()] == ["00003-000012.parquet"]
    with pytest.raises(ConfigError, match=r"other settings \(adapter\); give another `output`, or `overwrite=True`"):
        shards.begin({"adapter": "b", "on_empty": "null"}, overwrite=False)
    shards.begin({"adapter": "b", "on_empty": "null"}, overwrite=True)
    assert shards.finished() == []


def test_a_folder_of_something_else_is_left_alone(tmp_path) -> None:
    (tmp_path / "thesis.txt").write_text("")
    with pytest.raises(ConfigError, match="should be a new or empty folder"):
        Shards(tmp_path).begin({}, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_changed_file_is_noticed(tmp_path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text\nx\n")
    before = facts_of(list_files(str(path)))
    path.write_text("text\nxy\n")
    assert facts_of(list_files(str(path))) != before


def test_tallies_add_up_and_come_back_from_json() -> None:
    first, second = Tally("single_label_classification"), Tally("single_label_classification")
    for label in ("a", "b", "a"):
        first.add({"label": label})
    second.add({"label": "a"})
    both = Tally.from_json((first + second).to_json())
    assert (both.rows, both.answer()) == (4, {"labels": {"a": 3, "b": 1}})
    numbers = [Tally("regression"), Tally("regression")]
    numbers[0].add({"value": 2.0})
    numbers[1].add({"value": 5.0})
    numbers[1].add({"value": None})
    total = numbers[0] + Tally.from_json(numbers[1].to_json())
    assert (total.rows, total.answer()) == (3, {"mean": 3.5, "min": 2.0, "max": 5.0})
