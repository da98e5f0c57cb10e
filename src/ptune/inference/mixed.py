"""Answer requests for many adapters at once. Rows of adapters over the same backbone share forward passes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import torch

from ptune.data.encode import Encoded, warn_of_cuts
from ptune.data.texts import Text, unzip
from ptune.inference.answers import Prediction
from ptune.inference.classifier import TextClassifier
from ptune.inference.engine import check_finite, compute_logits
from ptune.model.classifier import PromptClassifier
from ptune.model.ensemble import PromptEnsemble, combine

Request = tuple[TextClassifier, Text]


def predict_mixed(requests: Iterable[Request], batch_size: int | None = None) -> list[Prediction]:
    """Return one prediction for each pair of a classifier and a text, in the order of the pairs.

    The answers are those of `TextClassifier.predict`. Rows share a forward pass where the prompts of their adapters
    enter the same backbone in the same way and have the same length.

    Args:
        requests: pairs of a classifier, and a text or (text, text_pair). One text may be asked of many classifiers.
        batch_size: rows per forward pass. Default: as many as suit the device.

    Raises:
        DataError: a text is no text, or its classifier was trained on the other of single texts and pairs.
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


def _predict(requests: Sequence[Request], numbers: Sequence[int], batch_size: int | None) -> list[Prediction]:
    """Return the predictions of requests whose classifiers share a backbone.

    Args:
        numbers: the requests' places among all, for messages.
    """
    rows_of: dict[TextClassifier, list[int]] = defaultdict(list)
    for row, (classifier, _) in enumerate(requests):
        rows_of[classifier].append(row)
    encoded = [_encode(*request, number) for request, number in zip(requests, numbers, strict=True)]
    members: list[PromptClassifier] = []
    wanted = []
    for classifier, rows in rows_of.items():
        warn_of_cuts(sum(encoded[row].cut for row in rows), len(rows), classifier.encoder.max_length)
        for member in _members(classifier):
            wanted += [(row, len(members)) for row in rows]
            members.append(member)
    pad_id = next(iter(rows_of)).pad_id  # padding is masked, so that of one tokenizer does for all
    logits = iter(compute_logits(members, encoded, wanted, pad_id, batch_size).logits)
    predictions: dict[int, Prediction] = {}
    for classifier, rows in rows_of.items():
        stacked = torch.stack([next(logits) for _ in _members(classifier)])
        combined = check_finite(combine(stacked, classifier.model.problem_type), classifier.model)
        answers = classifier.answers(combined)
        predictions.update(zip(rows, answers, strict=True))
    return [predictions[row] for row in range(len(requests))]


def _encode(classifier: TextClassifier, text: Text, number: int) -> Encoded:
    """Return a row as token ids."""
    (row,) = classifier.encode(*unzip([text], number))
    return row


def _members(classifier: TextClassifier) -> list[PromptClassifier]:
    model = classifier.model
    return [*model.members] if isinstance(model, PromptEnsemble) else [model]  # type: ignore[list-item]
