"""Answer requests for many adapters at once. Rows of adapters over the same backbone share forward passes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from ptune.data.encode import Encoded, warn_of_cuts
from ptune.data.targets import ProblemType
from ptune.data.texts import Text, unzip
from ptune.inference.answers import Prediction
from ptune.inference.classifier import TextClassifier
from ptune.inference.engine import check_finite, compute_logits
from ptune.model.classifier import PromptClassifier
from ptune.model.ensemble import combine, members_of
from ptune.model.folded import Folded

Request = tuple[TextClassifier, Text]


class Combined(Protocol):
    """What `mixed_logits` needs of a classifier."""

    @property
    def members(self) -> Sequence[PromptClassifier | Folded]:
        """Prompts with their heads; several for an ensemble."""

    @property
    def problem_type(self) -> ProblemType:
        """How the members' logits are combined."""


def predict_mixed(requests: Iterable[Request], batch_size: int | None = None) -> list[Prediction]:
    """Return one prediction for each pair of a classifier and a text, in the order of the pairs.

    The answers are those of `TextClassifier.predict`. Rows share a forward pass where the prompts of their adapters
    enter the same backbone in the same way and have the same length.

    Args:
        requests: pairs of a classifier, and a text or (text, text_pair). One text may be asked of many classifiers.
        batch_size: rows per forward pass. Default: as many as suit the device.

    Raises:
        DataError: a text is not a string, or its classifier was trained on the other of single texts and pairs.
        ConfigError: the device lacks memory for `batch_size` rows, or for a single row.
    """
    listed = list(requests)
    by_backbone: dict[int, list[int]] = defaultdict(list)
    for number, (classifier, _) in enumerate(listed):
        by_backbone[id(classifier.model.backbone)].append(number)
    predictions: dict[int, Prediction] = {}
    for numbers in by_backbone.values():
        found = _predict([listed[number] for number in numbers], numbers, batch_size)
        predictions.update(zip(numbers, found, strict=True))
    return [predictions[number] for number in range(len(listed))]


def mixed_logits(
    classifiers: Sequence[Combined],
    encoded: Sequence[Encoded],
    wanted: Sequence[tuple[int, int]],
    pad_id: int,
    batch_size: int | None = None,
    most_tokens: int | None = None,
) -> tuple[list[Tensor], int | None]:
    """Compute the logits of rows, each with one classifier or with several. Members of ensembles are combined.

    Args:
        classifiers: on the same backbone.
        encoded, wanted, pad_id, batch_size, most_tokens: see `compute_logits`. Errors are its own, too.

    Returns:
        For each classifier its logits [N_i, C_i], in the order of its pairs in `wanted`, and the bound on tokens for
        the next call. Some may not be finite.
    """
    members: list[PromptClassifier | Folded] = []
    firsts = []
    for classifier in classifiers:
        firsts.append(len(members))
        members += classifier.members
    counts = [len(classifier.members) for classifier in classifiers]
    pairs = [(row, firsts[number] + member) for row, number in wanted for member in range(counts[number])]
    outcome = compute_logits(members, encoded, pairs, pad_id, batch_size, most_tokens)
    combined = [
        outcome.logits[first]
        if count == 1
        else combine(torch.stack(outcome.logits[first : first + count]), classifier.problem_type)
        for classifier, first, count in zip(classifiers, firsts, counts, strict=True)
    ]
    return combined, outcome.most_tokens


def _predict(requests: Sequence[Request], numbers: Sequence[int], batch_size: int | None) -> list[Prediction]:
    """Return the predictions of requests whose classifiers share a backbone.

    Args:
        numbers: the requests' places among all, for messages.
    """
    rows_of: dict[TextClassifier, list[int]] = defaultdict(list)
    for row, (classifier, _) in enumerate(requests):
        rows_of[classifier].append(row)
    encoded = [_encode(*request, number) for request, number in zip(requests, numbers, strict=True)]
    wanted = []
    for number, (classifier, rows) in enumerate(rows_of.items()):
        warn_of_cuts(sum(encoded[row].cut for row in rows), len(rows), classifier.encoder.max_length)
        wanted += [(row, number) for row in rows]
    pad_id = next(iter(rows_of)).pad_id  # padding is masked, so that of one tokenizer does for all
    combined = [_Whole(classifier) for classifier in rows_of]
    logits, _ = mixed_logits(combined, encoded, wanted, pad_id, batch_size)
    predictions: dict[int, Prediction] = {}
    for (classifier, rows), found in zip(rows_of.items(), logits, strict=True):
        answers = classifier.answers(check_finite(found, classifier.model.backbone))
        predictions.update(zip(rows, answers, strict=True))
    return [predictions[row] for row in range(len(requests))]


def _encode(classifier: TextClassifier, text: Text, number: int) -> Encoded:
    """Return a row as token ids."""
    (row,) = classifier.encode(*unzip([text], number))
    return row


class _Whole:
    """A `TextClassifier` as `mixed_logits` takes it."""

    def __init__(self, classifier: TextClassifier) -> None:
        self.members = members_of(classifier.model)
        self.problem_type = classifier.model.problem_type
