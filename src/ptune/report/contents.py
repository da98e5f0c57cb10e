"""What a report says, as plain data. Everything that shows it reads these classes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from ptune.data.targets import ProblemType


@dataclass(frozen=True)
class Bin:
    """Answers whose confidence lies between two values.

    Attributes:
        low, high: the borders of the bin, from 0 to 1.
        rows: number of answers in it; for several labels per row, of probabilities.
        confidence: their mean confidence.
        accuracy: the share that is right; for several labels per row, the share of labels that are there.
    """

    low: float
    high: float
    rows: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """Whether probabilities mean what they say.

    Attributes:
        temperature: divisor of the logits; 1 if none was fitted.
        before: bins without the temperature, empty ones left out.
        after: bins with the temperature.
        error_before, error_after: expected calibration error, from 0 to 1.
    """

    temperature: float
    before: list[Bin]
    after: list[Bin]
    error_before: float
    error_after: float


@dataclass(frozen=True)
class Covered:
    """What is gained by leaving the least certain rows to people.

    Attributes:
        share: share of the rows that the model answers, from 0 to 1: those that it is most certain of.
        accuracy: share of these answers that are right.
        certainty: least certainty among them.
    """

    share: float
    accuracy: float
    certainty: float


@dataclass(frozen=True)
class ConfusedPair:
    """How often a label was given in place of another one."""

    truth: str
    predicted: str
    rows: int
    share: float  # of the rows that have the true label


@dataclass(frozen=True)
class LabelScores:
    """The performance on one label.

    Attributes:
        label: its name.
        precision, recall, f1: from 0 to 1.
        support: rows that have it.
        threshold: probability above which it applies; None unless rows may have several labels.
    """

    label: str
    precision: float
    recall: float
    f1: float
    support: int
    threshold: float | None = None


@dataclass(frozen=True)
class ShownRow:
    """A row with its texts.

    Attributes:
        row: its number in the split, from 1.
        texts: its text, or both texts of a pair.
        truth: its label, labels or number, in words.
        answer: what the model says, in the same form.
        certainty: probability of the answer; in a regression, the error.
    """

    row: int
    texts: tuple[str, ...]
    truth: str
    answer: str
    certainty: float


@dataclass(frozen=True)
class Lengths:
    """How long the texts are, in tokens.

    Attributes:
        lengths: tokens of each row that was looked at, before it is cut.
        most: what is longer is cut.
        cut: number of these rows that are cut.
        sampled: True if not all rows were looked at.
    """

    lengths: list[int]
    most: int
    cut: int
    sampled: bool


@dataclass(frozen=True)
class VirtualToken:
    """What one virtual token says, and what it is worth.

    Attributes:
        number: its place in the prompt, from 1.
        nearest: words of the vocabulary whose vectors are nearest, with the cosine; empty for a deep prompt.
        worth: by how much the loss grows if it is left out; None if that was not measured.
        changed: share of the answers that change; None if that was not measured.
    """

    number: int
    nearest: list[tuple[str, float]]
    worth: float | None = None
    changed: float | None = None


@dataclass(frozen=True)
class PromptContent:
    """What a prompt says.

    Attributes:
        tokens: its virtual tokens.
        rows: number of rows on which their worth was measured; 0 if it was not.
        note: what a reader has to know about it, in one sentence; empty if nothing.
    """

    tokens: list[VirtualToken]
    rows: int
    note: str = ""


@dataclass(frozen=True)
class Numbers:
    """The answers of a regression. truth and predicted: one number for each row."""

    truth: list[float]
    predicted: list[float]


@dataclass(frozen=True)
class Report:
    """Everything that is known about a classifier and the rows that it was measured on.

    Attributes:
        name: what the classifier is called.
        data: where the rows come from, and the name of the split.
        rows: number of rows.
        problem_type: the kind of the labels.
        labels: label names in index order.
        metrics: by name.
        majority: accuracy of always giving the most frequent answer; None for a regression.
        history: the lines of the metrics file, one per epoch; empty if unknown.
        best_epoch: the epoch that was kept; None if unknown.
        best_metric: name of the metric that picked it.
        matrix: [C, C], rows are true classes and columns predicted ones; None unless there is one label per row.
        pairs: what is confused most, in descending order.
        by_label: one entry for each label; empty for a regression.
        calibration, coverage: None and empty for a regression.
        numbers: None unless it is a regression.
        mistakes: wrong answers with the highest probability; in a regression, the largest errors.
        uncertain: answers with the lowest probability.
        lengths: of the texts.
        prompt: None if it was not looked at.
        facts: names and values by section: settings, data, versions, time.
        notices: what a reader has to know first, one sentence each.
    """

    name: str
    data: str
    rows: int
    problem_type: ProblemType
    labels: list[str]
    metrics: dict[str, float]
    majority: float | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int | None = None
    best_metric: str = ""
    matrix: list[list[int]] | None = None
    pairs: list[ConfusedPair] = field(default_factory=list)
    by_label: list[LabelScores] = field(default_factory=list)
    calibration: Calibration | None = None
    coverage: list[Covered] = field(default_factory=list)
    numbers: Numbers | None = None
    mistakes: list[ShownRow] = field(default_factory=list)
    uncertain: list[ShownRow] = field(default_factory=list)
    lengths: Lengths | None = None
    prompt: PromptContent | None = None
    facts: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return everything in types of JSON."""
        return asdict(self)
