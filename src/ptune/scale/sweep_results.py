"""What comes of a sweep: a table of its trials, how much each setting matters, and a picture of both."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ptune.atomic import write_files
from ptune.data.metric_table import less_is_better
from ptune.errors import cut
from ptune.report.pictures import ACCENT, DOTS_PER_INCH, OTHER, SOFT, have_matplotlib
from ptune.scale.sweep_search import Search
from ptune.scale.sweep_trials import Trial

if TYPE_CHECKING:
    import pyarrow
    from matplotlib.axes import Axes

TABLE_FILE, PICTURE_FILE = "trials.parquet", "sweep.png"
# With fewer finished trials, the importance of settings would be noise.
FEWEST_TRIALS = 4


def write_results(search: Search) -> dict[str, float]:
    """Write the table and the picture into the folder of the sweep, and return the importance of the settings.

    Without matplotlib (`pip install 'ptune[report]'`) there is no picture.

    Raises:
        OutputError: a file cannot be written.
    """
    importance = importance_of(search)
    files = {TABLE_FILE: _parquet(trials_table(search.trials, list(search.settings.space)))}
    if have_matplotlib():
        files[PICTURE_FILE] = _picture(search.trials, search.task.metric, importance)
    write_files(search.task.output, files)
    return importance


def importance_of(search: Search) -> dict[str, float]:
    """Return the share of the metric's variance that each setting explains, the largest first, by fANOVA.

    Empty with few finished trials, or if all have the same result.

    Source: Hutter et al. 2014, An efficient approach for assessing hyperparameter importance.
    """
    import optuna

    values = {trial.value for trial in search.trials if trial.state == "finished"}
    finished = sum(trial.state == "finished" for trial in search.trials)
    if finished < FEWEST_TRIALS or len(values) < 2:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=search.settings.seed)
    found = optuna.importance.get_param_importances(search.study, evaluator=evaluator)
    return {name: round(float(share), 4) for name, share in found.items()}


def trials_table(trials: Sequence[Trial], settings: Sequence[str]) -> pyarrow.Table:
    """Return one row for each trial: its number, state, results, and settings in columns of their own names.

    Settings whose values Parquet cannot hold in one column, such as lists and numbers, are text in JSON. A setting
    with the name of another column, such as `seed`, keeps its name: those others begin with `trial_` or `metric_`.
    """
    import pyarrow

    columns: dict[str, list[Any]] = {
        "trial_number": [trial.number for trial in trials],
        "trial_state": [trial.state for trial in trials],
        "trial_value": [trial.value for trial in trials],
        "trial_best_epoch": [trial.best_epoch for trial in trials],
        "trial_epochs": [len(trial.history) for trial in trials],
        "trial_seconds": [trial.seconds for trial in trials],
        "trial_error": [trial.error for trial in trials],
    }
    columns |= {name: [trial.values.get(name) for trial in trials] for name in settings}
    names = dict.fromkeys(name for trial in trials for name in trial.metrics)
    columns |= {f"metric_{name}": [trial.metrics.get(name) for trial in trials] for name in names}
    return pyarrow.table({name: _column(values) for name, values in columns.items()})


def _column(values: Sequence[Any]) -> pyarrow.Array:
    import pyarrow

    try:
        if all(value is None for value in values):
            return pyarrow.array(values, pyarrow.string())
        return pyarrow.array(values)
    except pyarrow.ArrowException:
        return pyarrow.array([json.dumps(value, ensure_ascii=False) for value in values])


def _parquet(table: pyarrow.Table) -> bytes:
    import pyarrow.parquet as parquet

    content = io.BytesIO()
    parquet.write_table(table, content)
    return content.getvalue()


def _picture(trials: Sequence[Trial], metric: str, importance: Mapping[str, float]) -> bytes:
    """Return a picture as PNG: the value of each trial with the best so far, and the importance of the settings."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4) if importance else (6, 4), layout="constrained", dpi=DOTS_PER_INCH)
    axes = figure.subplots(1, 2 if importance else 1, squeeze=False)[0]
    _draw_trials(axes[0], trials, metric)
    if importance:
        names = [cut(name, 30) for name in importance]
        axes[1].barh(names[::-1], list(importance.values())[::-1], color=ACCENT)
        axes[1].set(title="importance of the settings", xlabel="share of the variance explained")
    content = io.BytesIO()
    FigureCanvasAgg(figure).print_png(content, metadata={"Software": None})
    return content.getvalue()


def _draw_trials(axes: Axes, trials: Sequence[Trial], metric: str) -> None:
    from matplotlib.ticker import MaxNLocator

    better = min if less_is_better(metric) else max
    points = [(trial.number, trial.value, trial.state) for trial in trials if trial.value is not None]
    for state, color in (("finished", ACCENT), ("stopped", OTHER)):
        shown = [(number, value) for number, value, its_state in points if its_state == state]
        if shown:
            axes.scatter(*zip(*shown, strict=True), color=color, label=state, zorder=2)
    best = [better(value for _, value, _ in points[: place + 1]) for place in range(len(points))]
    axes.step([number for number, _, _ in points], best, where="post", color=SOFT, label="best so far", zorder=1)
    axes.set(title="trials", xlabel="trial", ylabel=metric)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)
