"""The vectors of training rows, and the heads that are fitted to them, for the contrastive objective."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ptune.inference.engine import compute_logits
from ptune.model.classifier import PromptClassifier
from ptune.model.contrast import fit_head
from ptune.model.head import output_layer
from ptune.model.vectors import PooledVectors
from ptune.training.member import Member, copy_state
from ptune.training.steps import Rows


def row_vectors(models: Sequence[PromptClassifier], rows: Rows, pad_id: int) -> list[Tensor]:
    """Return the vectors [N, H] of rows under each prompt."""
    wanted = [(row, number) for row in range(len(rows.encoded)) for number in range(len(models))]
    return compute_logits([PooledVectors(model) for model in models], rows.encoded, wanted, pad_id).logits


def mean_length(model: PromptClassifier, rows: Rows, pad_id: int) -> float:
    """Return the mean length of the vectors of rows."""
    return float(row_vectors([model], rows, pad_id)[0].norm(dim=1).mean())


def fit_heads(members: Sequence[Member], rows: Rows, pad_id: int) -> None:
    """Fit the head of each member to the rows under its current prompt, and make both its averaged state."""
    for member, vectors in zip(members, row_vectors([each.model for each in members], rows, pad_id), strict=True):
        fit_head(output_layer(member.model.head), vectors, rows.labels, rows.weights)
        member.average = copy_state(member.model)
