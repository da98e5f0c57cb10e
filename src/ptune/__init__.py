"""P-tuning for text classification: one frozen backbone, one small file for each task.

    >>> import ptune
    >>> data = ptune.load_data("reviews.csv")
    >>> model = ptune.PromptClassifier.for_data("roberta-large", data)
    >>> result = ptune.train(model, data, output="reviews-adapter")
    >>> ptune.load("reviews-adapter").predict("a fine film")

Heavy libraries are imported where they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ptune.version import __version__

if TYPE_CHECKING:
    from ptune.adapter.folder import read_adapter as read_adapter
    from ptune.analysis.check import DataCheck as DataCheck
    from ptune.analysis.check import check_data as check_data
    from ptune.analysis.compare import Comparison as Comparison
    from ptune.analysis.compare import compare as compare
    from ptune.analysis.explain import Explanation as Explanation
    from ptune.analysis.explain import explain as explain
    from ptune.analysis.suggest import Suggestion as Suggestion
    from ptune.analysis.suggest import suggest as suggest
    from ptune.compat.sklearn import PTuningClassifier as PTuningClassifier
    from ptune.compat.sklearn import PTuningRegressor as PTuningRegressor
    from ptune.data.load import load_data as load_data
    from ptune.data.splits import TextData as TextData
    from ptune.errors import PtuneError as PtuneError
    from ptune.evaluation.evaluate import Evaluation as Evaluation
    from ptune.evaluation.evaluate import evaluate as evaluate
    from ptune.export.write import Export as Export
    from ptune.export.write import export_model as export_model
    from ptune.inference.classifier import TextClassifier as TextClassifier
    from ptune.inference.classifier import load as load
    from ptune.model.classifier import PromptClassifier as PromptClassifier
    from ptune.model.config import PromptConfig as PromptConfig
    from ptune.model.loading import load_backbone as load_backbone
    from ptune.report.contents import Report as Report
    from ptune.report.gather import gather_report as gather_report
    from ptune.report.writing import write_report as write_report
    from ptune.training.config import TrainConfig as TrainConfig
    from ptune.training.train import TrainResult as TrainResult
    from ptune.training.train import train as train

_HOME = {
    "Comparison": "ptune.analysis.compare",
    "DataCheck": "ptune.analysis.check",
    "Evaluation": "ptune.evaluation.evaluate",
    "Explanation": "ptune.analysis.explain",
    "Export": "ptune.export.write",
    "PTuningClassifier": "ptune.compat.sklearn",
    "PTuningRegressor": "ptune.compat.sklearn",
    "PromptClassifier": "ptune.model.classifier",
    "PromptConfig": "ptune.model.config",
    "PtuneError": "ptune.errors",
    "Report": "ptune.report.contents",
    "Suggestion": "ptune.analysis.suggest",
    "TextClassifier": "ptune.inference.classifier",
    "TextData": "ptune.data.splits",
    "TrainConfig": "ptune.training.config",
    "TrainResult": "ptune.training.train",
    "check_data": "ptune.analysis.check",
    "compare": "ptune.analysis.compare",
    "evaluate": "ptune.evaluation.evaluate",
    "explain": "ptune.analysis.explain",
    "export_model": "ptune.export.write",
    "gather_report": "ptune.report.gather",
    "load": "ptune.inference.classifier",
    "load_backbone": "ptune.model.loading",
    "load_data": "ptune.data.load",
    "read_adapter": "ptune.adapter.folder",
    "suggest": "ptune.analysis.suggest",
    "train": "ptune.training.train",
    "write_report": "ptune.report.writing",
}
__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ptune' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
