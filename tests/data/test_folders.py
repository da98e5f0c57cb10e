"""The splits of a folder: by names of files, in folders of their own, as texts by label, and saved by `datasets`."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest

from ptune.data.load import load_data
from ptune.data.splits import TextData
from ptune.errors import DataError

Write = Callable[..., Path]


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder without words of the test's name, which pytest's own has and messages are searched for."""
    return tmp_path_factory.mktemp("d")


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes a table of some rows with labels a and b; its texts begin with the file's name."""

    def put(name: str, rows: int = 4) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writerows([("text", "label"), *((f"{path.name} {n}", "ab"[n % 2]) for n in range(rows))])
        return path

    return put


@pytest.fixture
def write_text(tmp_path: Path) -> Callable[..., None]:
    def put(name: str, content: str | bytes = "a film\nin two lines") -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return put


def sizes(data: TextData) -> dict[str, int]:
    return {name: len(split) for name, split in data.splits.items()}


@pytest.mark.parametrize(
    "names",
    [
        ["train_part0.csv", "train_part1.csv"],
        ["train-part-1.tsv", "train-part-2.tsv"],
        ["train.1.csv", "train.2.csv"],
        ["reviews_train_1.csv", "reviews_train_2.csv"],
        ["train/a.csv", "train/b.csv"],
        ["Training/x.jsonl.csv"],
    ],
)
def test_a_split_may_have_several_files(names: list[str], write: Write, tmp_path: Path) -> None:
    for name in names:
        write(name, 8 // len(names))
    write("dev.csv", 2)
    data = load_data(tmp_path)
    assert sizes(data) == {"train": 8, "validation": 2}
    assert [text.split()[0] for text in data.train.texts[:: 8 // len(names)]] == [Path(name).name for name in names]


@pytest.mark.parametrize(
    ("train", "validation"),
    [("twitter_training.csv", "twitter_validation.csv"), ("my train.csv", "my dev.csv"), ("train_x.csv", "x-val.csv")],
)
def test_the_name_of_a_split_may_have_something_around_it(
    train: str, validation: str, write: Write, tmp_path: Path
) -> None:
    write(train, 6)
    write(validation, 2)
    assert sizes(load_data(tmp_path)) == {"train": 6, "validation": 2}


def test_a_name_that_begins_with_the_split_is_better_than_one_that_ends_with_it(write: Write, tmp_path: Path) -> None:
    write("small_train.csv", 4)
    write("train_all.csv", 6)
    write("dev.csv", 2)
    assert len(load_data(tmp_path).train) == 6


def test_files_of_several_formats_in_the_folder_of_a_split_are_named(write: Write, tmp_path: Path) -> None:
    write("train/a.csv")
    write("train/b.tsv")
    with pytest.raises(DataError, match=r"has files of several formats: a\.csv, b\.tsv; keep those of one"):
        load_data(tmp_path)


def test_hidden_files_are_left_alone(write: Write, tmp_path: Path) -> None:
    write("train/a.csv")
    write("train/._a.csv")
    write("dev.csv", 2)
    assert len(load_data(tmp_path).train) == 4


def test_a_folder_for_each_label_holds_a_text_in_each_file(write_text: Callable[..., None], tmp_path: Path) -> None:
    for number in range(6):
        write_text(f"pos/{number}.txt", f"good {number}\nand fine")
        write_text(f"neg/{number}", f"bad {number}")
    data = load_data(tmp_path)
    assert data.labels == ["neg", "pos"]
    assert sizes(data) == {"train": 10, "validation": 2}
    assert {*data.train.texts, *data.validation.texts} == {
        *(f"good {number}\nand fine" for number in range(6)),
        *(f"bad {number}" for number in range(6)),
    }
    assert str(data.columns) == "text 'text', label 'label'"
    assert len(load_data(tmp_path, only="test", labels=["neg", "pos"]).test) == 12


def test_such_folders_may_lie_in_the_folders_of_splits(write_text: Callable[..., None], tmp_path: Path) -> None:
    write_text("README.txt", "about the data")
    for split in ("train", "test"):
        write_text(f"{split}/urls.txt")
        for label in ("pos", "neg"):
            for number in range(4):
                write_text(f"{split}/{label}/{number}.txt", f"{label} {number}")
    write_text("train/unsup/0.txt")
    data = load_data(tmp_path)
    assert data.labels == ["neg", "pos"]
    assert sizes(data) == {"train": 6, "test": 8, "validation": 2}


def test_tables_come_before_folders_of_texts(write: Write, write_text: Callable[..., None], tmp_path: Path) -> None:
    write("train.csv")
    write("dev.csv", 2)
    write_text("notes/a.txt")
    write_text("logs/a.txt")
    assert load_data(tmp_path).labels == ["a", "b"]


def test_an_empty_text_of_a_label_is_named_by_its_file(write_text: Callable[..., None], tmp_path: Path) -> None:
    for label in ("pos", "neg"):
        for number in range(3):
            write_text(f"{label}/{number}.txt")
    write_text("pos/1.txt", " \n")
    with pytest.raises(DataError, match=r"pos/1\.txt, row 1: column 'text' is empty"):
        load_data(tmp_path)
    assert "rows of train left out: 1 of 6; column 'text' is empty (1)" in load_data(tmp_path, on_empty="skip").notes


def test_texts_that_are_not_utf8_are_counted_in_one_warning(
    write_text: Callable[..., None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for label in ("pos", "neg"):
        for number in range(3):
            write_text(f"{label}/{number}.txt", "un très bon film".encode("latin-1" if number else "utf-8"))
    assert set(load_data(tmp_path).train.texts) == {"un très bon film"}
    (record,) = caplog.records
    assert "4 files are not UTF-8; they are read as Windows-1252" in record.message


ROWS = {"text": [f"text {n}" for n in range(8)], "label": [1, 0] * 4}
FEATURES = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["up", "down"])})


def test_a_saved_data_set_is_read_with_its_splits_and_label_names(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_dict(ROWS, features=FEATURES)
    datasets.DatasetDict({"train": rows, "test": rows.select(range(2))}).save_to_disk(tmp_path / "both")
    rows.save_to_disk(tmp_path / "one")
    data = load_data(tmp_path / "both")
    assert (data.labels, sizes(data)) == (["up", "down"], {"train": 6, "test": 2, "validation": 2})
    assert sizes(load_data(tmp_path / "one")) == {"train": 6, "validation": 2}
    assert load_data(tmp_path / "one", only="test", labels=["up", "down"]).test.labels == [1, 0] * 4


def test_a_damaged_saved_data_set_is_named(tmp_path: Path) -> None:
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train"]}')
    with pytest.raises(DataError, match="is not a complete data set of"):
        load_data(tmp_path)
