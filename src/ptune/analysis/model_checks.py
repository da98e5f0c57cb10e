"""Checks of data that need a model: texts that are cut, likely label errors, and texts unlike all others.

Label errors are found by confident learning (Northcutt et al., arXiv 1911.00068), as cleanlab implements it. It needs
probabilities that do not come from a row's own label. Rows that are not for training get the adapter's. A training row
gets those of its nearest neighbours among the other training rows, by the adapter's vectors (leave-one-out): after a
few epochs an adapter knows the wrong labels of its training rows by heart (benchmarks/planted.py).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptune.analysis.vectors import unit_vectors
from ptune.data.check.findings import Finding, count_rows, many
from ptune.data.check.rows import Row, Rows
from ptune.data.columns import check_pairs
from ptune.data.targets import MULTI, REGRESSION, SINGLE
from ptune.errors import ConfigError, DataError
from ptune.inference.classifier import TextClassifier
from ptune.model.backbone import Backbone
from ptune.model.classifier import PromptClassifier

FEWEST = 20  # rows of a split below which nothing is said about label errors or outliers
NEIGHBOURS = 10
MOST_NEIGHBOURS = 20_000  # rows among which neighbours are looked for
FAR = 3.5  # robust standard deviations from which a text is far from all others,
WRONG = 6.0  # and an error of a number is too large
Floats = NDArray[np.float64]


def check_lengths(rows: Rows, model: TextClassifier | Backbone | str | None) -> list[Finding]:
    """Find texts that are longer than what a backbone holds next to a prompt, or than what a classifier reads.

    Raises:
        BackboneError: the backbone cannot be loaded.
        DataError: the rows are pairs and the classifier was trained on single texts, or the other way round.
    """
    assert model is not None
    if isinstance(model, TextClassifier):
        classifier = model
    else:
        classifier = TextClassifier.around(PromptClassifier.from_backbone(model, labels=["a", "b"]))
    encoded = classifier.encode(*_texts(rows.usable)) if rows.usable else []
    found = [row for row, ids in zip(rows.usable, encoded, strict=True) if ids.cut]
    if not found:
        return []
    share, room = len(found) / len(rows.usable), classifier.encoder.max_length
    return [
        Finding(
            "lengths",
            f"{count_rows(found)} ({share:.1%}) {many(len(found), 'is', 'are')} longer than the {room} tokens that are "
            "read; the end is cut off",
            "shorten them, or choose a backbone that reads more",
            found,
            details={"max_length": room},
        )
    ]


def check_with_classifier(rows: Rows, classifier: TextClassifier, ignore: Collection[str] = ()) -> list[Finding]:
    """Find likely label errors and texts unlike all others.

    Raises:
        ConfigError: the classifier has another problem type than the data, or no label of the data.
        DataError: the rows are pairs and the classifier was trained on single texts, or the other way round.
        DataError: the extra `check` is not installed.
    """
    check_pairs(rows.columns.text_pair is not None, classifier.task.columns, f"data '{rows.source}', {rows.columns}: ")
    check_same_task(rows, classifier)
    if not rows.usable:
        return []
    vectors = unit_vectors(classifier, *_texts(rows.usable))
    found: list[Finding] = []
    if "label_errors" not in ignore:
        found += _label_errors(rows, classifier, vectors)
    if "outliers" not in ignore:
        found += _outliers(rows, vectors)
    return found


def check_same_task(rows: Rows, classifier: TextClassifier) -> None:
    """Check that data are for the task of a classifier.

    Raises:
        ConfigError: they have another problem type, or other labels.
    """
    if rows.problem_type != classifier.model.problem_type:
        raise ConfigError(
            f"data '{rows.source}' are for {rows.problem_type}, but the adapter is for "
            f"{classifier.model.problem_type}; check other data or use another adapter"
        )
    names = {label for row in rows.labelled for label in row.labels}
    if names and not names & set(classifier.labels):
        raise ConfigError(
            f"data '{rows.source}' have other labels ({', '.join(sorted(names)[:5])}) than the adapter "
            f"({', '.join(classifier.labels[:5])}); check other data or use another adapter"
        )


def _label_errors(rows: Rows, classifier: TextClassifier, vectors: NDArray[np.float32]) -> Iterator[Finding]:
    known = set(classifier.labels)
    places = {id(row): place for place, row in enumerate(rows.usable)}
    found: list[Row] = []
    suggestions: list[dict[str, Any]] = []
    for split in rows.splits:
        members = [row for row in rows.labelled if row.split == split and known.issuperset(row.labels)]
        if len(members) < FEWEST:
            continue
        near = neighbours(vectors[[places[id(row)] for row in members]]) if split == "train" else None
        for index, suggestion in _JUDGES[rows.problem_type](members, classifier, near):
            found.append(members[index])
            suggestions.append({**members[index].place(), "given": members[index].label, **suggestion})
    if found:
        what = "number" if rows.problem_type == REGRESSION else "label"
        yield Finding(
            "label_errors",
            f"{count_rows(found)} {many(len(found), 'has', 'have')} a {what} that is probably wrong",
            f"look at them, the least credible first (--json lists them in this order), and correct the {what}",
            sorted(found, key=lambda row: places[id(row)]),
            details={"suggestions": suggestions},
        )


Judged = list[
    tuple[int, dict[str, Any]]
]  # rows that are probably wrong, the least credible first, and what fits better


def _judge_single(rows: Sequence[Row], classifier: TextClassifier, near: Neighbours | None) -> Judged:
    names = classifier.labels
    given = np.array([names.index(str(row.label)) for row in rows])
    classes = np.unique(given)
    if len(classes) < 2:
        return []
    hot = (given[:, None] == np.arange(len(names))).astype(float)
    scores = (near.average(hot) if near else _probabilities(classifier, rows))[:, classes] + 1e-3
    scores /= scores.sum(axis=1, keepdims=True)
    labels = np.searchsorted(classes, given)
    found = _cleanlab("filter").find_label_issues(labels, scores, return_indices_ranked_by="self_confidence", n_jobs=1)
    best = scores.argmax(axis=1)
    return [
        (row, {"suggested": names[classes[best[row]]], "probability": round(float(scores[row].max()), 4)})
        for row in found.tolist()
        if best[row] != labels[row]
    ]


def _judge_multi(rows: Sequence[Row], classifier: TextClassifier, near: Neighbours | None) -> Judged:
    names = classifier.labels
    given = np.array([[name in row.labels for name in names] for row in rows])
    scores = near.average(given.astype(float)) if near else _probabilities(classifier, rows)
    found = _cleanlab("multilabel_classification.filter").find_label_issues(
        [np.flatnonzero(row).tolist() for row in given],
        scores.clip(1e-3, 1 - 1e-3),
        return_indices_ranked_by="self_confidence",
        n_jobs=1,
    )
    fitting = [[name for name, score in zip(names, row, strict=True) if score > 0.5] for row in scores]
    return [(row, {"suggested": fitting[row]}) for row in found.tolist() if {*fitting[row]} != {*rows[row].labels}]


def _judge_numbers(rows: Sequence[Row], classifier: TextClassifier, near: Neighbours | None) -> Judged:
    given = np.array([float(row.label) for row in rows])  # type: ignore[arg-type]
    predicted = near.average(given[:, None])[:, 0] if near else classifier.logits(*_texts(rows))[:, 0].double().numpy()
    errors = np.abs(given - predicted)
    limit = _far(errors, WRONG)
    order = np.argsort(-errors, kind="stable").tolist()
    return [(row, {"suggested": round(float(predicted[row]), 6)}) for row in order if errors[row] > limit]


_JUDGES = {SINGLE: _judge_single, MULTI: _judge_multi, REGRESSION: _judge_numbers}


def _outliers(rows: Rows, vectors: NDArray[np.float32]) -> Iterator[Finding]:
    """Find texts whose nearest neighbours are much farther away than usual."""
    if len(rows.usable) < FEWEST:
        return
    distances = 1 - neighbours(vectors).likeness.mean(axis=1)
    limit = _far(distances, FAR)
    order = np.argsort(-distances, kind="stable").tolist()
    far = [place for place in order if distances[place] > limit]
    if far:
        found = [rows.usable[place] for place in sorted(far)]
        yield Finding(
            "outliers",
            f"{count_rows(found)} {many(len(found), 'is', 'are')} unlike all other texts",
            "look whether they belong to the data",
            found,
            details={
                "ranked": [
                    {**rows.usable[place].place(), "distance": round(float(distances[place]), 4)} for place in far
                ]
            },
        )


@dataclass(frozen=True)
class Neighbours:
    """The nearest neighbours of N rows among each other.

    indices: [N, K], rows.
    likeness: [N, K], cosines.
    """

    indices: NDArray[np.int64]
    likeness: NDArray[np.float32]

    def average(self, values: Floats) -> Floats:
        """Return the mean [N, C] of the neighbours' values [N, C]. Near neighbours weigh more."""
        weights = np.exp(5 * (self.likeness - 1))
        return np.einsum("nk,nkc->nc", weights, values[self.indices]) / weights.sum(axis=1, keepdims=True)


def neighbours(vectors: NDArray[np.float32]) -> Neighbours:
    """Return the nearest neighbours of unit vectors [N, H] by the cosine; a vector is not its own neighbour."""
    others = np.arange(len(vectors))
    if len(vectors) > MOST_NEIGHBOURS:
        others = np.sort(np.random.default_rng(0).choice(len(vectors), MOST_NEIGHBOURS, replace=False))
    nearest = min(NEIGHBOURS, len(others) - 1)
    indices = np.empty((len(vectors), nearest), np.int64)
    likeness = np.empty((len(vectors), nearest), np.float32)
    for start in range(0, len(vectors), 1024):
        cosines = vectors[start : start + 1024] @ vectors[others].T
        cosines[others[None, :] == np.arange(start, start + len(cosines))[:, None]] = -np.inf
        best = np.argpartition(cosines, -nearest, axis=1)[:, -nearest:]
        indices[start : start + 1024] = others[best]
        likeness[start : start + 1024] = np.take_along_axis(cosines, best, axis=1)
    return Neighbours(indices, likeness)


def _far(values: Floats, deviations: float) -> float:
    """Return the value that is so many robust standard deviations above the median."""
    median = float(np.median(values))
    deviation = 1.4826 * float(np.median(np.abs(values - median)))
    return median + deviations * max(deviation, 1e-6)


def _probabilities(classifier: TextClassifier, rows: Sequence[Row]) -> Floats:
    texts = [row.text if row.pair is None else (row.text, row.pair) for row in rows]
    return classifier.predict_proba(texts).numpy()


def _cleanlab(module: str) -> Any:
    import importlib

    try:
        return importlib.import_module(f"cleanlab.{module}")
    except ImportError as err:
        raise DataError(
            "to look for label errors, pip install 'ptune[check]', or leave them out with `ignore='label_errors'`"
        ) from err


def _texts(rows: Sequence[Row]) -> tuple[list[str], list[str] | None]:
    pairs = [row.pair for row in rows if row.pair is not None]
    return [row.text for row in rows], pairs if pairs else None
