"""The pictures of a report as PNG, for slides and documents. Needs the extra `report`."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ptune.data.targets import MULTI
from ptune.errors import ConfigError, cut, printable
from ptune.report import charts, confusion
from ptune.report.contents import Bin, Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

NEEDED = "pictures as PNG need matplotlib: pip install 'ptune[report]'"
ACCENT, OTHER, BAD, SOFT = "#3457d5", "#8fa3ea", "#c8453d", "#586071"
FAINTEST = 0.4  # of the colour of a mistake
MOST_BARS = 40  # labels in the picture of F1
DOTS_PER_INCH = 130
Draw = Callable[["Axes", Report], None]


def have_matplotlib() -> bool:
    """Return whether pictures can be drawn."""
    from importlib.util import find_spec

    return find_spec("matplotlib") is not None


def draw_pictures(report: Report) -> dict[str, bytes]:
    """Return the pictures that a report has, by the names of their files.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as err:
        raise ConfigError(NEEDED) from err
    style: Any = {
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": SOFT,
        "axes.grid": True,
        "grid.color": "#dde1e8",
        "axes.axisbelow": True,
        "legend.frameon": False,
        "font.size": 9,
        "text.parse_math": False,  # labels may have dollar signs
    }
    pictures = {}
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of characters that the font does not have
        for name, (size, draw) in _chosen(report).items():
            figure = Figure(figsize=size, layout="constrained", dpi=DOTS_PER_INCH)
            draw(figure.add_subplot(), report)
            content = io.BytesIO()
            FigureCanvasAgg(figure).print_png(content, metadata={"Software": None}, pil_kwargs={"optimize": False})
            pictures[f"{name}.png"] = content.getvalue()
    return pictures


# The names of all pictures that there may be.
PICTURES = (
    "loss",
    "metric",
    "confusion",
    "labels",
    "reliability",
    "coverage",
    "numbers",
    "errors",
    "lengths",
    "prompt",
)
_SIZE = (5.2, 3.4)


def _chosen(report: Report) -> Mapping[str, tuple[tuple[float, float], Draw]]:
    """Return the sizes in inches and the functions of the pictures that a report has."""
    count = len(report.labels)
    side = min(9.0, max(3.6, 0.55 * count)) if count <= confusion.NAMED else 8.0
    bars = min(len(report.by_label), MOST_BARS)
    listed: list[tuple[str, bool, tuple[float, float], Draw]] = [
        ("loss", bool(report.history), _SIZE, _loss),
        ("metric", bool(report.history), _SIZE, _metric),
        ("confusion", report.matrix is not None and count <= confusion.LARGEST_MATRIX, (side + 0.6, side), _confusion),
        ("labels", bool(report.by_label), (5.6, 1.1 + 0.2 * bars), _labels),
        ("reliability", report.calibration is not None, (4.2, 4.0), _reliability),
        ("coverage", bool(report.coverage), _SIZE, _coverage),
        ("numbers", report.numbers is not None, (4.2, 4.0), _numbers),
        ("errors", report.numbers is not None, _SIZE, _errors),
        ("lengths", report.lengths is not None and bool(report.lengths.lengths), _SIZE, _lengths),
        ("prompt", report.prompt is not None and report.prompt.rows > 0, _SIZE, _worth),
    ]
    return {name: (size, draw) for name, there, size, draw in listed if there}


def _loss(axes: Axes, report: Report) -> None:
    epochs = [line["epoch"] for line in report.history]
    mark = "o" if len(epochs) <= 40 else ""
    axes.plot(epochs, [line["train_loss"] for line in report.history], color=OTHER, label="training", marker=mark, ms=4)
    axes.plot(epochs, [line["loss"] for line in report.history], color=ACCENT, label="validation", marker=mark, ms=4)
    _kept(axes, report)
    axes.set(xlabel="epoch", ylabel="loss", title="Loss")
    axes.legend()


def _metric(axes: Axes, report: Report) -> None:
    points = [(line["epoch"], line[report.best_metric]) for line in report.history if report.best_metric in line]
    mark = "o" if len(points) <= 40 else ""
    axes.plot([epoch for epoch, _ in points], [value for _, value in points], color=ACCENT, marker=mark, ms=4)
    _kept(axes, report)
    title = charts.metric_title(report)
    axes.set(xlabel="epoch", ylabel=title, title=f"{title[0].upper()}{title[1:]} on the validation rows")


def _kept(axes: Axes, report: Report) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if report.best_epoch is not None:
        axes.axvline(report.best_epoch, color=SOFT, linestyle="--", linewidth=1, label="kept")


def _confusion(axes: Axes, report: Report) -> None:
    assert report.matrix is not None
    names, count = [_name(label) for label in report.labels], len(report.labels)
    shares = [[cell / max(1, sum(row)) for cell in row] for row in report.matrix]
    # Right answers are blue and mistakes red, as on the page: mistakes have negative values.
    # Cells without names are small: mistakes have to be seen in them.
    least = FAINTEST if count > confusion.NAMED else 0.0
    signed = [
        [share if at == true else -(least + (1 - least) * share) * (share > 0) for at, share in enumerate(row)]
        for true, row in enumerate(shares)
    ]
    axes.imshow(signed, cmap=_colours(), vmin=-1, vmax=1)
    axes.grid(False)
    if count <= confusion.NAMED:
        size = 8 if count <= 20 else 6
        axes.set_xticks(range(count), names, rotation=90, fontsize=size)
        axes.set_yticks(range(count), names, fontsize=size)
    else:
        axes.set_xticks([0, count - 1], ["1", str(count)])
        axes.set_yticks([0, count - 1], ["1", str(count)])
    if count <= confusion.NUMBERED:
        for true, row in enumerate(report.matrix):
            for predicted, rows in enumerate(row):
                if rows:
                    colour = "white" if shares[true][predicted] > 0.5 else "black"
                    axes.text(predicted, true, f"{rows:,}", ha="center", va="center", color=colour, fontsize=8)
    axes.set(xlabel="predicted", ylabel="true", title="Confusion matrix")


def _colours() -> Colormap:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("mistakes", [BAD, "#ffffff", ACCENT])


def _labels(axes: Axes, report: Report) -> None:
    scores = sorted(report.by_label, key=lambda one: one.f1)
    title = "F1 of each label" if len(scores) <= MOST_BARS else f"The {MOST_BARS} labels with the lowest F1"
    scores = scores[:MOST_BARS][::-1]
    axes.barh(range(len(scores)), [one.f1 for one in scores], color=ACCENT, height=0.7)
    axes.set_yticks(range(len(scores)), [f"{_name(one.label)} ({one.support:,})" for one in scores], fontsize=7)
    axes.set(xlim=(0, 1), xlabel="F1 (rows in brackets)", title=title)
    axes.grid(False, axis="y")
    axes.margins(y=0.01)


def _reliability(axes: Axes, report: Report) -> None:
    calibration, several = report.calibration, report.problem_type == MULTI
    assert calibration is not None
    axes.plot([0, 1], [0, 1], color=SOFT, linestyle="--", linewidth=1)
    if several or calibration.temperature == 1:
        _bins(axes, calibration.after, ACCENT, f"error {calibration.error_after:.3f}")
    else:
        _bins(axes, calibration.before, OTHER, f"before, error {calibration.error_before:.3f}")
        _bins(axes, calibration.after, ACCENT, f"after, error {calibration.error_after:.3f}")
    names = ("probability", "labels that are there") if several else ("confidence", "right answers")
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel=names[0], ylabel=names[1], title="Reliability")
    axes.legend()


def _bins(axes: Axes, bins: list[Bin], colour: str, label: str) -> None:
    total = sum(one.rows for one in bins)
    line = charts.joined(bins)
    axes.plot([one.confidence for one in line], [one.accuracy for one in line], color=colour, label=label)
    x, y = [one.confidence for one in bins], [one.accuracy for one in bins]
    axes.scatter(x, y, clip_on=False, s=[15 + 200 * one.rows / total for one in bins], color=colour, alpha=0.6)


def _coverage(axes: Axes, report: Report) -> None:
    points = report.coverage
    axes.axhline(points[-1].accuracy, color=SOFT, linestyle="--", linewidth=1)
    axes.plot([point.share for point in points], [point.accuracy for point in points], color=ACCENT)
    right = "rows with all labels right" if report.problem_type == MULTI else "accuracy"
    axes.set(xlim=(0, 1), xlabel="rows answered, the most certain first", ylabel=right, title="Coverage and accuracy")


def _numbers(axes: Axes, report: Report) -> None:
    assert report.numbers is not None
    both = [*report.numbers.truth, *report.numbers.predicted]
    axes.plot([min(both), max(both)], [min(both), max(both)], color=SOFT, linestyle="--", linewidth=1)
    axes.scatter(report.numbers.truth, report.numbers.predicted, s=10, alpha=0.5, color=ACCENT)
    axes.set(xlabel="true", ylabel="predicted", title="Predicted and true")


def _errors(axes: Axes, report: Report) -> None:
    assert report.numbers is not None
    errors = [predicted - true for true, predicted in zip(report.numbers.truth, report.numbers.predicted, strict=True)]
    axes.hist(errors, bins=25, color=ACCENT)
    axes.axvline(0, color=SOFT, linestyle="--", linewidth=1)
    axes.set(xlabel="predicted minus true", ylabel="rows", title="Errors")


def _lengths(axes: Axes, report: Report) -> None:
    lengths = report.lengths
    assert lengths is not None
    axes.hist(lengths.lengths, bins=24, color=ACCENT)
    rows = f"{lengths.cut:,} of {len(lengths.lengths):,} rows"
    if lengths.most <= 1.4 * max(lengths.lengths):
        axes.axvline(lengths.most, color=BAD, linestyle="--", label=f"cut at {lengths.most:,} tokens ({rows})")
        axes.legend()
    axes.set(xlabel="tokens", ylabel="rows", title="Lengths of the texts")


def _worth(axes: Axes, report: Report) -> None:
    prompt = report.prompt
    assert prompt is not None
    values = [token.worth or 0.0 for token in prompt.tokens]
    axes.bar(
        [token.number for token in prompt.tokens], values, color=[BAD if value < 0 else ACCENT for value in values]
    )
    axes.axhline(0, color=SOFT, linewidth=1)
    axes.set(xlabel="virtual token", ylabel="growth of the loss", title="What each virtual token is worth")


def _name(label: str) -> str:
    return cut(printable(label).replace("\n", " "), 30)
