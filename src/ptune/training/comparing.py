"""Where the head of a pair starts: it knows what the cosine of the two texts says about the classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ptune.data.targets import SINGLE
from ptune.inference.engine import compute_logits
from ptune.model.classifier import PromptClassifier
from ptune.model.contrast import logistic_regression
from ptune.model.head import TextHead
from ptune.model.vectors import PooledVectors
from ptune.training.steps import Rows

# Most training rows that the cosines are measured on, and the inverse strength of the regression's regularisation.
MEASURED_ROWS, INVERSE_STRENGTH = 2000, 1.0


@torch.no_grad()
def start_comparing(models: Sequence[PromptClassifier], rows: Rows, pad_id: int) -> None:
    """Standardise the cosines that heads read, and start their weights from a logistic regression over them alone.

    Otherwise the prompts learn rows by heart before the head has learned what the cosine is good for. Without a class
    for each row, the cosines are only standardised.

    Args:
        models: with heads that read pairs. Those that have been trained before are left as they are. The prompts of the
            others have no effect yet.
        rows: of the training; some of them are measured.
        pad_id: token id of the padding.
    """
    models = [model for model in models if model.fresh_head and not model.head.cosine_shift]
    if not models:  # they go on with what they have learned
        return
    chosen = range(0, len(rows.encoded), -(-len(rows.encoded) // MEASURED_ROWS))
    vectors = compute_logits([PooledVectors(models[0])], rows.encoded, [(row, 0) for row in chosen], pad_id).logits[0]
    targets = rows.labels[list(chosen)]
    for model in models:
        head = model.head
        assert isinstance(head, TextHead)
        cosines = head.standardise(vectors[:, -1])
        if cosines is None or model.problem_type != SINGLE or len(targets.unique()) < 2:
            continue
        classes, weight, bias = logistic_regression(cosines[:, None], targets, INVERSE_STRENGTH)
        head.linear.weight[:, -1] = 0
        head.linear.weight[classes, -1] = weight[:, 0].to(head.linear.weight)
        head.linear.bias[classes] = bias.to(head.linear.bias)
