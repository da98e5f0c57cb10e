"""The classifier follows scikit-learn's conventions, and fits the same model as `ptune.train`."""

from __future__ import annotations

import copy
import inspect
import io
import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import issparse
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import check_estimator

import ptune
from ptune import PromptConfig, PTuningClassifier, TrainConfig
from ptune.compat import sklearn_base as module
from ptune.errors import BackboneError
from tests.conftest import WORDS, review_rows

ROWS = review_rows(40, seed=3)
TEXTS, LABELS = [row["text"] for row in ROWS], [row["label"] for row in ROWS]
PAIRS = [("the plot", text) for text in TEXTS]

# The checks of scikit-learn that do not apply to a classifier of texts, each with its reason.
_NUMBERS = "it is about arrays of numbers, which only stand for words here"
_ONE_TEXT = "a text is one feature, however many words it has"
EXEMPT = {
    "check_n_features_in": _ONE_TEXT,
    "check_n_features_in_after_fitting": _ONE_TEXT,
    "check_classifiers_train": _ONE_TEXT,
    "check_estimators_empty_data_messages": _ONE_TEXT,
    "check_complex_data": _NUMBERS,
    "check_estimators_nan_inf": _NUMBERS,
    "check_fit2d_predict1d": "a column of texts may be an array of one dimension",
    "check_sample_weight_equivalence_on_dense_data": "a repeated row changes the order of batches, and each class "
    "needs two rows, whatever their weights are",
}


def worded(X):
    """Rows of numbers as rows of words."""
    rows = X if issparse(X) else np.asarray(X)
    if rows.ndim != 2 or issparse(X):
        return X
    return [" ".join(WORDS[int(3 * float(number)) % len(WORDS)] for number in row) for row in rows]


class Numbered(PTuningClassifier):
    """A classifier that reads rows of numbers as rows of words, as the checks of scikit-learn do not use texts."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.one_d_array = True, False
        tags.classifier_tags.poor_score = True  # of a tiny model after one epoch
        return tags

    def _texts(self, X, y="no_validation"):
        return super()._texts(worded(X), y)


def loads() -> int:
    return module._load.cache_info().misses


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.DataConversionWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
def test_the_checks_of_scikit_learn_pass(new) -> None:
    before = loads()
    results = check_estimator(
        new(Numbered, virtual_tokens=2, lr=0.01), expected_failed_checks=EXEMPT, on_fail=None, on_skip=None
    )
    failed = {result["check_name"]: result["exception"] for result in results if result["status"] == "failed"}
    assert failed == {}
    assert {result["check_name"] for result in results if result["status"] == "xfail"} == set(EXEMPT)
    assert sum(result["status"] == "passed" for result in results) > 45
    assert loads() - before <= 1


def test_parameters_are_the_fields_of_the_settings_with_their_defaults() -> None:
    parameters = inspect.signature(PTuningClassifier).parameters
    settings = (module.FitSettings, PromptConfig, TrainConfig)
    fields = {name: field for model in settings for name, field in model.model_fields.items()}
    named_otherwise = {"class_weights", "checkpoint_steps"}
    assert set(parameters) - set(fields) == {"class_weight"}
    assert set(fields) - set(parameters) == named_otherwise
    for name in set(fields) - named_otherwise - {"backbone", "virtual_tokens"}:
        assert parameters[name].default == fields[name].default, name
    assert parameters["virtual_tokens"].default is None  # the method's own


def test_it_learns_what_one_word_says(new) -> None:
    rows, test = review_rows(160, seed=3), review_rows(40, seed=9)
    classifier = new(epochs=10, lr=0.05, virtual_tokens=8)
    classifier.fit([row["text"] for row in rows], [row["label"] for row in rows])
    assert classifier.score([row["text"] for row in test], [row["label"] for row in test]) > 0.7
    assert classifier.classes_.tolist() == ["negative", "positive"]
    assert classifier.metrics_["accuracy"] > 0.7


def test_empty_texts_are_predicted_as_explainers_ask_for_them(new) -> None:
    fitted = new().fit([*TEXTS[:39], ""], LABELS)
    probabilities = fitted.predict_proba(["", " ", TEXTS[0]])
    assert probabilities.shape == (3, 2)
    assert np.isfinite(probabilities).all()
    assert len(fitted.predict(np.array(["", TEXTS[0]]))) == 2


def test_fit_gives_the_same_model_as_train_on_the_same_rows(new, backbone, tmp_path) -> None:
    classifier = new(seed=3, output=tmp_path / "a").fit(TEXTS, LABELS)
    path = tmp_path / "rows.csv"
    pd.DataFrame(ROWS).to_csv(path, index=False)
    data = ptune.load_data(path, seed=3)
    model = ptune.PromptClassifier.from_backbone(
        backbone("bert"), PromptConfig(virtual_tokens=4), labels=data.labels, seed=3, rows=len(data.train)
    )
    ptune.train(model, data, TrainConfig(epochs=1, batch_size=8, seed=3), output=tmp_path / "b")
    name = "adapter_model.safetensors"
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    ours = ptune.load(tmp_path / "a", backbone("bert")).predict_proba(TEXTS).numpy()
    assert np.array_equal(classifier.predict_proba(TEXTS), ours)


@pytest.mark.parametrize(
    "form",
    [
        list,
        tuple,
        iter,
        np.array,
        lambda texts: np.array(texts, dtype=object),
        lambda texts: np.array(texts, dtype=object)[:, None],
        pd.Series,
        lambda texts: pd.Series(texts, index=range(100, 100 + len(texts)), dtype=object),
        lambda texts: pd.DataFrame({"text": texts}),
    ],
    ids=["list", "tuple", "iterator", "strings", "objects", "column", "Series", "object Series", "DataFrame"],
)
def test_texts_come_in_many_forms(form, new) -> None:
    expected = new().fit(TEXTS, LABELS).predict_proba(TEXTS)
    classifier = new().fit(form(TEXTS), LABELS)
    assert np.array_equal(classifier.predict_proba(form(TEXTS)), expected)
    assert expected.shape == (40, 2)
    assert classifier.n_features_in_ == 1


@pytest.mark.parametrize(
    "form",
    [
        list,
        lambda pairs: [list(pair) for pair in pairs],
        np.array,
        lambda pairs: pd.DataFrame(pairs, columns=["a", "b"]),
    ],
    ids=["tuples", "lists", "strings", "DataFrame"],
)
@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_pairs_come_in_many_forms_and_single_texts_are_then_refused(form, new) -> None:
    expected = new().fit(PAIRS, LABELS).predict_proba(PAIRS)
    classifier = new().fit(form(PAIRS), LABELS)
    assert np.array_equal(classifier.predict_proba(form(PAIRS)), expected)
    assert classifier.n_features_in_ == 2
    assert classifier.score(form(PAIRS), LABELS) == pytest.approx(np.mean(classifier.predict(PAIRS) == LABELS))
    with pytest.raises(ValueError, match="X has 1 features, but PTuningClassifier is expecting 2"):
        classifier.predict(TEXTS)


def test_a_data_frames_columns_are_remembered(new) -> None:
    classifier = new().fit(pd.DataFrame(PAIRS, columns=["question", "answer"]), LABELS)
    assert classifier.feature_names_in_.tolist() == ["question", "answer"]
    with pytest.raises(ValueError, match="feature names should match"):
        classifier.predict(pd.DataFrame(PAIRS, columns=["answer", "question"]))


@pytest.mark.parametrize(
    ("classes", "form"),
    [
        (["negative", "positive"], list),
        ([7, 12], np.array),
        ([-1.0, 1.0], np.array),
        ([False, True], list),
        ([False, True], pd.Series),
        (["b", "a"], lambda y: pd.Series(y, dtype="category")),
    ],
)
def test_predictions_have_the_type_of_the_labels(classes, form, new) -> None:
    y = form([classes[label == "positive"] for label in LABELS])
    classifier = new().fit(TEXTS, y)
    assert classifier.classes_.tolist() == sorted(classes)
    answers = classifier.predict(TEXTS)
    assert answers.dtype == classifier.classes_.dtype
    assert set(answers.tolist()) <= set(classes)
    assert 0 <= classifier.score(TEXTS, y) <= 1


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ("a good film", "X is a str; a list, array or Series of texts"),
        ({"text": "a film"}, "X is a dict"),
        (None, "X is a NoneType"),
        ([], "X has 0 sample"),
        ([*TEXTS[:39], None], "X contains no text for 1 of 40 rows: 39, counted from 0; leave them out"),
        ([*TEXTS[:39], 7], "text 40 is not text: 7"),
        (pd.Series([*TEXTS[:39], None]), "X contains no text for 1 of 40 rows: 39, counted from 0; leave them out"),
        ([*TEXTS[:39], ("a", "b")], "text 40: single texts and pairs do not mix"),
        ([("a", "b", "c")] * 40, r"X is of shape \(40, 3\)"),
        (TEXTS[:39], r"inconsistent numbers of samples: \[39, 40\]"),
    ],
)
def test_x_that_holds_no_texts_is_refused(X, message, new) -> None:
    with pytest.raises(ValueError, match=message):
        new().fit(X, LABELS)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (None, "requires y"),
        (["one"] * 40, "one class"),
        (["one", *["two"] * 39], "class 'one' of y has one row"),
        ([*LABELS[:39], None], "y"),
        ([*LABELS[:39], 3], "y holds labels of several types|y"),
        (np.linspace(0, 1, 40), "Unknown label type"),
        ([[0, 1]] * 40, "all 40 rows of y have the same labels"),
        ([[0, 2]] * 40, "y has several columns, which are labels, but holds something else than zeros"),
        (np.array([[1, 2, 3]] * 40), "y should be a 1d array"),
        ([["a", "b"]] * 40, r"y holds several labels in a row; .*MultiLabelBinarizer\(\).fit_transform\(y\)"),
        ([["a"], ["b", "a"]] * 20, "y holds several labels in a row"),
        ([{"a", "b"}] * 40, "y holds several labels in a row"),
        ([0.0, np.nan] * 20, "y contains NaN"),
        (np.array([*LABELS[:38], np.nan, None], dtype=object), "y contains no label for 2 of 40 rows: 38, 39"),
        (pd.Series([*LABELS[:39], pd.NA], dtype="string"), "y contains no label for 1 of 40 rows: 39"),
        ([*LABELS[:39], float("nan")], "y contains no label for 1 of 40 rows: 39"),
    ],
)
def test_y_that_holds_no_labels_is_refused(y, message, new) -> None:
    with pytest.raises(ValueError, match=message):
        new().fit(TEXTS, y)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0, "lr": -1}, r"epochs: .*\(given: 0\); lr: .*more than 0"),
        ({"method": "lora"}, "method: .*'p-tuning', 'deep' or 'prompt-tuning'"),
        ({"dtype": "float8"}, "dtype: "),
        ({"validation_fraction": 1.0}, "validation_fraction: "),
        ({"init": "text"}, "init_text"),
        ({"best": "pearson"}, "is not a metric of"),
        ({"max_length": 1000}, "`max_length=1000` does not fit"),
        ({"class_weight": "even"}, "class_weight"),
        ({"backbone": 3}, "backbone: "),
    ],
)
def test_parameters_are_checked_by_fit_with_their_names(settings, message, new) -> None:
    classifier = new().set_params(**settings)
    with pytest.raises(ValueError, match=message):
        classifier.fit(TEXTS, LABELS)


def test_a_backbone_that_is_not_there_is_named(new) -> None:
    with pytest.raises(BackboneError, match="no such folder"):
        new().set_params(backbone="./nowhere").fit(TEXTS, LABELS)


@pytest.mark.parametrize("call", ["predict", "predict_proba", "score", "save"])
def test_predicting_before_fit_raises(call, new) -> None:
    arguments = {"score": (TEXTS, LABELS), "save": ("folder",)}.get(call, (TEXTS,))
    with pytest.raises(NotFittedError):
        getattr(new(), call)(*arguments)


def test_a_fit_that_fails_leaves_nothing_half_fitted(new) -> None:
    classifier = new(max_length=1000)
    with pytest.raises(ValueError, match="max_length"):
        classifier.fit(TEXTS, LABELS)
    with pytest.raises(NotFittedError):
        classifier.predict(TEXTS)
    classifier.set_params(max_length=None).fit(TEXTS, LABELS).set_params(max_length=1000)
    with pytest.raises(ValueError, match="max_length"):
        classifier.fit(TEXTS, [number % 3 for number in range(40)])
    assert set(classifier.predict(TEXTS)) <= {"negative", "positive"}


def by_joblib(classifier):
    file = io.BytesIO()
    joblib.dump(classifier, file)
    file.seek(0)
    return joblib.load(file)


@pytest.mark.parametrize(
    "settings", [{}, {"method": "p-tuning"}, {"seeds": 2, "ensemble": True}], ids=["deep", "p-tuning", "ensemble"]
)
@pytest.mark.parametrize(
    "copied", [lambda c: pickle.loads(pickle.dumps(c)), copy.deepcopy, by_joblib], ids=["pickle", "deepcopy", "joblib"]
)
def test_a_copy_predicts_the_same_and_holds_no_backbone(copied, settings, new, backbone) -> None:
    classifier = new(**settings).fit(TEXTS, LABELS)
    before = loads()
    again = copied(classifier)
    assert vars(again)["_classifier"] is None  # until it is needed
    assert np.array_equal(again.predict_proba(TEXTS), classifier.predict_proba(TEXTS))
    assert again._classifier.model.backbone is classifier._classifier.model.backbone
    assert loads() == before
    assert again.get_params() == classifier.get_params()
    embeddings = backbone("bert").word_embeddings.weight.detach().numpy().tobytes()
    assert embeddings[:64] not in pickle.dumps(classifier)


def test_an_unfitted_classifier_is_pickled_and_cloned(new) -> None:
    classifier = new(template="film: {text}")
    assert pickle.loads(pickle.dumps(classifier)).get_params() == classifier.get_params()
    assert clone(classifier).get_params() == classifier.get_params()
    fitted = clone(classifier.fit(TEXTS, LABELS))
    assert not hasattr(fitted, "classes_")


def test_the_adapter_is_saved_or_kept_where_it_was_asked_for(new, backbone, tmp_path) -> None:
    classifier = new(output=str(tmp_path / "kept")).fit(TEXTS, LABELS)
    classifier.save(tmp_path / "saved")
    expected = classifier.predict_proba(TEXTS)
    for name in ("kept", "saved"):
        loaded = ptune.load(tmp_path / name, backbone("bert"))
        assert loaded.labels == ["negative", "positive"]
        assert np.array_equal(loaded.predict_proba(TEXTS).numpy(), expected)
    assert (tmp_path / "kept" / "metrics.jsonl").exists()


def test_the_temporary_folder_is_removed(new, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    copy.deepcopy(new().fit(TEXTS, LABELS)).predict(TEXTS)
    assert list(tmp_path.iterdir()) == []


def test_weights_change_the_predictions_and_rows_of_weight_zero_are_left_out(new) -> None:
    settings = {"epochs": 4, "head_lr": 0.05}
    positive = np.array(LABELS) == "positive"
    plain = new(**settings).fit(TEXTS, LABELS).predict_proba(TEXTS)[:, 1].mean()
    heavy = {"negative": 0.05, "positive": 1.0}
    by_class = new(**settings, class_weight=heavy).fit(TEXTS, LABELS).predict_proba(TEXTS)
    by_row = new(**settings).fit(TEXTS, LABELS, np.where(positive, 1.0, 0.05)).predict_proba(TEXTS)
    assert by_class[:, 1].mean() > plain
    np.testing.assert_allclose(by_class, by_row)
    weights = [0.0] * 10 + [2.0] * 30
    left_out = new().fit(TEXTS, LABELS, weights).predict_proba(TEXTS)
    np.testing.assert_allclose(left_out, new().fit(TEXTS[10:], LABELS[10:]).predict_proba(TEXTS), atol=1e-6)
    new(class_weight="balanced").fit(TEXTS, LABELS)
    for wrong in ([1.0] * 3, [-1.0] * 40, [0.0] * 40):
        with pytest.raises(ValueError, match=r"sample_weight|[Ww]eight"):
            new().fit(TEXTS, LABELS, wrong)


def test_it_works_in_pipelines_searches_and_ensembles_of_scikit_learn(new) -> None:
    before = loads()
    steps = make_pipeline(FunctionTransformer(lambda texts: [text.upper() for text in texts]), new())
    search = GridSearchCV(steps, {"ptuningclassifier__virtual_tokens": np.array([2, 4])}, cv=2, error_score="raise")
    search.fit(TEXTS, LABELS)
    assert search.best_params_["ptuningclassifier__virtual_tokens"] in (2, 4)
    assert search.predict(TEXTS[:3]).shape == (3,)
    scores = cross_val_score(new(), pd.Series(TEXTS), LABELS, cv=2, scoring="neg_log_loss", error_score="raise")
    assert np.isfinite(scores).all()
    calibrated = CalibratedClassifierCV(new(), cv=2).fit(np.array(TEXTS, dtype=object), LABELS)
    assert calibrated.predict_proba(TEXTS).shape == (40, 2)
    assert loads() - before <= 1
