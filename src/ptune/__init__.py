"""P-tuning for text classification: one frozen backbone, one small file for each task.

    >>> import ptune
    >>> data = ptune.load_data("reviews.csv")
    >>> model = ptune.PromptClassifier.from_backbone("roberta-large", labels=data.labels)
    >>> result = ptune.train(model, data, output="reviews-adapter")
    >>> ptune.load("reviews-adapter").predict("a fine film")

Heavy libraries are imported where they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ptune.adapter.files import read_adapter as read_adapter
    from ptune.compat.sklearn import PTuningClassifier as PTuningClassifier
    from ptune.data.sources import load_data as load_data
    from ptune.errors import PtuneError as PtuneError
    from ptune.model.classifier import PromptClassifier as PromptClassifier
    from ptune.model.config import PromptConfig as PromptConfig
    from ptune.model.loading import load_backbone as load_backbone
    from ptune.predict import TextClassifier as TextClassifier
    from ptune.predict import load as load
    from ptune.training.config import TrainConfig as TrainConfig
    from ptune.training.loop import train as train

__version__ = "0.1.0"

_HOME = {
    "PTuningClassifier": "ptune.compat.sklearn",
    "PromptClassifier": "ptune.model.classifier",
    "PromptConfig": "ptune.model.config",
    "PtuneError": "ptune.errors",
    "TextClassifier": "ptune.predict",
    "TrainConfig": "ptune.training.config",
    "load": "ptune.predict",
    "load_backbone": "ptune.model.loading",
    "load_data": "ptune.data.sources",
    "read_adapter": "ptune.adapter.files",
    "train": "ptune.training.loop",
}
__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ptune' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
