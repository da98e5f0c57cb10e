"""Objects in memory give the same data as a file with the same rows."""

from __future__ import annotations

import json

import datasets
import numpy as np
import pandas as pd
import pyarrow
import pytest

import ptune
from ptune.data.columns import Columns
from ptune.data.objects import as_texts
from ptune.errors import DataError
from tests.conftest import review_rows, topic_rows, write_jsonl

ROWS = review_rows(24, seed=5)
TEXTS, LABELS = [row["text"] for row in ROWS], [row["label"] for row in ROWS]


def columns_of(rows):
    return {name: [row[name] for row in rows] for name in rows[0]}


def in_polars(rows):
    polars = pytest.importorskip("polars")
    return polars.DataFrame(rows)


FORMS = {
    "pandas": pd.DataFrame,
    "pandas with another index": lambda rows: pd.DataFrame(rows, index=range(100, 100 + len(rows))),
    "pandas with categories": lambda rows: pd.DataFrame(rows).astype({"label": "category"}),
    "pandas with Arrow's types": lambda rows: pd.DataFrame(rows).convert_dtypes(dtype_backend="pyarrow"),
    "polars": in_polars,
    "polars, lazy": lambda rows: in_polars(rows).lazy(),
    "arrow": pyarrow.Table.from_pylist,
    "dataset": datasets.Dataset.from_list,
    "dataset with a format": lambda rows: datasets.Dataset.from_list(rows).with_format("numpy"),
    "stream of a dataset": lambda rows: datasets.Dataset.from_list(rows).to_iterable_dataset(),
    "list of dicts": list,
    "dict of lists": columns_of,
    "dict of arrays": lambda rows: {name: np.array(cells) for name, cells in columns_of(rows).items()},
    "dict of Series": lambda rows: {name: pd.Series(cells) for name, cells in columns_of(rows).items()},
    "tuple of lists": lambda rows: tuple(columns_of(rows).values()),
    "tuple of tuples": lambda rows: tuple(zip(*(row.values() for row in rows), strict=True)),
    "tuple of arrays": lambda rows: tuple(map(np.array, columns_of(rows).values())),
    "tuple of Series": lambda rows: tuple(map(pd.Series, columns_of(rows).values())),
    "tuple of columns of a dataset": lambda rows: tuple(datasets.Dataset.from_list(rows)[n] for n in ("text", "label")),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_an_object_gives_the_same_data_as_a_file(form, tmp_path) -> None:
    expected = ptune.load_data(write_jsonl(tmp_path / "rows.jsonl", ROWS), seed=3)
    data = ptune.load_data(form(ROWS), seed=3)
    assert data.splits == expected.splits
    assert (data.labels, data.columns, data.problem_type) == (expected.labels, expected.columns, expected.problem_type)
    assert data.notes == expected.notes
    assert data.origin is None


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_splits_may_be_given_by_name(form) -> None:
    data = ptune.load_data({"train": form(ROWS), "dev": form(ROWS[:6]), "test": form(ROWS[6:10])})
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 24, "validation": 6, "test": 4}
    assert data.test.texts == TEXTS[6:10]


@pytest.mark.parametrize("stream", [False, True])
def test_a_dataset_dict_brings_its_splits_and_label_names(stream) -> None:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["pos", "neg"])})
    rows = [{"text": text, "label": number % 2} for number, text in enumerate(TEXTS)]
    whole = datasets.Dataset.from_list(rows, features=features)
    splits = datasets.DatasetDict(train=whole, validation=whole.select(range(6)), unsupervised=whole)
    if stream:
        splits = datasets.IterableDatasetDict({name: split.to_iterable_dataset() for name, split in splits.items()})
    data = ptune.load_data(splits)
    assert data.labels == ["pos", "neg"]  # in the order of the feature
    assert list(data.splits) == ["train", "validation"]
    assert ptune.load_data(splits, only="unsupervised").split("unsupervised").labels == [0, 1] * 12
    with pytest.raises(DataError, match=r"data '\w+' has no split 'test'; it has train, validation, unsupervised"):
        ptune.load_data(splits, only="test")


@pytest.mark.parametrize("form", [pd.DataFrame, in_polars, list, columns_of, datasets.Dataset.from_list])
def test_several_labels_numbers_and_pairs_are_found(form) -> None:
    topics = ptune.load_data(form(topic_rows(24)))
    assert topics.problem_type == "multi_label_classification"
    assert topics.labels == ["color", "number", "praise"]
    stars = ptune.load_data(form([{"text": text, "target": number / 2} for number, text in enumerate(TEXTS)]))
    assert stars.problem_type == "regression"
    pairs = [
        {"premise": text, "hypothesis": "a film", "label": label == "positive"}
        for text, label in zip(TEXTS, LABELS, strict=True)
    ]
    data = ptune.load_data(form(pairs))
    assert data.train.pairs is not None
    assert data.labels == ["false", "true"]


def test_arrays_of_labels_in_the_cells_of_a_frame_are_lists_of_labels() -> None:
    frame = pd.DataFrame({"text": TEXTS, "labels": [np.array(["a", "b"][: number % 3]) for number in range(24)]})
    assert ptune.load_data(frame).labels == ["a", "b"]


def test_a_tuple_may_hold_pairs() -> None:
    for pairs in (
        [("a plot", text) for text in TEXTS],
        [["a plot", text] for text in TEXTS],
        np.array([["a plot", text] for text in TEXTS]),
    ):
        data = ptune.load_data((pairs, LABELS))
        assert (data.columns.text, data.columns.text_pair) == ("text", "text_pair")
        assert set(data.train.pairs or []) < set(TEXTS)


def test_columns_may_be_named_and_numbered() -> None:
    data = ptune.load_data(pd.DataFrame([TEXTS, LABELS]).T, text="0", label="1")
    assert data.labels == ["negative", "positive"]
    data = ptune.load_data({"body_en": TEXTS, "y": LABELS, "id": [*range(24)]}, text="body_en", label="y")
    assert data.labels == ["negative", "positive"]


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA, pd.NaT])
def test_a_missing_text_or_label_is_named_with_its_row(missing) -> None:
    frame = pd.DataFrame({"text": pd.Series([*TEXTS[:2], missing, *TEXTS[3:]], dtype=object), "label": LABELS})
    with pytest.raises(DataError, match="DataFrame, row 3: column 'text' has no text"):
        ptune.load_data(frame)
    frame = pd.DataFrame({"text": TEXTS, "label": pd.Series([*LABELS[:2], missing, *LABELS[3:]], dtype=object)})
    with pytest.raises(DataError, match="dict, split train, row 3: column 'label' has no label"):
        ptune.load_data({"train": frame})


def test_whole_numbers_with_gaps_keep_their_names() -> None:
    labels = pd.Series([1, 2] * 12, dtype="Int64")
    assert ptune.load_data((TEXTS, labels)).labels == ["1", "2"]
    assert ptune.load_data((TEXTS, labels.astype(float))).labels == ["1", "2"]


class Unknown:
    """Something without rows."""


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            Unknown(),
            "data of type 'Unknown' cannot be read; give a file, a folder, a Hub id, a pandas or Polars DataFrame",
        ),
        (None, "data of type 'NoneType' cannot be read"),
        (b"rows.csv", "data of type 'bytes' cannot be read"),
        ((row for row in ROWS), r"data 'generator' can be read only once; give a list: list\(rows\)"),
        (TEXTS, r"data 'list' has no labels; give a tuple \(texts, labels\)"),
        (pd.Series(TEXTS), "data 'Series' has no labels"),
        (np.array(TEXTS), "data 'ndarray' has no labels"),
        (
            list(zip(TEXTS, LABELS, strict=True)),
            r"data 'list' holds rows without column names; give a tuple \(texts, labels\): tuple\(zip\(\*rows\)\)",
        ),
        ((TEXTS, LABELS[:5]), "data 'tuple' has 24 texts and 5 labels; give one label for each text"),
        ((TEXTS, LABELS, LABELS), r"data 'tuple' is \(list, list, list\); a tuple \(texts, labels\)"),
        (("a film", "good"), r"data 'tuple' is \(str, str\)"),
        (([("a", "b"), ("a", "b", "c")], [0, 1]), r"tuple, row 2: a pair of two texts is expected"),
        ({"text": TEXTS, "label": LABELS[:5]}, r"dict: the columns are not of the same length \(text 24, label 5\)"),
        ({"text": "a film", "label": "good"}, "data 'dict' is not a dict of columns"),
        ({}, "data 'dict' is not a dict of columns"),
        ([], "list: there are no rows"),
        (pd.DataFrame({"text": [], "label": []}), "DataFrame: there are no rows"),
        ([*ROWS[:2], "a film"], "list, row 3: a str, where a dict is expected"),
        (pd.DataFrame([ROWS[0].values()], columns=["text", "text"]), "DataFrame: column 'text' occurs twice"),
        (pd.DataFrame({"a": TEXTS, "b": LABELS}), "DataFrame: no label column found among 'a', 'b'"),
        ({"validation": pd.DataFrame(ROWS)}, "data 'dict' has no split 'train'; it has validation"),
        ({"train": ROWS, "dev": ROWS, "val": ROWS}, "data 'dict' has several splits for validation: train, dev, val"),
        ({"train": ROWS, "test": [{"text": "", "label": "a"}]}, "dict, split test, row 1: column 'text' is empty"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else type(value).__name__,
)
def test_what_cannot_be_read_is_named_in_one_line_without_asking_the_hub(source, message, monkeypatch) -> None:
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: pytest.fail("the Hub was asked"))
    with pytest.raises(DataError, match=message) as caught:
        ptune.load_data(source)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_the_advice_for_rows_without_names_works_as_it_is_written() -> None:
    rows = list(zip(TEXTS, LABELS, strict=True))
    assert ptune.load_data(tuple(zip(*rows, strict=True))).labels == ["negative", "positive"]


@pytest.fixture(scope="module")
def trained(backbone, tmp_path_factory):
    """A classifier trained from a frame, whose text has an unusual column."""
    frame = pd.DataFrame({"body": TEXTS, "place": ["here"] * 24, "label": LABELS})
    data = ptune.load_data(frame, text="body")
    model = ptune.PromptClassifier.for_data(backbone("bert"), data, ptune.PromptConfig(virtual_tokens=3))
    return ptune.train(model, data, ptune.TrainConfig(epochs=1), output=tmp_path_factory.mktemp("a")).classifier


TEXT_FORMS = {
    "tuple in a list": list,
    "generator": iter,
    "Series": pd.Series,
    "array": np.array,
    "polars Series": lambda texts: pytest.importorskip("polars").Series(texts),
    "column of a dataset": lambda texts: datasets.Dataset.from_dict({"a": texts})["a"],
    "arrow": pyarrow.array,
    "set of one": lambda texts: texts,
    "pandas": lambda texts: pd.DataFrame({"place": "there", "body": texts}),
    "polars": lambda texts: in_polars([{"place": "there", "body": text} for text in texts]),
    "dataset": lambda texts: datasets.Dataset.from_dict({"place": texts[::-1], "body": texts}),
    "list of dicts": lambda texts: [{"body": text, "label": "?"} for text in texts],
    "dict of lists": lambda texts: {"body": texts},
    "one column of another name": lambda texts: pd.DataFrame({"text": texts}),
}


@pytest.mark.parametrize("form", TEXT_FORMS.values(), ids=TEXT_FORMS)
def test_texts_to_predict_come_in_the_same_forms(form, trained) -> None:
    expected = trained.predict(TEXTS)
    assert trained.predict(form(TEXTS)) == expected
    assert list(trained.stream(form(TEXTS))) == expected
    assert trained.predict_proba(form(TEXTS)).equal(trained.predict_proba(TEXTS))


def test_a_single_row_and_no_rows_are_predicted(trained) -> None:
    (expected,) = trained.predict(TEXTS[0])
    assert trained.predict({"body": TEXTS[0]}) == [expected]
    assert trained.predict([{"body": TEXTS[0]}]) == [expected]
    assert trained.predict([]) == trained.predict(pd.DataFrame({"body": []})) == []


def test_pairs_are_read_from_tables_lists_and_arrays() -> None:
    pairs = [("a plot", text) for text in TEXTS[:3]]

    def choose(names, where):
        return Columns(*names)

    for form in (
        pairs,
        [list(pair) for pair in pairs],
        np.array(pairs),
        pd.DataFrame(pairs, columns=["text", "text_pair"]),
    ):
        assert list(as_texts(form, choose)) == pairs


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (Unknown(), "texts of type 'Unknown' cannot be read; give a text, a pair"),
        (None, "texts of type 'NoneType' cannot be read"),
        (7, "texts of type 'int' cannot be read"),
        (b"a film", "texts of type 'bytes' cannot be read"),
        ({"a": 1}, "texts of type 'dict' cannot be read"),
        (("a", "b", "c"), "text 1: a pair has two texts, but this tuple has 3; give several texts as a list"),
        (np.array([["a", "b", "c"]]), r"texts of shape \(1, 3\) are not texts or pairs"),
        (pd.DataFrame({"a": ["x"], "b": ["y"]}), "DataFrame: no text column found among 'a', 'b'"),
        (pd.Series(["a film", None]), "text 2 is not text: None"),
        (
            datasets.DatasetDict(test=datasets.Dataset.from_list(ROWS)),
            r"have splits \(test\); give one, such as data\['test'\]",
        ),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else type(value).__name__,
)
def test_what_holds_no_texts_is_named(texts, message, trained) -> None:
    with pytest.raises(DataError, match=message):
        trained.predict(texts)
    with pytest.raises(DataError, match=message):
        trained.predict_proba(texts)


def test_a_model_is_made_trained_and_measured_from_a_frame(backbone, tmp_path) -> None:
    frame, prompt, config = (
        pd.DataFrame(ROWS),
        ptune.PromptConfig(virtual_tokens=3),
        ptune.TrainConfig(epochs=1, seed=2),
    )
    result = ptune.train(
        ptune.PromptClassifier.for_data(backbone("bert"), frame, prompt, seed=2),
        frame,
        config,
        output=tmp_path / "frame",
    )
    path = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    data = ptune.load_data(path, seed=2)
    from_file = ptune.train(
        ptune.PromptClassifier.for_data(backbone("bert"), data, prompt, seed=2), data, config, output=tmp_path / "file"
    )
    assert result.metrics == from_file.metrics
    name = "adapter_model.safetensors"
    assert (tmp_path / "frame" / name).read_bytes() == (tmp_path / "file" / name).read_bytes()
    assert json.loads((tmp_path / "frame" / "ptune.json").read_text())["data"] is None

    whole = ptune.evaluate(result.classifier, frame)
    assert whole.metrics["count"] == 24
    again = ptune.load_data(path, labels=result.classifier.labels, only="validation")
    assert whole.metrics == ptune.evaluate(result.classifier, again).metrics
    assert ptune.evaluate(result.classifier, path).metrics == whole.metrics
    splits = {"train": frame, "test": frame[:8]}
    assert ptune.evaluate(result.classifier, splits, "test").metrics["count"] == 8
    with pytest.raises(DataError, match="label 'fair' is not among the known labels"):
        ptune.evaluate(result.classifier, [{"text": "a film", "label": "fair"}])


def test_a_split_of_data_without_splits_is_none_of_the_known_names() -> None:
    rows = {"text": ["a", "b"], "label": ["x", "y"]}
    with pytest.raises(DataError, match=r"`split` 'tset' is not the name of one \(did you mean 'test'\?\)"):
        ptune.load_data(rows, only="tset")
    for known in ("train", "test", "dev", "validation_mismatched"):
        assert len(ptune.load_data(rows, only=known).split(known)) == 2


def test_a_mistyped_split_is_named() -> None:
    frame = pd.DataFrame(ROWS)
    with pytest.raises(DataError, match=r"'tset' is not the name of one .did you mean 'test'"):
        ptune.load_data({"train": frame, "tset": frame})


def test_labels_in_a_set_are_in_the_same_order_everywhere() -> None:
    rows = [{"text": f"text {number}", "labels": {"b", "a", "c"} if number % 2 else {"c"}} for number in range(20)]
    data = ptune.load_data(rows)
    assert data.problem_type == "multi_label_classification"
    assert data.labels == ["a", "b", "c"]
