"""Labelled text from folders and files: splits, label order, held-back rows, and errors that name the row."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow
import pyarrow.parquet as parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptune.data import sources
from ptune.data.load import load_data
from ptune.data.splits import Origin, Split, TextData
from ptune.errors import ConfigError, DataError

Row = dict[str, Any]
Rows = Sequence[Row]
Write = Callable[[str, Rows], Path]


def rows_of(*labels: object, start: int = 0) -> list[Row]:
    """Return a row for each label. All texts are different."""
    return [{"text": f"text {number}", "label": label} for number, label in enumerate(labels, start)]


def write_rows(path: Path, rows: Rows) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder without words of the test's name, which pytest's own has and messages are searched for."""
    return tmp_path_factory.mktemp("d")


@pytest.fixture
def write(tmp_path: Path) -> Write:
    return lambda name, rows: write_rows(tmp_path / name, rows)


def message(source: Path | str, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        load_data(source, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def named(data: TextData, split: str) -> list[tuple[str, str]]:
    """Return (text, label name) for each row."""
    part = data.split(split)
    return [(text, data.labels[label]) for text, label in zip(part.texts, part.labels or [], strict=True)]


ABAB = rows_of("b", "a", "a", "b")


def test_a_folder_gives_its_three_splits(write: Write, tmp_path: Path) -> None:
    write("train.csv", ABAB)
    write("validation.csv", rows_of("a", "b", "a"))
    write("test.csv", rows_of("b", "b"))
    data = load_data(tmp_path)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 4, "validation": 3, "test": 2}
    assert named(data, "train") == [("text 0", "b"), ("text 1", "a"), ("text 2", "a"), ("text 3", "b")]
    assert not any(note.startswith("split") for note in data.notes)


@pytest.mark.parametrize("name", ["dev.csv", "valid.tsv", "val.jsonl", "eval.csv", "Validation.csv", "dev-en.tsv"])
def test_validation_goes_by_many_names(write: Write, tmp_path: Path, name: str) -> None:
    write("train.csv", ABAB)
    write(name, rows_of("b", "a", "b"))
    assert load_data(tmp_path).validation.texts == ["text 0", "text 1", "text 2"]


def test_shards_are_read_in_the_order_of_their_names(write: Write, tmp_path: Path) -> None:
    write("train-00001-of-00002.csv", rows_of("a", "b", "a", start=2))
    write("train-00000-of-00002.csv", rows_of("a", "b"))
    write("dev.csv", rows_of("a"))
    assert load_data(tmp_path).train.texts == [f"text {n}" for n in range(5)]


def test_an_error_in_a_shard_names_that_shard_and_its_own_row(write: Write, tmp_path: Path) -> None:
    write("train-0.csv", rows_of("a", "b", "a"))
    write("train-1.csv", [*rows_of("a"), {"text": " ", "label": "b"}])
    said = message(tmp_path)
    assert "train-1.csv" in said
    assert "train-0.csv" not in said
    assert "row 2" in said


def test_a_folder_named_data_inside_is_looked_into(write: Write, tmp_path: Path) -> None:
    write("data/train.csv", ABAB)
    write("data/test.csv", rows_of("a"))
    assert set(load_data(tmp_path).splits) == {"train", "validation", "test"}


def test_a_folder_with_one_file_of_any_name_is_that_file(write: Write, tmp_path: Path) -> None:
    write("reviews.csv", rows_of(*"aabbab"))
    assert len(load_data(tmp_path).train) == 4


def test_labels_of_names_are_sorted(write: Write) -> None:
    assert load_data(write("a.csv", rows_of(*"cab" * 3))).labels == ["a", "b", "c"]


def test_labels_of_numbers_keep_numeric_order(write: Write) -> None:
    data = load_data(write("a.csv", rows_of(*(["10", "2", "-3"] * 4))))
    assert data.labels == ["-3", "2", "10"]
    assert set(named(data, "train")) <= {(f"text {n}", ["10", "2", "-3"][n % 3]) for n in range(12)}


def test_one_name_among_numbers_makes_all_labels_names(write: Write) -> None:
    assert load_data(write("a.csv", rows_of(*(["10", "2", "other"] * 3)))).labels == ["10", "2", "other"]


def class_label_file(path: Path, labels: list[int], names: list[str]) -> Path:
    info = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
    table = pyarrow.table({"text": [f"text {n}" for n in range(len(labels))], "label": labels})
    parquet.write_table(table.replace_schema_metadata({"huggingface": json.dumps(info)}), path)
    return path


def test_class_labels_keep_their_order_and_those_that_no_row_has(tmp_path: Path) -> None:
    path = class_label_file(tmp_path / "a.parquet", [2, 0, 2, 0, 0, 2, 2], ["up", "left", "down"])
    data = load_data(path)
    assert data.labels == ["up", "left", "down"]
    assert {("text 0", "down"), ("text 1", "up")} <= {*named(data, "train"), *named(data, "validation")}


def test_a_class_label_without_a_name_is_named_by_its_row(tmp_path: Path) -> None:
    said = message(class_label_file(tmp_path / "a.parquet", [1, 0, 5], ["up", "left", "down"]))
    assert "row 3" in said
    assert "label 5" in said


def test_one_file_is_split_with_the_seed_noted(write: Write) -> None:
    data = load_data(write("a.csv", rows_of(*"ab" * 25)), seed=11)
    assert (len(data.train), len(data.validation)) == (45, 5)
    assert "split: 5 of 50 rows held back for validation, stratified, seed 11" in data.notes


def test_a_split_keeps_every_row_once_and_the_order_of_the_file(write: Write) -> None:
    data = load_data(write("a.csv", rows_of(*"abb" * 14)))
    numbers = [[int(text.split()[1]) for text in data.split(name).texts] for name in ("train", "validation")]
    assert numbers == [sorted(numbers[0]), sorted(numbers[1])]
    assert sorted(numbers[0] + numbers[1]) == list(range(42))


def test_a_split_keeps_the_shares_of_the_labels(write: Write) -> None:
    data = load_data(write("a.csv", rows_of(*"abbb" * 20)))
    assert Counter(data.validation.labels) == {0: 2, 1: 6}
    assert Counter(data.train.labels) == {0: 18, 1: 54}


def test_the_same_seed_gives_the_same_split_and_another_another(write: Write) -> None:
    path = write("a.csv", rows_of(*"ab" * 30))
    assert load_data(path, seed=4) == load_data(path, seed=4)
    assert load_data(path, seed=4).validation != load_data(path, seed=5).validation


def test_a_sample_of_the_training_rows_is_stratified_and_noted(write: Write, tmp_path: Path) -> None:
    write("train.csv", rows_of(*"abbb" * 20))
    write("dev.csv", rows_of(*"abb"))
    data = load_data(tmp_path, max_train_rows=12, seed=6)
    assert Counter(data.train.labels) == {0: 3, 1: 9}
    assert len(data.validation) == 3
    assert "sample: 12 of 80 training rows, stratified, seed 6" in data.notes
    assert data == load_data(tmp_path, max_train_rows=12, seed=6)


def test_a_sample_of_the_validation_rows_is_stratified_and_noted(write: Write, tmp_path: Path) -> None:
    write("train.csv", rows_of(*"abbb" * 5))
    write("dev.csv", rows_of(*"abbb" * 20))
    data = load_data(tmp_path, max_validation_rows=12, seed=6)
    assert Counter(data.validation.labels) == {0: 3, 1: 9}
    assert len(data.train) == 20
    assert "sample: 12 of 80 validation rows, stratified, seed 6" in data.notes
    assert len(load_data(tmp_path, max_validation_rows=80).validation) == 80


def test_rows_that_were_held_back_are_sampled_too(write: Write) -> None:
    path = write("a.csv", rows_of(*"ab" * 100))
    assert load_data(path).held_back
    data = load_data(path, max_validation_rows=4)
    assert (len(data.train), len(data.validation)) == (180, 4)
    assert data.held_back
    assert data.sampled  # the rows left out cannot be given back for cross-validation


def test_a_sample_larger_than_the_data_is_the_data(write: Write, tmp_path: Path) -> None:
    write("train.csv", ABAB)
    write("dev.csv", rows_of("a"))
    data = load_data(tmp_path, max_train_rows=5)
    assert len(data.train) == 4
    assert not any(note.startswith("sample") for note in data.notes)


@given(st.lists(st.integers(2, 40), min_size=2, max_size=5), st.integers(0, 3), st.data())
@settings(deadline=None, max_examples=30)
def test_every_label_stays_in_each_part_of_a_split(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int], seed: int, draw: st.DataObject
) -> None:
    labels = [name for name, count in zip("abcde", counts, strict=False) for _ in range(count)]
    path = write_rows(tmp_path_factory.mktemp("split") / "a.jsonl", rows_of(*labels))
    data = load_data(path, seed=seed)
    classes = set(range(len(counts)))
    assert set(data.validation.labels or []) == set(data.train.labels or []) == classes
    rows = draw.draw(st.integers(len(counts), len(data.train)))
    sample = load_data(path, seed=seed, max_train_rows=rows).train
    assert len(sample) == rows
    assert set(sample.labels or []) == classes


def test_too_small_a_sample_for_all_labels_is_refused(write: Write) -> None:
    path = write("a.csv", rows_of(*"abc" * 20))
    assert "every class, because the training rows have 3 classes; use `max_train_rows=3`" in message(
        path, max_train_rows=2
    )
    assert "use `max_validation_rows=3` or more" in message(path, max_validation_rows=2)


def test_an_unseen_label_in_validation_is_named_by_file_and_row(write: Write, tmp_path: Path) -> None:
    write("train.csv", ABAB)
    write("dev.tsv", rows_of("a", "b", "c"))
    said = message(tmp_path)
    assert f"{tmp_path / 'dev.tsv'}, row 3: label 'c'" in said
    assert "(a, b)" in said


def test_an_unseen_number_in_validation_is_named_by_file_and_row(write: Write, tmp_path: Path) -> None:
    write("train.csv", rows_of(1, 2, 1, 2))
    write("dev.csv", rows_of(1, 0))
    assert "dev.csv, row 2: label '0'" in message(tmp_path)


def test_a_single_class_is_refused(write: Write) -> None:
    said = message(write("a.csv", rows_of("a", "a", "a")))
    assert "every row has label 'a'" in said
    assert "two classes" in said


def test_a_label_that_occurs_once_is_named_by_its_row(write: Write) -> None:
    said = message(write("a.csv", rows_of("a", "b", "a", "c", "b")))
    assert "row 4: label 'c' occurs only once" in said


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"text": "", "label": "a"}, "'text' is empty"),
        ({"text": None, "label": "a"}, "'text' has no text"),
        ({"label": "a"}, "'text' has no text"),
        ({"text": "good", "label": None}, "'label' has no label"),
        ({"text": "good"}, "'label' has no label"),
        ({"text": "good", "label": ["a", "b"]}, "several labels"),
    ],
)
def test_a_missing_value_is_named_by_its_row(write: Write, row: Row, problem: str) -> None:
    said = message(write("a.jsonl", [*ABAB, row]))
    assert "a.jsonl, row 5: " in said
    assert problem in said


def test_a_missing_second_text_is_named_by_its_row(write: Write) -> None:
    rows = [{"text_a": "x", "text_b": "y" if n != 2 else "", "label": n % 2} for n in range(4)]
    assert "row 3: column 'text_b' is empty" in message(write("a.csv", rows))


def test_pairs_are_kept_side_by_side(write: Write, tmp_path: Path) -> None:
    write("train.csv", [{"premise": f"p{n}", "hypothesis": f"h{n}", "label": n % 2} for n in range(6)])
    write("dev.csv", [{"premise": "p", "hypothesis": "h", "label": 1}])
    assert load_data(tmp_path).train == Split([f"p{n}" for n in range(6)], [f"h{n}" for n in range(6)], [0, 1] * 3)


def test_an_unlabelled_test_split_is_left_out(write: Write, tmp_path: Path) -> None:
    write("train.csv", ABAB)
    write("dev.csv", rows_of("a"))
    write("test.csv", rows_of(-1, -1, -1))
    assert set(load_data(tmp_path).splits) == {"train", "validation"}


def test_a_test_file_without_the_label_column_is_left_out_too(write: Write, tmp_path: Path) -> None:
    write("train.csv", ABAB)
    write("dev.csv", rows_of("a"))
    write("test.csv", [{"text": "good"}])
    assert set(load_data(tmp_path).splits) == {"train", "validation"}


def test_an_unlabelled_test_split_can_be_read_alone(write: Write, tmp_path: Path) -> None:
    write("test.csv", rows_of(-1, -1, -1))
    split = load_data(tmp_path, only="test", labels=["a", "b"]).test
    assert split == Split(["text 0", "text 1", "text 2"], None, None)


def test_training_rows_without_labels_are_refused(write: Write) -> None:
    assert "no row has a label" in message(write("a.csv", rows_of(-1, -1)))


def test_only_reads_no_other_split(write: Write, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_bytes(b"\xff")
    write("dev.csv", rows_of("a", "b", "a"))
    data = load_data(tmp_path, only="validation", labels=["b", "a"])
    assert data.splits == {"validation": Split(["text 0", "text 1", "text 2"], None, [1, 0, 1])}


def test_only_takes_all_of_a_single_file(write: Write) -> None:
    assert len(load_data(write("a.csv", rows_of("a")), only="validation", labels=["a", "b"]).validation) == 1


def test_a_split_that_is_not_there_is_named_with_those_that_are(write: Write, tmp_path: Path) -> None:
    write("train.csv", ABAB)
    assert "no split 'test'; it has train" in message(tmp_path, only="test", labels=["a", "b"])


def test_numbers_stand_for_places_in_an_adapters_label_names(write: Write) -> None:
    data = load_data(write("a.csv", rows_of(2, 0, 1, 2)), only="test", labels=["c", "a", "b"])
    assert named(data, "test") == [("text 0", "b"), ("text 1", "c"), ("text 2", "a"), ("text 3", "b")]


def test_numbers_that_are_label_names_stand_for_themselves(write: Write) -> None:
    data = load_data(write("a.csv", rows_of(2, 1, 2)), only="test", labels=["1", "2", "3"])
    assert data.test.labels == [1, 0, 1]


def test_a_number_beyond_an_adapters_labels_is_named_by_its_row(write: Write) -> None:
    said = message(write("a.csv", rows_of(0, 1, 3)), only="test", labels=["c", "a", "b"])
    assert "row 3" in said
    assert "'3'" in said


def test_class_labels_are_matched_with_an_adapters_by_name(tmp_path: Path) -> None:
    path = class_label_file(tmp_path / "a.parquet", [0, 1, 1], ["bad", "good"])
    assert load_data(path, only="test", labels=["good", "bad"]).test.labels == [1, 0, 0]


def test_a_split_in_two_forms_is_ambiguous(write: Write, tmp_path: Path) -> None:
    write("train.csv", ABAB)
    write("train.jsonl", ABAB)
    said = message(tmp_path)
    assert "train.csv, train.jsonl" in said
    assert "keep one" in said


def test_a_folder_without_train_is_named_with_what_it_has(write: Write, tmp_path: Path) -> None:
    write("test.csv", ABAB)
    said = message(tmp_path)
    assert f"'{tmp_path}' has no split 'train'" in said
    assert "it has test" in said


def test_an_empty_folder_is_told_what_is_expected(tmp_path: Path) -> None:
    said = message(tmp_path)
    assert "no train file" in said
    assert "train.csv, train.tsv" in said


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_a_file_without_rows_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("text,label\n" if name == "a.csv" else "", encoding="utf-8")
    said = message(tmp_path / name)
    assert name in said
    assert "no rows" in said


@pytest.mark.parametrize(
    "source", ["none.csv", "none.zip", "none.csv.gz", "./none", "~/none-such-folder", "/none/such"]
)
def test_a_path_that_leads_nowhere_is_named(source: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    said = message(source)
    assert source in said
    assert "no such file" in said


class HubRows:
    """The part of a Hub split that is used."""

    def __init__(self, rows: Rows, names: list[str] | None) -> None:
        self.rows = rows
        feature = type("ClassLabel", (), {"names": names})() if names else object()
        self.features = {"text": object(), "label": feature}

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)


def test_a_hub_data_set_brings_its_splits_and_label_names(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = {
        "train": HubRows(rows_of(1, 0, 1, 0, 2, 2), ["up", "left", "down"]),
        "validation": HubRows(rows_of(2, 0), ["up", "left", "down"]),
        "test": HubRows(rows_of(-1, -1, -1), ["up", "left", "down"]),
        "extra": HubRows([{"other": 1}], None),
    }
    asked = []
    monkeypatch.setattr(sources, "_load_from_hub", lambda source, origin: asked.append((source, origin)) or hub)
    data = load_data("owner/ways/north", revision="abc")
    assert asked == [("owner/ways/north", Origin("owner/ways", True, "north", "abc"))]
    assert data.origin == asked[0][1]
    assert data.labels == ["up", "left", "down"]
    assert {name: split.labels for name, split in data.splits.items()} == {
        "train": [1, 0, 1, 0, 2, 2],
        "validation": [2, 0],
    }


@given(st.lists(st.text(min_size=1, max_size=9).filter(str.strip), min_size=2, max_size=9))
@settings(deadline=None, max_examples=40)
def test_a_csv_and_a_jsonl_of_the_same_texts_load_alike(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("alike")
    rows = [{"text": text, "label": name} for text in texts for name in ("a", "b")]
    first, second = (load_data(write_rows(folder / name, rows)) for name in ("a.csv", "a.jsonl"))
    assert first.splits == second.splits
    assert {*first.train.texts, *first.validation.texts} == set(texts)


def test_the_majority_share_is_the_commonest_labels(write: Write, tmp_path: Path) -> None:
    write("train.csv", ABAB)
    write("dev.csv", rows_of("a", "b", "b", "b", "a"))
    assert load_data(tmp_path).majority_share() == pytest.approx(0.6)


def test_an_adapter_without_label_names_is_evaluated_by_the_files_own_order(tmp_path) -> None:
    features = {"label": {"names": ["not_same", "equal"], "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pyarrow.table({"text": ["a film", "a book"], "label": [0, 1]}).replace_schema_metadata(metadata)
    parquet.write_table(table, tmp_path / "a.parquet")
    data = load_data(tmp_path / "a.parquet", labels=["LABEL_0", "LABEL_1"], only="validation")
    assert data.validation.labels == [0, 1]


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("imdb", ("imdb", None)),
        ("glue/mrpc", ("nyu-mll/glue", "mrpc")),
        ("owner/set", ("owner/set", None)),
        ("owner/set/part", ("owner/set", "part")),
    ],
)
def test_a_hub_id_is_a_repository_and_a_configuration(name, asked, monkeypatch) -> None:
    import datasets

    calls = []

    def load_dataset(*arguments, **options):
        calls.append((arguments, options))
        raise ConnectionError

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    reason = rf"data '{name}' is not a file or folder here, and could not be loaded from the Hub at revision 'v1' \("
    with pytest.raises(DataError, match=reason):
        load_data(name, revision="v1")
    assert calls == [(asked, {"revision": "v1"})]


def test_files_are_noted_by_their_own_name_without_the_way_to_them(write: Write, tmp_path: Path) -> None:
    path = write("train.csv", rows_of("a", "b", "a", "b"))
    assert load_data(path).origin == Origin("train.csv")
    assert load_data(tmp_path).origin == Origin(tmp_path.name)


def test_a_hub_data_set_is_read_as_the_library_gives_it(monkeypatch) -> None:
    import datasets

    features = datasets.Features({"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["b", "a"])})
    rows = {"sentence": ["one", "two", "three", "four"], "label": [0, 1, 0, 1]}
    train = datasets.Dataset.from_dict(rows, features=features)
    test = datasets.Dataset.from_dict({"sentence": ["five"], "label": [-1]}, features=features)
    hub = datasets.DatasetDict({"train": train, "validation": train, "test": test, "unsupervised": test})
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: hub)
    data = load_data("owner/set")
    assert data.labels == ["b", "a"]
    assert data.validation.labels == [0, 1, 0, 1]
    assert "unsupervised" not in data.splits


def test_a_file_whose_name_only_begins_like_a_split_is_left_alone(write: Write, tmp_path: Path) -> None:
    write("train.csv", rows_of("a", "b", "a", "b"))
    write("train_small.csv", rows_of("z", "z"))
    write("validation.csv", rows_of("a", "b"))
    data = load_data(tmp_path)
    assert len(data.train) == 4
    assert data.labels == ["a", "b"]


def test_such_a_file_is_the_split_where_there_is_no_better_one(write: Write, tmp_path: Path) -> None:
    write("train_data.csv", rows_of("a", "b", "a", "b"))
    write("test_data.csv", rows_of("a", "b"))
    data = load_data(tmp_path, only="test")
    assert len(data.test) == 2


@pytest.mark.parametrize(
    ("names", "listed"),
    [
        (["dev.csv", "validation.csv"], "dev.csv, validation.csv"),
        (["dev_a.csv", "dev_b.csv"], "dev_a.csv, dev_b.csv"),
        (["dev.csv", "dev-1.csv"], "dev-1.csv, dev.csv"),
    ],
)
def test_files_that_are_no_shards_are_not_put_together(names, listed, write: Write, tmp_path: Path) -> None:
    for name in ["train.csv", *names]:
        write(name, rows_of("a", "b", "a", "b"))
    reason = f"several files for split 'validation' that are not shards: {listed}; keep one"
    assert reason in message(tmp_path)


def topics_of(*labels: list[object]) -> list[Row]:
    """Return a row for each list of labels."""
    return [{"text": f"text {number}", "labels": own} for number, own in enumerate(labels)]


TOPICS: list[list[object]] = [["b", "a"], [], ["c"], ["a"], ["b", "c"], ["a", "b"], ["c"], [], ["b"], ["a", "c"]]


def label_sets(data: TextData, split: str) -> dict[str, list[str]]:
    """Return the label names of each row by its text."""
    part = data.split(split)
    return {
        text: [data.labels[place] for place in own]  # type: ignore[union-attr]
        for text, own in zip(part.texts, part.labels or [], strict=True)
    }


def test_lists_are_several_labels_a_row_and_a_row_may_have_none(write: Write) -> None:
    data = load_data(write("a.jsonl", topics_of(*TOPICS)))
    assert data.problem_type == "multi_label_classification"
    assert "problem type: multi_label_classification (the labels are lists)" in data.notes
    assert data.labels == ["a", "b", "c"]
    found = {**label_sets(data, "train"), **label_sets(data, "validation")}
    assert found == {f"text {number}": sorted(own) for number, own in enumerate(TOPICS)}  # type: ignore[type-var]


def test_text_that_a_separator_parts_loads_like_lists(write: Write) -> None:
    cells = [{"text": f"text {n}", "labels": " | ".join(map(str, own))} for n, own in enumerate(TOPICS)]
    parted = load_data(write("a.csv", cells), label_separator="|")
    lists = load_data(write("b.jsonl", topics_of(*TOPICS)))
    assert (parted.splits, parted.labels, parted.problem_type) == (lists.splits, lists.labels, lists.problem_type)
    assert "problem type: multi_label_classification (labels are separated by '|')" in parted.notes


@pytest.mark.parametrize("kind", ["List", "old"])
def test_names_of_a_parquet_files_label_lists_are_kept(kind: str, tmp_path: Path) -> None:
    inner = {"names": ["up", "left", "down"], "_type": "ClassLabel"}
    feature = {"feature": inner, "_type": "List"} if kind == "List" else [inner]
    metadata = {"huggingface": json.dumps({"info": {"features": {"labels": feature}}})}
    table = pyarrow.table({"text": [f"text {n}" for n in range(8)], "labels": [[2, 0], [0], [], [2]] * 2})
    parquet.write_table(table.replace_schema_metadata(metadata), tmp_path / "a.parquet")
    data = load_data(tmp_path / "a.parquet")
    assert data.labels == ["up", "left", "down"]
    assert {**label_sets(data, "train"), **label_sets(data, "validation")}["text 0"] == ["up", "down"]


def test_a_hub_data_set_of_label_lists_brings_their_names(monkeypatch) -> None:
    import datasets

    features = datasets.Features(
        {"text": datasets.Value("string"), "labels": datasets.List(datasets.ClassLabel(names=["b", "a"]))}
    )
    rows = {"text": ["one", "two", "three"], "labels": [[0, 1], [], [1]]}
    part = datasets.Dataset.from_dict(rows, features=features)
    hub = datasets.DatasetDict({"train": part, "validation": part})
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: hub)
    data = load_data("owner/set")
    assert data.labels == ["b", "a"]
    assert data.train.labels == [(0, 1), (), (1,)]


def test_numbers_in_lists_are_labels_too_and_places_of_an_adapters(write: Write) -> None:
    path = write("a.jsonl", topics_of([3, 10], [], ["3"], [10]))
    assert load_data(path, only="train").labels == ["3", "10"]
    path = write("b.jsonl", topics_of([1, 0], [], [2]))
    data = load_data(path, only="test", labels=["x", "y", "z"], problem_type="multi_label_classification")
    assert data.test.labels == [(0, 1), (), (2,)]


def test_fractions_are_a_regression(write: Write) -> None:
    data = load_data(write("a.csv", rows_of(*[0.5, 3, 2.25, 4, 5] * 4)))
    assert data.problem_type == "regression"
    assert data.labels == ["label"]
    assert "problem type: regression (the labels are fractions)" in data.notes
    assert set(data.train.labels or []) <= {0.5, 3.0, 2.25, 4.0, 5.0}
    assert (len(data.train), len(data.validation)) == (18, 2)


def test_whole_numbers_are_a_regression_where_it_is_asked_for(write: Write) -> None:
    path = write("a.csv", rows_of(*[1, 2, 3, 4, 5] * 4))
    data = load_data(path, problem_type="regression", max_train_rows=7)
    assert {type(target) for target in data.train.labels or []} == {float}
    assert len(data.train) == 7
    assert load_data(path).problem_type == "single_label_classification"
    assert "problem type: regression (as requested)" in data.notes


def test_numbers_of_an_unlabelled_test_split_leave_it_out(write: Write, tmp_path: Path) -> None:
    write("train.csv", rows_of(0.5, 1, 2, 3))
    write("dev.csv", rows_of(1, 2))
    write("test.csv", rows_of(-1, -1))
    data = load_data(tmp_path)
    assert set(data.splits) == {"train", "validation"}
    assert data.validation.labels == [1.0, 2.0]


@pytest.mark.parametrize(
    ("labels", "options", "said"),
    [
        ([["a"], "b", ["a"]], {}, "row 2: column 'label' holds 'b'; a list of labels is expected"),
        (["a", ["a", "b"], "b"], {}, "row 2: column 'label' holds several labels"),
        ([["a", "b"], ["b"], None], {}, "row 3: column 'label' holds nothing"),
        ([["a"], [], [1.5]], {}, "row 3: label 1.5 is a fraction"),
        ([[], [], []], {}, "no row has a label"),
        ([["a", "b"]] * 3, {}, "every row has the same target, ['a', 'b']"),
        ([["a"], ["a"], ["a"]], {}, "every row has label 'a'"),
        ([0.5, 1.5, "b"], {}, "rows 1 and 2: label 0.5 is a fraction"),
        ([0.5, 1.5, None], {}, "row 3: column 'label' has no number"),
        ([0.5, 0.5, 0.5], {}, "every row has the same target, 0.5"),
        (
            ["a", "b", "a"],
            {"problem_type": "regression"},
            "rows 1, 2 and 3: column 'label' holds 'a'; a number",
        ),
        (["a", "b"], {"problem_type": "multi_label_classification"}, "rows 1 and 2: column 'label' holds 'a'; a list"),
        ([["a", "b"], ["b"]], {"problem_type": "single_label_classification"}, "row 1: column 'label' holds several"),
        ([[1.5]], {"problem_type": "regression"}, "row 1: column 'label' holds a list"),
    ],
)
def test_mixed_and_unsuitable_labels_are_named_by_file_and_row(
    labels: list[object], options: dict[str, Any], said: str, write: Write
) -> None:
    found = message(write("a.jsonl", rows_of(*labels)), **options)
    assert "a.jsonl" in found
    assert said in found


def test_an_unseen_label_in_a_list_is_named_by_file_and_row(write: Write, tmp_path: Path) -> None:
    write("train.jsonl", topics_of(["a"], ["b"], []))
    write("dev.jsonl", topics_of([], ["a", "z"]))
    assert "dev.jsonl, row 2: label 'z' is not among the known labels (a, b)" in message(tmp_path)


@pytest.mark.parametrize("labels", [["1", "2", "3"], ["1.0", "2.0", "3.0"]])
def test_a_number_is_the_same_label_with_zeros_behind_its_point(labels: list[str], write: Write) -> None:
    for name, rows in (("a.jsonl", rows_of(2.0, 1.0)), ("a.csv", rows_of("2.0", "1.0")), ("b.csv", rows_of(2, 1))):
        assert load_data(write(name, rows), only="test", labels=labels).test.labels == [1, 0]


def test_a_number_that_is_no_label_is_no_place_where_labels_are_numbers(write: Write) -> None:
    said = message(write("a.csv", rows_of(0, 0)), only="test", labels=["1", "2", "3"])
    assert "rows 1 and 2: label '0' is not among the known labels (1, 2, 3)" in said


@pytest.mark.parametrize("odd", ["nan", "NaN", "inf", "-Infinity"])
def test_one_number_that_is_none_does_not_make_names_of_the_others(odd: str, write: Write) -> None:
    said = message(write("a.csv", rows_of(*["0.5", "1.5"] * 6, odd, "2.5")))
    assert "row 13" in said
    assert "numbers" in said


def test_the_columns_of_the_training_data_are_taken_before_others(write: Write) -> None:
    rows = [{"text": "x", "body": f"t {n}", "label": "a", "stars": (n % 2 and "good") or "bad"} for n in range(4)]
    trained = {"text": "body", "text_pair": None, "label": "stars"}
    data = load_data(write("a.csv", rows), only="test", labels=["bad", "good"], trained=trained)
    assert named(data, "test") == [("t 0", "bad"), ("t 1", "good"), ("t 2", "bad"), ("t 3", "good")]
    asked = load_data(write("a.csv", rows), only="test", labels=["a"], trained=trained, text="text", label="label")
    assert named(asked, "test") == [("x", "a")] * 4
    other = load_data(write("b.csv", rows_of("bad", "good")), only="test", labels=["bad", "good"], trained=trained)
    assert named(other, "test") == [("text 0", "bad"), ("text 1", "good")]


def test_a_column_that_another_split_lacks_is_named_with_those_that_it_has(write: Write, tmp_path: Path) -> None:
    write("train.csv", ABAB)
    write("dev.csv", [{"body": "x", "label": "a"}])
    said = message(tmp_path)
    assert "dev.csv" in said
    assert "column 'text'" in said
    assert "(body, label)" in said
    assert "--text" not in said


def test_a_regression_with_one_number_left_to_train_on_is_refused(write: Write) -> None:
    assert "same number" in message(write("a.csv", rows_of("0.5", "1.5", "2.5")))


@pytest.mark.parametrize("on_empty", ["error", "skip"])
@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_shard_without_the_text_column_is_named(tmp_path: Path, on_empty: Any, ending: str) -> None:
    write_rows(tmp_path / f"train-1.{ending}", rows_of("a", "b", "a", "b"))
    write_rows(tmp_path / f"train-2.{ending}", [{"texts": "x", "label": "a"}, {"texts": "y", "label": "b"}])
    with pytest.raises(DataError, match=r"train-2\.\w+' has no column 'text', which '.*train-1"):
        load_data(str(tmp_path), on_empty=on_empty)


def test_shards_may_have_empty_cells_and_other_columns(tmp_path: Path) -> None:
    write_rows(tmp_path / "train-1.jsonl", rows_of("a", "b", "a", "b"))
    write_rows(tmp_path / "train-2.jsonl", [{"label": "a"}, {"text": "y", "label": "b", "more": 1}])
    data = load_data(str(tmp_path), on_empty="skip")
    assert len(data.train) + len(data.validation) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_train_rows": 2.5}, "`max_train_rows` is 2.5; a whole number of 1 or more"),
        ({"max_validation_rows": 0}, "`max_validation_rows` is 0"),
        ({"drop_rare": -1}, "`drop_rare` is -1"),
        ({"drop_rare": True}, "`drop_rare` is True"),
        ({"seed": "a"}, "`seed` is 'a'; a whole number is expected"),
        ({"problem_type": "ranking"}, "`problem_type='ranking'` is unknown"),
        ({"labels": ["a", "a"]}, "label 'a' is named twice"),
    ],
)
def test_wrong_arguments_are_named(write: Write, arguments: dict[str, Any], message: str) -> None:
    path = write("a.jsonl", rows_of("a", "b", "a", "b"))
    with pytest.raises(ConfigError, match=message):
        load_data(str(path), **arguments)


def test_labels_that_are_numbers_may_be_meant_as_numbers(write: Write) -> None:
    path = write("a.csv", rows_of("100.00", "250.00", "100.00", "12.00"))
    with pytest.raises(DataError, match=r"occurs only once.*To learn the numbers themselves, set `problem_type='reg"):
        load_data(str(path))


def test_numbers_that_float32_cannot_tell_apart_are_warned_of(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    path = write("a.jsonl", rows_of(*(1e9 + number / 2 for number in range(20))))
    load_data(str(path))
    assert "take 1e+09 from all of them" in caplog.text
    caplog.clear()
    load_data(str(write("b.jsonl", rows_of(*(1e9 * number + 0.5 for number in range(20))))))
    assert not caplog.text


def test_whole_numbers_are_said_to_be_indices_of_names(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    path = str(write("a.jsonl", rows_of(0, 1, 1, 0)))
    data = load_data(path, labels=["no", "yes"])
    assert data.labels == ["no", "yes"]
    assert "are taken as indices: 0 no, 1 yes" in caplog.text
    caplog.clear()
    load_data(path, labels=["0", "1"])
    assert "indices" not in caplog.text


def test_a_split_that_is_not_there_is_named_with_the_others(write: Write, tmp_path: Path) -> None:
    write("train.jsonl", rows_of("a", "b"))
    write("test.jsonl", rows_of("a", "b"))
    with pytest.raises(DataError, match="no split 'validation'; it has test, train; choose one of them with `split`"):
        load_data(str(tmp_path), only="validation")


def test_the_empty_name_is_not_the_present_folder() -> None:
    with pytest.raises(DataError, match="the name of the data is empty"):
        load_data("")


def test_the_revision_of_a_file_is_ignored_aloud(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    load_data(str(write("a.jsonl", rows_of("a", "b", "a", "b"))), revision="v2")
    assert "their revision 'v2' is ignored" in caplog.text


def test_an_adapter_cannot_be_told_to_learn_something_else(write: Write) -> None:
    path = str(write("a.jsonl", rows_of("one", "two")))
    with pytest.raises(DataError, match="To learn names"):
        load_data(path, problem_type="regression")
    with pytest.raises(DataError) as caught:
        load_data(path, problem_type="regression", labels=["value"], only="test")
    assert "To learn" not in str(caught.value)


def test_the_second_text_alone_is_not_enough(write: Write) -> None:
    path = str(write("a.csv", rows_of("a", "b", "a", "b")))
    with pytest.raises(DataError, match="`text_pair` names column 'text', the second text of a pair, and no column"):
        load_data(path, text_pair="text")


def test_a_file_of_broken_rows_alone_is_named_with_what_is_wrong_with_them(tmp_path: Path) -> None:
    (tmp_path / "train-0.csv").write_text("text,label\n" + "".join(f"t{n},{'ab'[n % 2]}\n" for n in range(20)))
    (tmp_path / "train-1.csv").write_text("text,label\nx,y,z\nq,w,e\n")
    with pytest.raises(DataError, match=r"train-1\.csv, rows 1 .* and 2 .*: 3 fields, but the header has 2"):
        load_data(str(tmp_path))


def test_names_in_a_list_of_label_columns_may_have_commas() -> None:
    rows = [{"text": f"t{n}", "red": n % 2, "round": 0, "big": 0, "round, big": (n + 1) % 2} for n in range(20)]
    assert load_data(rows, label=["red", "round, big"]).labels == ["red", "round, big"]
    assert load_data(rows, label='red,"round, big"').labels == ["red", "round, big"]
    assert load_data(rows, label="red,round").labels == ["red", "round"]


def test_columns_may_be_named_by_their_number() -> None:
    table = pd.DataFrame([[f"t{n}", "ab"[n % 2]] for n in range(20)])
    assert load_data(table, text=0, label=1).labels == ["a", "b"]
    with pytest.raises(ConfigError, match=r"`label=1\.5` is not the name of a column"):
        load_data(table, text=0, label=1.5)
