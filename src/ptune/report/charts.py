"""The pictures of a report as SVG, one function each."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ptune.data.metric_table import metrics_of
from ptune.report.canvas import Plot, percent
from ptune.report.contents import Bin, Calibration, Covered, Lengths, Numbers, PromptContent, Report

FEWEST_JOINED = 5  # answers in a dot of the reliability diagram that its line goes through
MOST_DOTS = 600  # of a scatter plot


def loss_curves(report: Report) -> str:
    """Return the losses of training and validation over the epochs."""
    lines = [("line other", "training", "train_loss"), ("line accent", "validation", "loss")]
    return _curves(report, lines, "loss")


def metric_curve(report: Report) -> str:
    """Return the metric that picked the epoch over the epochs."""
    return _curves(report, [("line accent", metric_title(report), report.best_metric)], metric_title(report))


def metric_title(report: Report) -> str:
    """Return what the metric of the curve is called."""
    table = metrics_of(report.problem_type)
    return table[report.best_metric].title if report.best_metric in table else report.best_metric


def _curves(report: Report, lines: Sequence[tuple[str, str, str]], name: str) -> str:
    named = [(kind, title, _points(report, key)) for kind, title, key in lines]
    values = [value for *_, points in named for _, value in points]
    last = float(report.history[-1]["epoch"])
    low, high = padded(min(values, default=0), max(values, default=1))
    if min(values, default=0) >= 0:
        low = max(low, 0.0)
    top = 40.0 if len(named) > 1 else 24.0
    plot = Plot(f"{name} by epoch", (min(1.0, last), max(last, 1.0)), (low, high), "epoch", name, whole=True, top=top)
    if report.best_epoch is not None:
        place = plot.x(report.best_epoch)
        plot.line(place, plot.top, place, plot.bottom, "mark")
        plot.text(place, plot.top - 6, "kept", "soft", "middle")
    for kind, title, points in named:
        plot.curve(points, kind)
        if len(points) <= 40:
            for epoch, value in points:
                where = f"epoch {epoch:.0f}, {title}: {value:.4f}"
                plot.dot(plot.x(epoch), plot.y(value), 3, f"fill {kind.split()[-1]}", where)
    if len(named) > 1:
        plot.legend(plot.left, 16, [(kind, title) for kind, title, _ in named])
    return plot.svg()


def _points(report: Report, key: str) -> list[tuple[float, float]]:
    return [(float(line["epoch"]), float(line[key])) for line in report.history if _is_number(line.get(key))]


def reliability(calibration: Calibration, several: bool) -> str:
    """Return how often answers are right that the model is so sure of, before and after the temperature.

    Args:
        calibration: what was measured.
        several: True for several labels per row, which have no temperature.
    """
    y_name = "labels that are there" if several else "right answers"
    x_name = "probability" if several else "confidence"
    plot = Plot(
        "reliability: confidence and accuracy", (0, 1), (0, 1), x_name, y_name, percent, percent, height=310, top=30
    )
    plot.curve([(0, 0), (1, 1)], "mark")
    if several or calibration.temperature == 1:
        _bins(plot, calibration.after, "accent")
        plot.legend(plot.left, 16, [("line accent", f"error {calibration.error_after:.3f}")])
        return plot.svg()
    _bins(plot, calibration.before, "other")
    _bins(plot, calibration.after, "accent")
    before, after = f"before ({calibration.error_before:.3f})", f"after ({calibration.error_after:.3f})"
    plot.legend(plot.left, 16, [("line other", before), ("line accent", after)])
    return plot.svg()


def _bins(plot: Plot, bins: Sequence[Bin], kind: str) -> None:
    total = sum(one.rows for one in bins)
    plot.curve([(one.confidence, one.accuracy) for one in joined(bins)], f"line {kind}")
    for one in bins:
        title = f"{one.rows:,} answers, confidence {one.confidence:.1%}, right {one.accuracy:.1%}"
        radius = 2.5 + 6 * math.sqrt(one.rows / total)
        plot.dot(plot.x(one.confidence), plot.y(one.accuracy), radius, f"fill {kind} see-through", title)


def joined(bins: Sequence[Bin]) -> list[Bin]:
    """Return the bins that a line goes through. The share of right answers among very few is chance."""
    return [one for one in bins if one.rows >= FEWEST_JOINED]


def coverage(points: Sequence[Covered], what: str) -> str:
    """Return the accuracy on the most certain rows, over their share. what: name of the vertical axis."""
    low, high = padded(min(point.accuracy for point in points), 1.0)
    plot = Plot(
        f"{what} over the share of rows that are answered",
        (0, 1),
        (max(0.0, low), min(1.0, high)),
        "rows answered, the most certain first",
        what,
        percent,
        percent,
        height=300,
    )
    whole = points[-1].accuracy
    plot.curve([(0, whole), (1, whole)], "mark")
    plot.curve([(point.share, point.accuracy) for point in points], "line accent")
    for point in points[:: max(1, len(points) // 50)]:
        title = f"{point.share:.0%} of the rows, certainty at least {point.certainty:.1%}: {point.accuracy:.1%} right"
        plot.dot(plot.x(point.share), plot.y(point.accuracy), 2.5 if len(points) <= 25 else 1.5, "fill accent", title)
    return plot.svg()


def length_histogram(lengths: Lengths) -> str:
    """Return how many texts have which length in tokens, with the length that they are cut to."""
    longest = max(lengths.lengths, default=1)
    near = lengths.most <= 1.4 * longest
    end = max(longest, lengths.most if near else 0)
    counts, width = histogram(lengths.lengths, 0, end + 1, 24, whole=True)
    plot = Plot(
        "lengths of the texts", (0, width * len(counts)), (0, 1.05 * max(counts)), "tokens", "rows", whole=True, top=30
    )
    _bars(plot, counts, 0, width, lambda low, high: f"{low:.0f} to {high - 1:.0f} tokens", lengths.most)
    if near:
        place = plot.x(lengths.most)
        plot.line(place, plot.top, place, plot.bottom, "cut")
    limit = f"cut at {lengths.most:,} tokens: {lengths.cut:,} {'row' if lengths.cut == 1 else 'rows'}"
    plot.text(plot.left, 16, limit, "bad-text" if lengths.cut else "soft")
    return plot.svg()


def scatter(numbers: Numbers) -> str:
    """Return the predicted numbers over the true ones."""
    low, high = padded(min(*numbers.truth, *numbers.predicted), max(*numbers.truth, *numbers.predicted))
    plot = Plot("predicted over true numbers", (low, high), (low, high), "true", "predicted", height=380)
    plot.curve([(low, low), (high, high)], "mark")
    step = max(1, math.ceil(len(numbers.truth) / MOST_DOTS))
    for truth, predicted in zip(numbers.truth[::step], numbers.predicted[::step], strict=True):
        plot.dot(plot.x(truth), plot.y(predicted), 3, "fill accent see-through", f"{truth:.4g} → {predicted:.4g}")
    return plot.svg()


def error_histogram(numbers: Numbers) -> str:
    """Return how many rows have which error, predicted minus true."""
    errors = [predicted - truth for truth, predicted in zip(numbers.truth, numbers.predicted, strict=True)]
    most = max((abs(error) for error in errors), default=1.0) or 1.0
    counts, width = histogram(errors, -most, most, 25)
    plot = Plot("errors", (-most, most), (0, 1.05 * max(counts)), "predicted minus true", "rows", height=380)
    _bars(plot, counts, -most, width, lambda low, high: f"{low:.3g} to {high:.3g}")
    plot.line(plot.x(0), plot.top, plot.x(0), plot.bottom, "mark")
    return plot.svg()


def worth(prompt: PromptContent) -> str:
    """Return by how much the loss grows where each virtual token is left out."""
    values = [token.worth or 0.0 for token in prompt.tokens]
    low, high = min(0.0, *values), max(0.0, *values)
    spread = (high - low) or 1.0
    plot = Plot(
        "how important each virtual token is",
        (0.5, len(values) + 0.5),
        (low - 0.05 * spread * (low < 0), high + 0.05 * spread),
        "virtual token",
        "growth of the loss",
        whole=True,
    )
    wide = plot.x(2) - plot.x(1)
    for token, value in zip(prompt.tokens, values, strict=True):
        top, bottom = plot.y(max(value, 0)), plot.y(min(value, 0))
        changed = f", {token.changed:.0%} of the answers change" if token.changed else ""
        title = f"virtual token {token.number}: {value:+.4f}{changed}"
        kind = "accent" if value >= 0 else "bad"
        plot.box(plot.x(token.number) - 0.4 * wide, top, 0.8 * wide, max(bottom - top, 0.7), f"fill {kind}", title)
    plot.line(plot.left, plot.y(0), plot.right, plot.y(0), "axis")
    return plot.svg()


def padded(low: float, high: float) -> tuple[float, float]:
    """Return two numbers with some room around them."""
    room = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
    return low - room, high + room


def histogram(
    values: Sequence[float], low: float, high: float, most: int, whole: bool = False
) -> tuple[list[int], float]:
    """Return the number of values in each of at most `most` bins of equal width, and the width.

    Args:
        values: numbers from low to high.
        low, high: borders of all bins together.
        most: number of bins.
        whole: True if the width is to be a whole number.
    """
    width = (high - low) / most
    if whole:
        width = float(max(1, math.ceil(width)))
    bins = max(1, math.ceil((high - low) / width - 1e-9))
    counts = [0] * bins
    for value in values:
        counts[min(bins - 1, max(0, int((value - low) / width)))] += 1
    return counts, width


def _bars(
    plot: Plot,
    counts: Sequence[int],
    start: float,
    width: float,
    describe: Callable[[float, float], str],
    limit: float | None = None,
) -> None:
    """Draw bars of a histogram. Those behind the limit are red."""
    for number, count in enumerate(counts):
        if count:
            low, high = start + number * width, start + (number + 1) * width
            kind = "bad" if limit is not None and low > limit else "accent"
            x, y = plot.x(low), plot.y(count)
            wide = max(plot.x(high) - x - 1, 1)
            plot.box(x + 0.5, y, wide, plot.bottom - y, f"fill {kind}", f"{describe(low, high)}: {count:,}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
