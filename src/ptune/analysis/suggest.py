"""Choose the rows that are most worth labelling next.

Rows whose two most probable labels are close (a small margin) tell a model most, but the closest of them are often
alike. So several times as many rows as are wanted are taken by their margin, sorted into as many clusters as are wanted
by their vectors, and of each cluster the row with the smallest margin is suggested (Bodó et al., 2011).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptune.analysis.vectors import unit_vectors
from ptune.data.check.copies import same_text
from ptune.data.columns import Columns, text_problem
from ptune.data.files import DataFile, as_file
from ptune.data.objects import as_texts, is_place
from ptune.data.readers import Row, read_rows
from ptune.data.targets import MULTI, REGRESSION
from ptune.data.texts import Text, unzip
from ptune.errors import ConfigError, DataError
from ptune.inference.answers import Prediction
from ptune.inference.classifier import TextClassifier
from ptune.inference.engine import OnRows, run_logits

CANDIDATES = 5  # rows that are taken by their margin, for each row that is wanted
MOST_CLUSTERED = 20_000


@dataclass(frozen=True)
class Suggestion:
    """A row to label.

    Attributes:
        row: its number in the input, from 1.
        texts: its text, or both texts of a pair.
        margin: how certain the model is, from 0 to 1: the difference between the probabilities of the two most probable
            labels; with several labels per row twice the distance of the least certain label from its threshold. None
            in a regression.
        prediction: the present answer.
        cells: all columns of the row, if it comes from a file.
    """

    row: int
    texts: tuple[str, ...]
    margin: float | None
    prediction: Prediction
    cells: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return everything in types of JSON."""
        return asdict(self)


def suggest(
    classifier: TextClassifier,
    source: Any,
    count: int = 100,
    *,
    text: str | None = None,
    text_pair: str | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    on_rows: OnRows | None = None,
) -> list[Suggestion]:
    """Return the rows that are most worth labelling next, the least certain first.

    Rows without text, and repeats of a text, are left out. The outputs of a regression say nothing of its certainty;
    its rows are chosen to be different from each other.

    Args:
        classifier: from `ptune.load`.
        source: texts without labels: a file, or what `TextClassifier.predict` takes.
        count: number of rows; all of them if there are no more.
        text, text_pair: columns of the texts. Default: as in training, or guessed.
        batch_size: rows per forward pass. Default: as many as suit the device.
        seed: of the clustering.
        on_rows: called after each batch with the number of texts that are predicted.

    Raises:
        ConfigError: `count` is less than 1.
        DataError: the source cannot be read, or has no texts.
    """
    if count < 1:
        raise ConfigError(f"`count` is {count}; give 1 or more", field="count", value=count, expected="1 or more")
    numbers, texts, cells = _read(classifier, source, text, text_pair)
    if not texts:
        raise DataError("there are no texts to choose from")
    first, second = unzip(texts)
    encoded = classifier.encode(first, second)
    logits = run_logits(classifier.model, encoded, classifier.pad_id, batch_size, on_rows=on_rows)
    predictions = list(classifier.answers(logits))
    margins = None if classifier.model.problem_type == REGRESSION else _margins(classifier, predictions)
    candidates = _candidates(margins, len(texts), count, seed)
    chosen = candidates
    if len(candidates) > count:
        pairs = None if second is None else [second[index] for index in candidates]
        vectors = unit_vectors(classifier, [first[index] for index in candidates], pairs, batch_size)
        places = _least_certain(vectors, count, seed) if margins is not None else _central(vectors, count, seed)
        chosen = [candidates[place] for place in places]
    return [
        Suggestion(
            numbers[index],
            (first[index],) if second is None else (first[index], second[index]),
            None if margins is None else round(float(margins[index]), 6),
            predictions[index],
            cells[index],
        )
        for index in chosen
    ]


def _read(
    classifier: TextClassifier, source: Any, text: str | None, text_pair: str | None
) -> tuple[list[int], list[Text], list[Row]]:
    """Return the numbers, the texts and the cells of all rows with a text, one for each text."""
    numbers: list[int] = []
    texts: list[Text] = []
    cells: list[Row] = []
    seen: set[tuple[str, ...]] = set()

    def add(number: int, values: Sequence[str], row: Row) -> None:
        key = tuple(map(same_text, values))
        if key not in seen:
            seen.add(key)
            numbers.append(number)
            texts.append(values[0] if len(values) == 1 else (values[0], values[1]))
            cells.append(row)

    if not is_place(source) and not isinstance(source, DataFile):
        for number, value in enumerate(as_texts(source, classifier.choose_columns), 1):
            values = value if isinstance(value, tuple) else (value,)
            unzip([value], number - 1)  # checks it
            if all(one.strip() for one in values):
                add(number, values, {})
        return numbers, texts, cells
    file = as_file(source)
    columns: Columns | None = None
    for number, row in enumerate(read_rows(file), 1):
        columns = columns or classifier.choose_columns(list(row), file.where, text, text_pair)
        names = [name for name in (columns.text, columns.text_pair) if name is not None]
        if not any(text_problem(row.get(name), name) for name in names):
            add(number, [str(row[name]) for name in names], row)
    return numbers, texts, cells


def _margins(classifier: TextClassifier, predictions: Sequence[Prediction]) -> NDArray[np.float64]:
    """Return how certain each prediction is, [N]."""
    scores = np.array([list(prediction["scores"].values()) for prediction in predictions])
    if classifier.model.problem_type == MULTI:
        thresholds = np.array(classifier.task.decision.thresholds or [0.5] * scores.shape[1])
        return 2 * np.abs(scores - thresholds).min(axis=1)
    ranked = np.sort(scores, axis=1)
    return ranked[:, -1] - ranked[:, -2]


def _candidates(margins: NDArray[np.float64] | None, rows: int, count: int, seed: int) -> list[int]:
    """Return the rows to choose from: the least certain ones, the least certain first, or a sample of all rows."""
    if margins is not None:
        return [int(index) for index in np.argsort(margins, kind="stable")[: CANDIDATES * count]]
    if rows <= MOST_CLUSTERED:
        return list(range(rows))
    return sorted(int(index) for index in np.random.default_rng(seed).choice(rows, MOST_CLUSTERED, replace=False))


def _least_certain(vectors: NDArray[np.float32], count: int, seed: int) -> list[int]:
    """Return the first row of each of `count` clusters of rows that are sorted by their margins."""
    chosen: dict[int, int] = {}
    for place, cluster in enumerate(_clusters(vectors, count, seed).tolist()):
        chosen.setdefault(cluster, place)
    taken = set(chosen.values())
    rest = [place for place in range(len(vectors)) if place not in taken]  # a cluster may be empty
    return sorted([*taken, *rest[: count - len(taken)]])


def _central(vectors: NDArray[np.float32], count: int, seed: int) -> list[int]:
    """Return the row at the centre of each of `count` clusters."""
    clusters = _clusters(vectors, count, seed)
    chosen = []
    for cluster in np.unique(clusters):
        members = np.flatnonzero(clusters == cluster)
        distances = np.linalg.norm(vectors[members] - vectors[members].mean(axis=0), axis=1)
        chosen.append(int(members[distances.argmin()]))
    rest = [place for place in range(len(vectors)) if place not in set(chosen)]
    return sorted([*chosen, *rest[: count - len(chosen)]])


def _clusters(vectors: NDArray[np.float32], count: int, seed: int) -> NDArray[np.int64]:
    """Return the cluster of each vector, by k-means."""
    import warnings

    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    kind = KMeans if len(vectors) <= 2000 else MiniBatchKMeans
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # there may be fewer different vectors than clusters
        return kind(count, n_init=1, random_state=seed).fit_predict(vectors)
