"""The vectors of texts that a classifier's head reads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ptune.inference.classifier import TextClassifier
from ptune.inference.engine import compute_logits
from ptune.model.ensemble import members_of
from ptune.model.vectors import PooledVectors


def unit_vectors(
    classifier: TextClassifier, texts: Sequence[str], pairs: Sequence[str] | None, batch_size: int | None = None
) -> NDArray[np.float32]:
    """Return the pooled vectors [N, H] of texts, scaled to length 1. Of an ensemble they are the first member's."""
    member = members_of(classifier.model)[0]
    encoded = classifier.encode(texts, pairs)
    wanted = [(row, 0) for row in range(len(encoded))]
    vectors = compute_logits([PooledVectors(member)], encoded, wanted, classifier.pad_id, batch_size).logits[0].numpy()
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
