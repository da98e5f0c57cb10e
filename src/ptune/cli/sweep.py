"""ptune sweep"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from cyclopts import Parameter, validators
from pydantic import BaseModel, Field

from ptune.cli.config_file import SWEEP_KEY, read_sections
from ptune.cli.options import (
    BackboneOptions,
    ClusterOptions,
    DataOptions,
    Json,
    PromptOptions,
    Target,
    TrainOptions,
    Workers,
)
from ptune.cli.recorded import options_of, write_options
from ptune.cli.spelling import option
from ptune.cli.sweep_table import describe_values, show_trials
from ptune.cli.terminal import Terminal
from ptune.cli.train import load
from ptune.errors import ConfigError, PtuneError
from ptune.hub import expanded
from ptune.places import Place, is_url

if TYPE_CHECKING:
    from ptune.data.splits import TextData
    from ptune.scale.sweep_settings import SweepSettings
    from ptune.scale.sweep_trials import Task, Trial

logger = logging.getLogger(__name__)


class SweepCluster(ClusterOptions):
    """Where the trials run."""

    scale: Literal["ray", "local"] = Field(
        "ray",
        description="ray: on a Ray cluster, by default one on this machine that ends with the command. Needs pip "
        "install 'ptune[ray]'. local: one trial after another in this process.",
    )


def sweep(
    config: Target,
    /,
    *,
    output: Path | None = None,
    trials: Annotated[int | None, Parameter(validator=validators.Number(gte=1))] = None,
    resume: Annotated[bool, Parameter(negative=())] = False,
    overwrite: Annotated[bool, Parameter(negative=())] = False,
    workers: Workers = None,
    json: Json = False,
    cluster: Annotated[SweepCluster | None, Parameter(name="*", group="Cluster")] = None,
) -> None:
    """Try many settings on the same data, and keep the best adapter.

    The settings file is one for ptune train --config, with a section sweep: the values that settings may have, how they
    are chosen, and how many trials there are. Each worker loads the backbone once for all its trials.

    The output folder then holds the best adapter (best), all trials with their settings and metrics (trials.parquet),
    a picture of them and of each setting's importance (sweep.png), and a folder for each trial.

    Examples:
      ptune sweep sweep.yaml
      ptune sweep sweep.yaml --trials 50 --workers 4
      ptune sweep sweep.yaml --resume
      ptune sweep sweep.yaml --ray-address 10.0.0.5:6379
      ptune sweep sweep.yaml --scale local --output other --json

    Parameters
    ----------
    config
        YAML, TOML or JSON file of settings with a section sweep.
    output
        Folder for the results. Default: output in the settings file.
    trials
        Number of trials. Default: trials in the section sweep, otherwise 20, or all combinations of a grid.
    resume
        Continue the sweep in the output folder. Finished trials are kept, and the others go on from their checkpoints.
        Give more --trials to extend a sweep.
    overwrite
        Delete a sweep that is in the output folder already.
    """
    from ptune.scale.sweep import forget
    from ptune.scale.sweep_search import best_trial

    terminal = Terminal(json)
    cluster = cluster or SweepCluster()
    if cluster.scale == "local" and (workers is not None or cluster.ray_address is not None):
        raise ConfigError("--workers and --ray-address are for --scale ray; leave them out with --scale local")
    plan = _Plan.read(config, output, trials)
    if cluster.scale == "ray":
        from ptune.scale.cluster import import_ray

        import_ray()  # before anything is read or written
    _require_optuna()
    data = load(terminal, plan.data, plan.data_options, plan.training.seed)
    task = plan.task(data)
    plan.begin(task, resume or plan.resume, overwrite or plan.overwrite)
    started = time.perf_counter()
    with _hint(terminal, config), show_trials(terminal, task.metric, plan.settings.count) as on_change:
        try:
            done = _run(plan.settings, task, data, on_change, cluster, workers)
        except PtuneError:
            forget(task.output)
            raise
    best = best_trial(done, task.metric)
    assert best is not None  # otherwise it was an error
    answer = _results(plan, task, done, best)
    terminal.say(_summary(done, best, task.metric, time.perf_counter() - started))
    if answer["importance"]:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in answer["importance"].items())
        terminal.say(f"importance: {shares}")
    terminal.say(f"best adapter: {answer['adapter']}; all trials: {answer['trials']}")
    terminal.answer(answer)


def _run(
    settings: SweepSettings,
    task: Task,
    data: TextData,
    on_change: Any,
    cluster: SweepCluster,
    workers: int | None,
) -> list[Trial]:
    from ptune.scale.sweep import sweep_here, sweep_on_ray

    if cluster.scale == "local":
        return sweep_here(settings, task, data, on_change)
    return sweep_on_ray(settings, task, data, on_change, cluster.ray_address, workers)


def _results(plan: _Plan, task: Task, trials: Sequence[Trial], best: Trial) -> dict[str, Any]:
    """Write the results, and return the JSON answer."""
    from ptune.scale.sweep_results import TABLE_FILE, write_results
    from ptune.scale.sweep_search import BEST_FOLDER, Search

    importance = write_results(Search(plan.settings, task))
    adapter = task.output / BEST_FOLDER
    write_options(adapter, {**plan.options, **best.values})
    return {
        "metric": task.metric,
        "value": best.value,
        "best_trial": best.number,
        "settings": best.values,
        "metrics": best.metrics,
        "states": _states(trials),
        "importance": importance,
        "adapter": str(adapter),
        "trials": str(task.output / TABLE_FILE),
    }


def _states(trials: Sequence[Trial]) -> dict[str, int]:
    """Return how many trials have ended in each way."""
    return {state: sum(trial.state == state for trial in trials) for state in ("finished", "stopped", "failed")}


def _summary(trials: Sequence[Trial], best: Trial, metric: str, seconds: float) -> str:
    listed = ", ".join(f"{count} {state}" for state, count in _states(trials).items() if count)
    found = f"{metric} {best.value:.4f} with {describe_values(best)}"
    return f"{len(trials)} trials in {seconds:.0f} s: {listed}; best is trial {best.number}: {found}"


@contextmanager
def _hint(terminal: Terminal, config: Place) -> Iterator[None]:
    """Say how to go on if Ctrl-C ends the sweep."""
    try:
        yield
    except KeyboardInterrupt:
        terminal.say(f"stopped; continue with ptune sweep {config} --resume")
        raise


def _require_optuna() -> None:
    """Check that Optuna is installed.

    Raises:
        ConfigError: it is not; the message gives the command that installs it.
    """
    from importlib.util import find_spec

    if find_spec("optuna") is None:
        raise ConfigError("ptune sweep needs Optuna, which is not installed; pip install 'ptune[ray]'")


Model = TypeVar("Model", bound=BaseModel)


def _of(model: type[Model], options: dict[str, Any]) -> Model:
    """Return a settings model with those of the options that it has."""
    return model(**{name: value for name, value in options.items() if name in model.model_fields})


class _Plan:
    """A settings file as the command reads it.

    Args:
        options: the options of `ptune train` by name, with underscores, as far as they are given.
        settings: the search.
        output: the folder for the results.
    """

    def __init__(self, options: dict[str, Any], settings: SweepSettings, output: Path) -> None:
        self.settings = settings
        self.output = output
        self.resume, self.overwrite = options.get("resume") is True, options.get("overwrite") is True
        self.backbone, self.data = str(options["backbone"]), str(options["data"])
        self.data_options = _of(DataOptions, options)
        self.backbone_options = _of(BackboneOptions, options)
        self.prompt, self.training = _of(PromptOptions, options), _of(TrainOptions, options)
        models = (self.data_options, self.backbone_options, self.prompt, self.training)
        self.options = options_of(self.backbone, self.data, "none", True, models)

    @classmethod
    def read(cls, path: Place, output: Path | None, trials: int | None) -> _Plan:
        """Return the plan in a settings file.

        Args:
            path: the file.
            output, trials: what the command line gives in place of the file.

        Raises:
            ConfigError: the file cannot be read, something is missing, unknown or wrong.
        """
        from ptune.scale.sweep_settings import read_settings

        values, section = read_sections(path)
        where = f"configuration file '{path}': "
        if section is None:
            raise ConfigError(
                f"{where}there is no section '{SWEEP_KEY}'; add one, such as sweep: {{trials: 20, space: "
                "{lr: {log-uniform: [1e-3, 1e-1]}}}"
            )
        options = {name.replace("-", "_"): value for name, value in values.items()}
        elsewhere = [option(name) for name in ("scale", "ray_address", "workers") if name in options]
        if elsewhere:
            raise ConfigError(
                f"{where}where a sweep runs is named on its command line; give {' and '.join(elsewhere)} there, and "
                "leave them out of the file"
            )
        unused = [name for name in ("report", "report_to", "json") if options.get(name)]
        if unused:
            logger.warning("%sa sweep ignores %s", where, " and ".join(unused))
        missing = [name for name in ("backbone", "data") if name not in options]
        if output is None and "output" not in options:
            missing.append("output")
        if missing:
            raise ConfigError(f"{where}missing {' and '.join(missing)}; every trial needs it")
        if is_url(output or options["output"]):
            raise ConfigError(f"{where}output '{output or options['output']}' is a URL; a sweep needs a folder on disk")
        try:
            settings = read_settings(section, options)
        except ConfigError as err:
            raise ConfigError(f"{where}{err}", field=err.field) from err
        if trials is not None:
            settings = settings.model_copy(update={"trials": trials})
        return cls(options, settings, expanded(output or options["output"]))

    def task(self, data: TextData) -> Task:
        """Return what the trials share.

        Raises:
            ConfigError: the metric or a setting does not suit the data.
        """
        from ptune.data.metric_table import metrics_of
        from ptune.scale.sweep_trials import Task

        self.training.check_use(data.problem_type)
        names = list(metrics_of(data.problem_type))
        metric = self.settings.metric or next(iter(data.metrics), names[0])
        if metric not in names:
            raise ConfigError(
                f"sweep: metric '{metric}' is not a metric of {data.problem_type}; use one of {', '.join(names)}",
                field="metric",
                value=metric,
                expected=", ".join(names),
            )
        loading = self.backbone_options.model_dump(exclude={"max_length"})
        base: dict[str, Any] = {}
        for model in (self.prompt, self.training):
            base |= model.model_dump(exclude_unset=True)
        if self.backbone_options.max_length is not None:
            base["max_length"] = self.backbone_options.max_length
        return Task(self.options["backbone"], loading, base, metric, self.output.resolve())

    def begin(self, task: Task, resume: bool, overwrite: bool) -> None:
        """Prepare the output folder, and note the settings in it.

        Raises:
            ConfigError: the folder is a model's, or holds a sweep.
            OutputError: it cannot be written.
        """
        from ptune.adapter.target import check_target
        from ptune.scale.sweep import begin

        check_target(self.output, backbone=task.backbone)
        search = self.settings.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"trials"})
        unlike = ("device",)  # may change between two parts of a sweep
        options = {name: value for name, value in self.options.items() if name not in unlike}
        begin(self.output, {**options, **{f"sweep.{name}": value for name, value in search.items()}}, resume, overwrite)
