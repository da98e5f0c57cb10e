"""Numbers of a report that come from logits and targets alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from ptune.data.splits import Split
from ptune.data.targets import MULTI, REGRESSION, SINGLE, ProblemType
from ptune.evaluation.calibration import BINS, expected_calibration_error
from ptune.inference.answers import probabilities
from ptune.model.decision import HALF, Decision
from ptune.report.contents import Bin, Calibration, ConfusedPair, Covered, LabelScores, ShownRow

MOST_PAIRS = 15  # confused pairs
MOST_ROWS = 15  # rows of each kind
MOST_POINTS = 100  # of the curve of coverage
FEWEST_ANSWERS = 10  # at which it begins: the accuracy of fewer is chance


def calibration(logits: Tensor, targets: Tensor, problem_type: ProblemType, temperature: float) -> Calibration | None:
    """Return how far probabilities can be trusted, before and after the temperature. None for a regression.

    Args:
        logits: [N, C].
        targets: [N], class indices; multi-label [N, C], 0 or 1.
        problem_type: the kind of the targets.
        temperature: divisor of the logits of a single-label task.
    """
    if problem_type == REGRESSION or not len(logits):
        return None
    logits = logits.double()
    if problem_type == MULTI:  # every probability of every label counts, and there is no temperature
        shares = logits.sigmoid().flatten()
        bins = _bins(shares, targets.flatten().double())
        error = sum(one.rows * abs(one.confidence - one.accuracy) for one in bins) / len(shares)
        return Calibration(1.0, bins, bins, error, error)
    both = []
    for divisor in (1.0, temperature):
        shares = probabilities(logits, SINGLE, divisor)
        confidence, predicted = shares.max(dim=1)
        both.append((_bins(confidence, (predicted == targets).double()), expected_calibration_error(shares, targets)))
    (before, error_before), (after, error_after) = both
    return Calibration(temperature, before, after, error_before, error_after)


def _bins(confidence: Tensor, right: Tensor) -> list[Bin]:
    """Return the bins that hold answers. Arguments: [N] each, float64."""
    index = (confidence * BINS).ceil().long().clamp(1, BINS) - 1
    zeros = torch.zeros(BINS, dtype=torch.double)
    rows, sums, correct = (zeros.index_add(0, index, each) for each in (torch.ones_like(right), confidence, right))
    return [
        Bin(number / BINS, (number + 1) / BINS, int(count), float(total / count), float(good / count))
        for number, (count, total, good) in enumerate(zip(rows, sums, correct, strict=True))
        if count
    ]


def certainty(logits: Tensor, problem_type: ProblemType, temperature: float, decision: Decision) -> Tensor:
    """Return how certain each answer is, [N], from 0 to 1.

    It is the probability of the answer. For several labels per row, it is that of the label that is decided least
    clearly: how likely it is to be there, or not to be there, as the answer says.

    Args:
        logits: [N, C].
        problem_type: one label or several.
        temperature: divisor of the logits of a single-label task.
        decision: which labels apply.
    """
    shares = probabilities(logits.double(), problem_type, temperature)
    if problem_type == SINGLE:
        return shares.max(dim=1).values
    return torch.where(decision.applies(logits), shares, 1 - shares).min(dim=1).values


def correct(logits: Tensor, targets: Tensor, problem_type: ProblemType, decision: Decision) -> Tensor:
    """Return which answers are right, bool [N]: with several labels per row, those with all labels right."""
    if problem_type == SINGLE:
        return logits.argmax(dim=1) == targets
    return (decision.applies(logits) == (targets == 1)).all(dim=1)


def coverage(certain: Tensor, right: Tensor) -> list[Covered]:
    """Return the accuracy on the most certain rows, for rising shares of them.

    Rows of equal certainty are answered together or not at all.

    Args:
        certain: [N], from 0 to 1.
        right: bool [N].
    """
    total = len(certain)
    order = certain.argsort(descending=True, stable=True)
    values, good = certain[order], right[order].double().cumsum(dim=0)
    fewest = min(total, FEWEST_ANSWERS)
    steps = sorted({max(fewest, round(total * number / MOST_POINTS)) for number in range(1, MOST_POINTS + 1)})
    points: dict[int, Covered] = {}
    for step in steps if total else []:
        count = int((values >= values[step - 1]).sum())
        points[count] = Covered(count / total, float(good[count - 1] / count), float(values[count - 1]))
    return list(points.values())


def confused_pairs(
    logits: Tensor, targets: Tensor, labels: Sequence[str], problem_type: ProblemType, decision: Decision
) -> list[ConfusedPair]:
    """Return which labels are taken for which, the most frequent first.

    With several labels per row, a missing label and a wrong one in the same row are a pair.

    Args:
        logits: [N, C].
        targets: [N], class indices; multi-label [N, C], 0 or 1.
        labels: the names of the C labels.
        problem_type: the kind of the targets; a regression has no pairs.
        decision: which labels apply.
    """
    counts: Counter[tuple[int, int]] = Counter()
    if problem_type == SINGLE:
        support = targets.bincount(minlength=len(labels))
        predicted = logits.argmax(dim=1)
        wrong = predicted != targets
        counts.update(zip(targets[wrong].tolist(), predicted[wrong].tolist(), strict=True))
    elif problem_type == MULTI:
        support = (targets == 1).sum(dim=0)
        applied, truth = decision.applies(logits), targets == 1
        for missing, extra in zip(truth & ~applied, applied & ~truth, strict=True):
            counts.update((one, other) for one in _places(missing) for other in _places(extra))
    return [
        ConfusedPair(labels[true], labels[given], rows, rows / int(support[true]))
        for (true, given), rows in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MOST_PAIRS]
    ]


def label_scores(
    by_label: dict[str, dict[str, float]] | None, problem_type: ProblemType, decision: Decision
) -> list[LabelScores]:
    """Return precision, recall and F1 of `Evaluation.by_label`, with the thresholds where there are any."""
    if by_label is None:
        return []
    thresholds: Sequence[float | None] = [None] * len(by_label)
    if problem_type == MULTI:
        thresholds = decision.thresholds or (HALF,) * len(by_label)
    return [
        LabelScores(name, one["precision"], one["recall"], one["f1"], int(one["support"]), threshold)
        for (name, one), threshold in zip(by_label.items(), thresholds, strict=True)
    ]


def telling_rows(
    split: Split,
    logits: Tensor,
    targets: Tensor,
    labels: Sequence[str],
    problem_type: ProblemType,
    temperature: float,
    decision: Decision,
) -> tuple[list[ShownRow], list[ShownRow]]:
    """Return the most confident mistakes and the least certain rows.

    A regression has no probabilities: it gets the rows with the largest errors, and no uncertain ones.
    """
    if problem_type == REGRESSION:
        errors = (logits[:, 0].double() - targets.double()).abs()
        worst = errors.argsort(descending=True, stable=True)[:MOST_ROWS].tolist()
        return [
            _shown(split, row, f"{targets[row]:.4g}", f"{logits[row, 0]:.4g}", float(errors[row])) for row in worst
        ], []
    certain = certainty(logits, problem_type, temperature, decision)
    right = correct(logits, targets, problem_type, decision)
    order = certain.argsort(descending=True, stable=True).tolist()
    answered = decision.applies(logits) if problem_type == MULTI else None

    def shown(row: int) -> ShownRow:
        if answered is None:
            truth, answer = labels[int(targets[row])], labels[int(logits[row].argmax())]
        else:
            truth, answer = (", ".join(labels[place] for place in _places(each)) or "no label"
                             for each in (targets[row] == 1, answered[row]))  # fmt: skip
        return _shown(split, row, truth, answer, float(certain[row]))

    mistakes = [row for row in order if not right[row]][:MOST_ROWS]
    return [shown(row) for row in mistakes], [shown(row) for row in order[::-1][:MOST_ROWS]]


def _places(chosen: Tensor) -> list[int]:
    return chosen.nonzero()[:, 0].tolist()


def _shown(split: Split, row: int, truth: str, answer: str, certain: float) -> ShownRow:
    texts = (split.texts[row],) if split.pairs is None else (split.texts[row], split.pairs[row])
    return ShownRow(row + 1, texts, truth, answer, certain)
