"""What the estimators for scikit-learn have in common: parameters, training, files, and one backbone for all of them.

A fitted estimator consists of its parameters and the files of its adapter. All
estimators of a process share one loaded backbone, and pickles do not contain it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import torch
from joblib import effective_n_jobs
from pydantic import Field
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted, validate_data

from ptune.adapter.layout import ADAPTER_FILES
from ptune.adapter.target import check_target
from ptune.atomic import write_files
from ptune.compat.sklearn_rows import text_columns, text_table
from ptune.data.metric_table import shown
from ptune.data.splits import VALIDATION_SHARE, TextData, hold_back
from ptune.data.texts import Text
from ptune.inference.classifier import TextClassifier, load
from ptune.model import shared_backbone as sharing
from ptune.model.backbone import Backbone
from ptune.model.classifier import PromptClassifier
from ptune.model.config import DType, PromptConfig
from ptune.model.locate import locate
from ptune.places import as_place
from ptune.settings_model import SettingsModel
from ptune.training.config import TrainConfig
from ptune.training.settle import settle
from ptune.training.train import train

Settings = TypeVar("Settings", bound=SettingsModel)


class FitSettings(SettingsModel):
    """The settings of an estimator that neither PromptConfig nor TrainConfig has."""

    backbone: str | Path
    revision: str | None = None
    dtype: DType = "auto"
    device: str = "auto"
    max_length: int | None = Field(None, ge=3)
    validation_fraction: float = Field(VALIDATION_SHARE, gt=0, lt=1)
    output: str | Path | None = None
    n_jobs: int | None = None
    verbose: int = Field(0, ge=0)


class TextEstimator(BaseEstimator):  # type: ignore[misc]
    """An estimator over texts or pairs of texts. Its subclasses know what y is."""

    def _store(self, parameters: dict[str, Any]) -> None:
        """Set each parameter as an attribute of the same name, unchanged, as scikit-learn wants it."""
        for name in self._get_param_names():
            setattr(self, name, parameters[name])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False  # scikit-learn means arrays of numbers
        return tags

    def _fit(self, data: TextData, training: TrainConfig) -> None:
        """Train on data without a validation split, and keep the adapter's files.

        Raises:
            ValueError: a parameter cannot be used, or there are too few rows.
            BackboneError: the backbone is not found or not supported.
        """
        settings, prompt = self._settings(FitSettings), self._settings(PromptConfig)
        data = hold_back(data, training.seed, settings.validation_fraction)
        with (
            threads(settings.n_jobs),
            TemporaryDirectory(prefix="ptune-") if settings.output is None else nullcontext(settings.output) as folder,
        ):
            model = PromptClassifier.for_data(self._backbone(settings), data, prompt, seed=training.seed)
            training = settle(training, model, data)

            def report(line: dict[str, Any]) -> None:
                metrics = ", ".join(f"{name} {line[name]:.4f}" for name in ("loss", *shown(data.problem_type)))
                best = "  best" if line["best"] else ""
                print(
                    f"[{type(self).__name__}] epoch {line['epoch']}/{training.epochs}: train_loss "
                    f"{line['train_loss']:.4f}, validation {metrics}, {line['seconds']:.0f} s{best}",
                    flush=True,
                )

            result = train(
                model,
                data,
                training,
                output=folder,
                max_length=settings.max_length,
                on_epoch=report if settings.verbose else None,
            )
            files = {name: Path(result.adapter, name) for name in ADAPTER_FILES}
            self._adapter = {name: path.read_bytes() for name, path in files.items() if path.exists()}
        self._classifier: TextClassifier | None = result.classifier
        self.metrics_ = result.metrics

    def save(self, folder: str | Path) -> None:
        """Write the adapter to a folder, from which `ptune.load` and `ptune predict` read it.

        Raises
        ------
        NotFittedError: `fit` was not called.
        ConfigError: the folder holds a model, or is inside the backbone's.
        OutputError: the folder cannot be written.
        """
        check_is_fitted(self)
        stale = [name for name in ADAPTER_FILES if name not in self._adapter]  # they would belong to another adapter
        target = as_place(folder)
        check_target(target, backbone=str(self.backbone))
        write_files(target, self._adapter, remove=stale)

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
        return settings_class(**{name: value for name, value in given.items() if value is not None})

    def _backbone(self, settings: FitSettings) -> Backbone:
        return shared_backbone(str(settings.backbone), settings.revision, settings.dtype, settings.device)

    def _texts(self, X: Any, y: Any = "no_validation") -> list[Text]:
        """Return the rows of X as texts or pairs.

        With y, as in `fit`, record how many columns X has and what they are called. Without it, check that X has the
        recorded columns.
        """
        texts = text_columns(X)
        table = text_table(texts)
        # scikit-learn reads the number and the names of the columns.
        columns = texts if hasattr(texts, "columns") else table
        validate_data(self, columns, y, skip_check_array=True, reset=not isinstance(y, str))
        return [row[0] if len(row) == 1 else tuple(row) for row in table.tolist()]


@contextmanager
def threads(n_jobs: int | None) -> Iterator[None]:
    """Compute on so many threads, counted as in scikit-learn: -1 is one for each CPU. None changes nothing."""
    if n_jobs is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(effective_n_jobs(n_jobs))
    try:
        yield
    finally:
        torch.set_num_threads(before)


_loading = threading.Lock()
_load = lru_cache(maxsize=2)(sharing.shared_backbone)  # keeps the two backbones that were used last


def shared_backbone(name: str, revision: str | None, dtype: str, device: str) -> Backbone:
    """Return a backbone that is loaded only once per process. Arguments are those of `load_backbone`."""
    location = locate(name, revision)
    with _loading:
        return _load(location.reference, location.revision, dtype, device)
