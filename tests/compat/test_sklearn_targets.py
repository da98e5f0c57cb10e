"""Several labels per row and numbers in scikit-learn, tables as X, threads and what is printed."""

from __future__ import annotations

import inspect
import logging

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from scipy.sparse import csr_matrix
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from sklearn.preprocessing import MultiLabelBinarizer
from sklearn.utils.estimator_checks import check_estimator

import ptune
from ptune import PTuningClassifier, PTuningRegressor
from ptune.compat.sklearn_base import threads
from ptune.compat.sklearn_rows import indexed
from ptune.errors import DataError
from tests.compat.test_sklearn import EXEMPT, LABELS, PAIRS, TEXTS, worded
from tests.conftest import star_rows, topic_rows

TOPICS = topic_rows(48, seed=2)
TOPIC_TEXTS = [row["text"] for row in TOPICS]
BINARIZER = MultiLabelBinarizer()
MATRIX = BINARIZER.fit_transform([row["labels"] for row in TOPICS])
STARS = star_rows(40, seed=2)
STAR_TEXTS, NUMBERS = [row["text"] for row in STARS], [row["stars"] for row in STARS]


class NumberedRegressor(PTuningRegressor):
    """A regressor that reads rows of numbers as rows of words."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.one_d_array = True, False
        tags.regressor_tags.poor_score = True
        return tags

    def _texts(self, X, y="no_validation"):
        return super()._texts(worded(X), y)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.DataConversionWarning")
def test_the_regressor_passes_the_checks_of_scikit_learn(new) -> None:
    results = check_estimator(
        new(NumberedRegressor, virtual_tokens=2, lr=0.01), expected_failed_checks=EXEMPT, on_fail=None, on_skip=None
    )
    failed = {result["check_name"]: result["exception"] for result in results if result["status"] == "failed"}
    assert failed == {}
    assert sum(result["status"] == "passed" for result in results) > 40


@pytest.mark.parametrize(
    "form",
    [list, np.array, lambda y: y.astype(bool), csr_matrix, lambda y: pd.DataFrame(y, columns=BINARIZER.classes_)],
    ids=["lists", "array", "booleans", "sparse", "DataFrame"],
)
def test_several_labels_come_as_a_matrix(form, new) -> None:
    classifier = new(epochs=3).fit(TOPIC_TEXTS, form(MATRIX))
    names = [*BINARIZER.classes_] if isinstance(form(MATRIX), pd.DataFrame) else [0, 1, 2]
    assert classifier.classes_.tolist() == names
    answers, probabilities = classifier.predict(TOPIC_TEXTS), classifier.predict_proba(TOPIC_TEXTS)
    assert answers.shape == probabilities.shape == (48, 3)
    assert set(np.unique(answers)) <= {0, 1}
    assert answers.any()
    thresholds = classifier._classifier.task.decision.thresholds
    assert np.array_equal(answers, probabilities > np.array(thresholds))
    assert 0 <= classifier.score(TOPIC_TEXTS, MATRIX) <= 1
    assert BINARIZER.inverse_transform(answers)


def test_the_matrix_gives_the_same_model_as_lists_of_labels(new, backbone, tmp_path) -> None:
    frame = pd.DataFrame(MATRIX, columns=BINARIZER.classes_)
    new(seed=1, output=tmp_path / "a").fit(TOPIC_TEXTS, frame)
    data = ptune.load_data(TOPICS, seed=1)
    model = ptune.PromptClassifier.for_data(backbone("bert"), data, ptune.PromptConfig(virtual_tokens=4), seed=1)
    ptune.train(model, data, ptune.TrainConfig(epochs=1, batch_size=8, seed=1), output=tmp_path / "b")
    name = "adapter_model.safetensors"
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert ptune.read_adapter(tmp_path / "a").record.labels == [*BINARIZER.classes_]


def test_settings_for_several_labels(new) -> None:
    assert new(threshold=0.999).fit(TOPIC_TEXTS, MATRIX).predict(TOPIC_TEXTS).sum() == 0
    plain = new(head_lr=0.05).fit(TOPIC_TEXTS, MATRIX).predict_proba(TOPIC_TEXTS)
    balanced = new(head_lr=0.05, class_weight="balanced").fit(TOPIC_TEXTS, MATRIX).predict_proba(TOPIC_TEXTS)
    assert not np.allclose(plain, balanced)
    weights = [0.0] * 8 + [1.0] * 40
    left_out = new().fit(TOPIC_TEXTS, MATRIX, weights).predict_proba(TOPIC_TEXTS)
    np.testing.assert_allclose(left_out, new().fit(TOPIC_TEXTS[8:], MATRIX[8:]).predict_proba(TOPIC_TEXTS), atol=1e-6)
    with pytest.raises(ValueError, match="`class_weight` is a dict, but y has several labels per row"):
        new(class_weight={0: 1.0}).fit(TOPIC_TEXTS, MATRIX)
    with pytest.raises(ValueError, match="`threshold` is for several labels per row"):
        new(threshold=0.5).fit(TEXTS, LABELS)
    assert np.isfinite(cross_val_score(new(), TOPIC_TEXTS, MATRIX, cv=2, scoring="f1_micro", error_score="raise")).all()


def test_numbers_are_learned_in_their_unit(new, tmp_path) -> None:
    rows = star_rows(160, seed=3)
    regressor = new(PTuningRegressor, epochs=8, lr=0.03, head_lr=0.03, virtual_tokens=8, pooling="mean")
    regressor.fit([row["text"] for row in rows], np.array([row["stars"] for row in rows]))
    assert regressor.score(STAR_TEXTS, NUMBERS) > 0.5
    assert regressor.metrics_["r2"] > 0.5
    answers = regressor.predict(STAR_TEXTS)
    assert answers.dtype == np.float64
    regressor.save(tmp_path)
    loaded = ptune.load(tmp_path, device="cpu")
    assert [answer["value"] for answer in loaded.predict(STAR_TEXTS)] == pytest.approx(answers.tolist(), rel=1e-4)
    again = clone(regressor)
    assert again.get_params() == regressor.get_params()
    scores = cross_val_score(new(PTuningRegressor), STAR_TEXTS, NUMBERS, cv=2, error_score="raise")
    assert np.isfinite(scores).all()


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([7.0] * 40, r"all 40 sample\(s\) of y are the same number"),
        ([*NUMBERS[:39], np.nan], "y contains NaN"),
        ([*NUMBERS[:39], 1e300], "y holds numbers beyond 1e"),
        (["good"] * 40, "could not convert"),
        ([[1, 2]] * 40, "1d array"),
        (NUMBERS[:5], "inconsistent numbers of samples"),
    ],
)
def test_y_that_holds_no_numbers_is_refused(y, message, new) -> None:
    with pytest.raises(ValueError, match=message):
        new(PTuningRegressor).fit(STAR_TEXTS, y)


def test_the_parameters_of_the_regressor_are_those_of_the_classifier_without_labels() -> None:
    classifier, regressor = (inspect.signature(kind).parameters for kind in (PTuningClassifier, PTuningRegressor))
    assert {*classifier} - {*regressor} == {
        "class_weight",
        "focal",
        "label_smoothing",
        "objective",
        "threshold",
        "verbalizer",
    }
    assert {name: parameter.default for name, parameter in regressor.items()} == {
        name: classifier[name].default for name in regressor
    }


def polars_frame(columns):
    return pytest.importorskip("polars").DataFrame(columns)


@pytest.mark.parametrize(
    "form",
    [
        pd.DataFrame,
        polars_frame,
        pa.table,
        datasets.Dataset.from_dict,
        dict,
        lambda columns: [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)],
    ],
    ids=["pandas", "polars", "Arrow", "Dataset", "dict of lists", "list of dicts"],
)
def test_texts_are_found_in_tables_that_hold_more(form, new, caplog) -> None:
    expected = new().fit(TEXTS, LABELS).predict_proba(TEXTS)
    X = form({"id": list(range(40)), "text": TEXTS, "label": LABELS})
    with caplog.at_level(logging.WARNING, "ptune"):
        classifier = new().fit(X, LABELS)
    assert "X: only text 'text' is read; not read: id, label" in caplog.text
    assert np.array_equal(classifier.predict_proba(X), expected)
    assert classifier.n_features_in_ == 1
    labelled = form({"text": TEXTS, "label": LABELS})  # not a pair
    assert np.array_equal(classifier.predict_proba(labelled), expected)
    pairs = form({"text_pair": [pair[1] for pair in PAIRS], "n": list(range(40)), "text": [pair[0] for pair in PAIRS]})
    expected = new().fit(PAIRS, LABELS).predict_proba(PAIRS)
    assert np.array_equal(new().fit(pairs, LABELS).predict_proba(pairs), expected)
    with pytest.raises(ValueError, match="no text column found among 'a', 'b', 'c'"):
        new().fit(form({"a": TEXTS, "b": TEXTS, "c": TEXTS}), LABELS)


@pytest.mark.parametrize("form", [pd.Series, np.array, lambda y: pytest.importorskip("polars").Series(y)])
def test_labels_come_in_the_forms_of_their_tables(form, new) -> None:
    assert new().fit(TEXTS, form(LABELS)).classes_.tolist() == ["negative", "positive"]
    column = datasets.Dataset.from_dict({"label": LABELS})["label"]
    assert new().fit(TEXTS, column).classes_.tolist() == ["negative", "positive"]


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("Int64", [2**53, 2**53 + 1]),
        ("int64[pyarrow]", [0, 1]),
        ("boolean", [False, True]),
        ("bool[pyarrow]", [False, True]),
        ("string", ["no", "yes"]),
    ],
)
def test_labels_of_pandas_own_types_stay_what_they_are(kind, values, new, tmp_path) -> None:
    y = pd.Series([values[label == "positive"] for label in LABELS], dtype=kind)
    classifier = new().fit(TEXTS, y)
    assert classifier.classes_.tolist() == values
    assert all(type(label) is type(values[0]) for label in classifier.predict(TEXTS[:3]).tolist())
    classifier.save(tmp_path / "saved")
    assert ptune.load(tmp_path / "saved").labels == [str(value) for value in values]


def test_verbose_prints_a_line_for_each_epoch(new, capsys) -> None:
    new().fit(TEXTS, LABELS)
    assert capsys.readouterr().out == ""
    new(verbose=1, epochs=2).fit(TEXTS, LABELS)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("[PTuningClassifier] epoch 1/2: train_loss 0.")
    assert "validation loss" in lines[1]
    assert "accuracy" in lines[1]
    new(PTuningRegressor, verbose=1).fit(STAR_TEXTS, NUMBERS)
    assert "pearson" in capsys.readouterr().out


def test_n_jobs_is_the_number_of_threads_while_it_computes(new, monkeypatch) -> None:
    before, seen = torch.get_num_threads(), []
    monkeypatch.setattr(torch, "set_num_threads", seen.append)
    classifier = new(n_jobs=3).fit(TEXTS, LABELS)
    assert seen == [3, before]
    classifier.predict(TEXTS[:2])
    assert seen == [3, before, 3, before]
    with threads(-1):
        assert seen[-1] >= 1
    with pytest.raises(ValueError, match="n_jobs"):
        new(n_jobs=0).fit(TEXTS, LABELS)
    seen.clear()
    new().fit(TEXTS, LABELS)
    assert seen == []


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_table_with_one_column_is_that_column(library) -> None:
    numbers = [2**60, 2**60 + 1, 2**60]
    if library == "pandas":
        table, words = pd.DataFrame({"y": pd.array(numbers, dtype="Int64")}), pd.DataFrame({"y": ["a", None]})
    else:
        polars = pytest.importorskip("polars")
        table, words = polars.DataFrame({"y": numbers}), polars.DataFrame({"y": ["a", None]})
    classes, indices = indexed(table)
    assert classes.tolist() == [2**60, 2**60 + 1]
    assert indices.tolist() == [0, 1, 0]
    with pytest.raises(DataError, match="y contains no label for 1 of 2 rows: 1"):
        indexed(words)
