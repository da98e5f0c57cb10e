"""Count what was predicted, to say it in one line."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

from ptune.data.targets import MULTI, REGRESSION, ProblemType


class Tally:
    """Counts of the predicted labels, or statistics of the predicted numbers, over all rows."""

    def __init__(self, problem_type: ProblemType) -> None:
        from ptune.inference.answers import PREDICTION_KEYS  # loads torch

        self.problem_type = problem_type
        self.key = PREDICTION_KEYS[problem_type][0]
        self.rows = 0
        self.known = 0  # rows with an answer, which those without text do not have
        self.labels = Counter[str]()
        self.sum, self.least, self.most = 0.0, math.inf, -math.inf  # for a regression

    def add(self, row: dict[str, Any]) -> dict[str, Any]:
        """Count a row and return it unchanged."""
        self.rows += 1
        value = row[self.key]
        if value is None:
            return row
        self.known += 1
        if self.problem_type == REGRESSION:
            self.sum, self.least, self.most = self.sum + value, min(self.least, value), max(self.most, value)
        else:
            self.labels.update(value if self.problem_type == MULTI else [value])
        return row

    def __add__(self, other: Tally) -> Tally:
        total = Tally(self.problem_type)
        total.rows, total.known = self.rows + other.rows, self.known + other.known
        total.labels = self.labels + other.labels
        total.sum = self.sum + other.sum
        total.least, total.most = min(self.least, other.least), max(self.most, other.most)
        return total

    def to_json(self) -> str:
        """Return what has been counted as JSON, from which `from_json` makes a tally again."""
        return json.dumps({**vars(self), "labels": self.labels}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Tally:
        """Return the tally that gave a JSON text."""
        content = json.loads(text)
        tally = cls(content["problem_type"])
        vars(tally).update({**content, "labels": Counter(content["labels"])})
        return tally

    def answer(self) -> dict[str, Any]:
        """Return the counts or statistics for the JSON answer."""
        if self.problem_type != REGRESSION:
            return {"labels": dict(self.labels)}
        return {"mean": self.sum / self.known, "min": self.least, "max": self.most} if self.known else {}

    def __str__(self) -> str:
        if self.problem_type != REGRESSION:
            return ", ".join(f"{label} {count}" for label, count in self.labels.most_common(8))
        return ", ".join(f"{name} {value:.4g}" for name, value in self.answer().items())
