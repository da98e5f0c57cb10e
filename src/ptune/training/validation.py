"""Measuring the prompts of a run on its validation rows, and comparing what was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ptune.data.metric_table import less_is_better
from ptune.data.targets import MULTI, SINGLE, ProblemType
from ptune.evaluation.calibration import fit_temperature
from ptune.evaluation.metrics import describe_collapse, evaluate_logits
from ptune.evaluation.own_metrics import OwnMetrics, own_metrics
from ptune.evaluation.thresholds import fit_thresholds
from ptune.inference.engine import compute_logits
from ptune.model.classifier import PromptClassifier
from ptune.model.decision import Decision
from ptune.model.ensemble import combine
from ptune.processes import Processes
from ptune.training.config import SettledConfig
from ptune.training.steps import Rows


@dataclass(frozen=True)
class Measured:
    """What the validation rows say of the prompts as they are.

    metrics: of what would be kept now. temperature, thresholds: fitted on these rows; thresholds are empty unless the
        task is multi-label.
    member: index of the prompt that would be kept; None for the ensemble of all.
    by_member: the value of the metric that compares them, for each prompt.
    collapse: in words, that every row gets the same prediction; None if predictions differ.
    logits: [M, N, C], of the rows under every prompt.
    rank: sort key of what would be kept: higher is better.
    seconds: that a cross-validation took.
    """

    metrics: dict[str, float]
    temperature: float
    thresholds: tuple[float, ...]
    member: int | None
    by_member: list[float]
    collapse: str | None
    logits: Tensor
    rank: tuple[float, ...]
    seconds: float = 0.0

    def kept_logits(self, problem_type: ProblemType) -> Tensor:
        """Return the logits [N, C] under what would be kept: a prompt, or the ensemble."""
        return combine(self.logits, problem_type) if self.member is None else self.logits[self.member]


class Validation:
    """Measures prompts that share a backbone, always with the same batches.

    Args:
        models: the prompts, M of them.
        rows: to measure on.
        pad_id: the token that pads rows.
        config: says which metric compares prompts and epochs.
        metrics: the user's metrics, measured beside ptune's.
        train_rows: the rows to train on; for several labels per row, they show whether every row has a label.
        processes: those that share the rows.
    """

    def __init__(
        self,
        models: Sequence[PromptClassifier],
        rows: Rows,
        pad_id: int,
        config: SettledConfig,
        train_rows: Rows,
        metrics: OwnMetrics,
        processes: Processes = Processes(),  # noqa: B008 (it is immutable)
    ) -> None:
        self.processes = processes
        self.models = models
        self.rows = rows
        self.pad_id = pad_id
        self.config = config
        self.metrics = metrics
        # Every row has a label: an answer without any would be wrong.
        self.always_labelled = all(bool((each.labels > 0).any(dim=-1).all()) for each in (rows, train_rows))
        self.most_tokens: int | None = None  # limit of a pass, once a larger one ran out of memory

    @property
    def metric(self) -> str:
        """The metric that compares seeds, and also epochs unless the last epoch is kept anyway."""
        return "loss" if self.config.best == "last" else self.config.best

    def measure(self, before: Sequence[float] = ()) -> Measured:
        """Measure all prompts and pick the one that would be kept.

        Args:
            before: the metric in the epoch before, of each prompt, or of the ensemble if that is kept. Empty: there is
                none.
        """
        return self.measure_logits(self.logits(), before)

    def measure_logits(self, logits: Tensor, before: Sequence[float] = ()) -> Measured:
        """Measure logits [M, N, C] of the rows, and pick the prompt that would be kept; see `measure`."""
        first = self.models[0]
        measured = [self._measure(member_logits) for member_logits in logits]
        member: int | None
        if self.config.ensemble:
            member, kept = None, combine(logits, first.problem_type)
            metrics, temperature, thresholds = self._measure(kept)
            rank = self.rank(metrics, *before)
        else:
            earlier: Sequence[float | None] = before or [None] * len(measured)
            ranks = [self.rank(each, value) for (each, *_), value in zip(measured, earlier, strict=True)]
            member = max(range(len(measured)), key=ranks.__getitem__)
            kept, rank, (metrics, temperature, thresholds) = logits[member], ranks[member], measured[member]
        collapse = describe_collapse(
            kept, self.rows.labels, first.labels, first.problem_type, self.decision(thresholds)
        )
        by_member = [each[self.metric] for each, *_ in measured]
        return Measured(metrics, temperature, thresholds, member, by_member, collapse, logits, rank)

    def logits(self) -> Tensor:
        """Return the logits [M, N, C] of the rows under every prompt. Each process computes a share of the rows."""
        total = len(self.rows.encoded)
        requests = [(row, number) for row in self.processes.share(range(total)) for number in range(len(self.models))]
        outcome = compute_logits(self.models, self.rows.encoded, requests, self.pad_id, most_tokens=self.most_tokens)
        self.most_tokens = outcome.most_tokens
        if (shards := self.models[0].backbone.shards) is not None:
            row = [(0, 0)]
            shards.wait_for_others(lambda: compute_logits(self.models[:1], self.rows.encoded[:1], row, self.pad_id))
        return self.processes.join(torch.stack(outcome.logits), total)

    def rank(self, metrics: dict[str, float], before: float | None = None) -> tuple[float, ...]:
        """Return a sort key: the metric, averaged with that of the epoch before, then the lower loss.

        A single epoch is often better by luck. Weights and metrics of neighbouring epochs are close, so their mean says
        more about other rows. A loss needs no averaging. One that is not finite is last.
        """
        if not math.isfinite(metrics["loss"]):
            return (-math.inf,)
        value = metrics[self.metric]
        if before is not None and self.metric != "loss":
            value = (value + before) / 2
        return (-value if less_is_better(self.metric) else value), -metrics["loss"]

    def decision(self, thresholds: tuple[float, ...]) -> Decision:
        """Return the rule for labels. A threshold that the user names is kept to, so that a row may get no label."""
        return Decision(thresholds, bool(thresholds) and self.config.threshold is None and self.always_labelled)

    def _thresholds(self, logits: Tensor) -> tuple[float, ...]:
        """Return the thresholds of a multi-label task: the user's, or fitted on logits [N, C]."""
        if self.models[0].problem_type != MULTI:
            return ()
        if self.config.threshold is not None:
            return (self.config.threshold,) * logits.shape[1]
        return fit_thresholds(logits, self.rows.labels)

    def _measure(self, logits: Tensor) -> tuple[dict[str, float], float, tuple[float, ...]]:
        """Return the metrics of logits [N, C], and the temperature and the thresholds fitted on them."""
        problem_type = self.models[0].problem_type
        temperature = fit_temperature(logits, self.rows.labels) if problem_type == SINGLE else 1.0
        thresholds = self._thresholds(logits)
        decision = self.decision(thresholds)
        rule = (problem_type, temperature, decision)
        metrics = evaluate_logits(logits, self.rows.labels, *rule)
        return metrics | own_metrics(self.metrics, logits, self.rows.labels, *rule), temperature, thresholds
