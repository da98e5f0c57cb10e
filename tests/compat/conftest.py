"""What the tests of the scikit-learn estimators share."""

from __future__ import annotations

import pytest

from ptune.compat.sklearn import PTuningClassifier


@pytest.fixture
def new(backbone_folder):
    """Make an estimator over a tiny backbone."""

    def make(kind=PTuningClassifier, **settings):
        defaults = {"virtual_tokens": 4, "epochs": 1, "batch_size": 8, "device": "cpu"}
        return kind(str(backbone_folder("bert")), **{**defaults, **settings})

    return make
