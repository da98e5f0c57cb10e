"""Checks of data that need a model: texts that are cut, likely label errors, and texts unlike all others.

Label errors are found by confident learning (Northcutt et al., arXiv 1911.00068), as cleanlab implements it. It needs
probabilities of models that have not seen a row's label. Rows that are not for training get the adapter's. Training
rows get those of a logistic regression over the adapter's vectors, fitted on the other rows (cross-validation).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
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

FOLDS = 5
FEWEST = 20  # rows of a split below which nothing is said about label errors or outliers
NEIGHBOURS = 5
MOST_NEIGHBOURS = 20_000  # rows among which neighbours are looked for
FAR = 6.0  # robust standard deviations from the median from which a distance or an error is far
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
    _check_task(rows, classifier)
    if not rows.usable:
        return []
    vectors = unit_vectors(classifier, *_texts(rows.usable))
    found: list[Finding] = []
    if "label_errors" not in ignore:
        found += _label_errors(rows, classifier, vectors)
    if "outliers" not in ignore:
        found += _outliers(rows, vectors)
    return found


def _check_task(rows: Rows, classifier: TextClassifier) -> None:
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
        features = vectors[[places[id(row)] for row in members]]
        judged = _JUDGES[rows.problem_type](members, features, classifier, held_out=split != "train")
        for index, suggestion in judged:
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


def _judge_single(
    rows: Sequence[Row], features: NDArray[np.float32], classifier: TextClassifier, held_out: bool
) -> list[tuple[int, dict[str, Any]]]:
    """Return the rows whose label is probably wrong, the least credible first, with the label that fits better."""
    names = classifier.labels
    given = np.array([names.index(str(row.label)) for row in rows])
    counts = Counter(given.tolist())
    classes = sorted(label for label, count in counts.items() if count > 1 or held_out)
    kept = [index for index in range(len(rows)) if given[index] in classes]
    if len(classes) < 2:
        return []
    if held_out:
        scores = _probabilities(classifier, [rows[index] for index in kept])[:, classes]
        scores = scores / scores.sum(axis=1, keepdims=True)
    else:
        folds = min(FOLDS, *(counts[label] for label in classes))
        scores = _cross_validated(features[kept], given[kept], folds)
    labels = np.searchsorted(classes, given[kept])
    found = _cleanlab("filter").find_label_issues(labels, scores, return_indices_ranked_by="self_confidence", n_jobs=1)
    return [
        (
            kept[index],
            {
                "suggested": names[classes[int(scores[index].argmax())]],
                "probability": round(float(scores[index].max()), 4),
            },
        )
        for index in found.tolist()
    ]


def _judge_multi(
    rows: Sequence[Row], features: NDArray[np.float32], classifier: TextClassifier, held_out: bool
) -> list[tuple[int, dict[str, Any]]]:
    names = classifier.labels
    given = np.array([[name in row.labels for name in names] for row in rows])
    scores = _probabilities(classifier, rows)
    if not held_out:
        for label in range(len(names)):
            least = int(min(given[:, label].sum(), (~given[:, label]).sum()))
            if least >= 2:
                scores[:, label] = _cross_validated(features, given[:, label], min(FOLDS, least))[:, 1]
    found = _cleanlab("multilabel_classification.filter").find_label_issues(
        [np.flatnonzero(row).tolist() for row in given],
        scores,
        return_indices_ranked_by="self_confidence",
        n_jobs=1,
    )
    fitting = [[name for name, score in zip(names, row, strict=True) if score > 0.5] for row in scores]
    return [(index, {"suggested": fitting[index]}) for index in found.tolist()]


def _judge_numbers(
    rows: Sequence[Row], features: NDArray[np.float32], classifier: TextClassifier, held_out: bool
) -> list[tuple[int, dict[str, Any]]]:
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import KFold, cross_val_predict

    given = np.array([float(row.label) for row in rows])  # type: ignore[arg-type]
    if held_out:
        predicted = classifier.logits(*_texts(rows))[:, 0].double().numpy()
    else:
        folds = KFold(FOLDS, shuffle=True, random_state=0)
        predicted = cross_val_predict(Ridge(0.1), features, given, cv=folds)
    errors = np.abs(given - predicted)
    far = _far(errors)
    return [
        (int(index), {"suggested": round(float(predicted[index]), 6)})
        for index in np.argsort(-errors)
        if errors[index] > far
    ]


_JUDGES = {SINGLE: _judge_single, MULTI: _judge_multi, REGRESSION: _judge_numbers}


def _outliers(rows: Rows, vectors: NDArray[np.float32]) -> Iterator[Finding]:
    """Find texts whose nearest neighbours are much farther away than usual."""
    if len(rows.usable) < FEWEST:
        return
    distances = neighbour_distances(vectors)
    far = _far(distances)
    found = [row for row, distance in zip(rows.usable, distances, strict=True) if distance > far]
    if found:
        ranked = sorted(zip(distances.tolist(), map(id, rows.usable), rows.usable, strict=True), reverse=True)
        yield Finding(
            "outliers",
            f"{count_rows(found)} {many(len(found), 'is', 'are')} unlike all other texts",
            "look whether they belong to the data",
            found,
            details={
                "ranked": [{**row.place(), "distance": round(value, 4)} for value, _, row in ranked[: len(found)]]
            },
        )


def neighbour_distances(vectors: NDArray[np.float32]) -> Floats:
    """Return the mean distance [N] of unit vectors [N, H] from their nearest neighbours, by the cosine."""
    generator = np.random.default_rng(0)
    others = np.arange(len(vectors))
    if len(vectors) > MOST_NEIGHBOURS:
        others = np.sort(generator.choice(len(vectors), MOST_NEIGHBOURS, replace=False))
    nearest = min(NEIGHBOURS, len(others) - 1)
    distances = np.empty(len(vectors))
    for start in range(0, len(vectors), 1024):
        likeness = vectors[start : start + 1024] @ vectors[others].T
        own = others[None, :] == np.arange(start, start + len(likeness))[:, None]
        likeness[own] = -np.inf
        distances[start : start + 1024] = 1 - np.partition(likeness, -nearest, axis=1)[:, -nearest:].mean(axis=1)
    return distances


def _far(values: Floats) -> float:
    """Return the value from which values are far from the median, in units of their robust standard deviation."""
    median = float(np.median(values))
    deviation = 1.4826 * float(np.median(np.abs(values - median)))
    return median + FAR * max(deviation, 1e-9)


def _probabilities(classifier: TextClassifier, rows: Sequence[Row]) -> Floats:
    texts = [row.text if row.pair is None else (row.text, row.pair) for row in rows]
    return classifier.predict_proba(texts).numpy()


def _cross_validated(features: NDArray[np.float32], labels: NDArray[Any], folds: int) -> Floats:
    """Return probabilities [N, C] for each row by a logistic regression that was fitted on other rows."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    model = LogisticRegression(C=10, max_iter=300)
    splits = StratifiedKFold(folds, shuffle=True, random_state=0)
    return cross_val_predict(model, features, labels, cv=splits, method="predict_proba")


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
