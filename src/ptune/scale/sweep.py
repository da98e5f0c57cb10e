"""A sweep: many trainings with different settings over the same data, in this process or on a Ray cluster.

`Search` chooses the trials. Each worker loads the backbone once and asks for one trial after another. On a cluster the
search is an actor, so workers need nothing but it, the data and the folder of the sweep.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ptune.atomic import write_files
from ptune.errors import ConfigError, TrainingError
from ptune.scale.cluster import cause_of, cluster, plan_workers
from ptune.scale.sweep_search import BEST_FOLDER, MOST_LOSSES, Search, best_trial
from ptune.scale.sweep_settings import SweepSettings
from ptune.scale.sweep_trials import TRIALS_FOLDER, Report, Task, Trial, run_trial
from ptune.settings_file import parse_file

if TYPE_CHECKING:
    from ptune.data.splits import TextData
    from ptune.model.backbone import Backbone

logger = logging.getLogger(__name__)

SWEEP_FILE = "sweep.json"
# How often the state of a sweep on a cluster is looked at, in seconds.
_LOOK_EVERY = 0.5
# Called with all trials so far, whenever something may have changed.
OnChange = Callable[[Sequence[Trial]], None]


class _Asked(Protocol):
    """What a worker needs of a `Search`."""

    def next(self, worker: str) -> Trial | None: ...
    def report(self, number: int, line: dict[str, Any]) -> bool: ...
    def finish(self, trial: Trial) -> None: ...


def begin(output: Path, facts: dict[str, Any], resume: bool, overwrite: bool) -> None:
    """Prepare the folder of a sweep, and note what its trials depend on.

    Args:
        output: the folder.
        facts: everything that a resumed sweep has to share, as JSON can hold it.
        resume: whether to go on with the sweep that is in the folder.
        overwrite: whether a sweep in the folder may be deleted.

    Raises:
        ConfigError: the folder holds a sweep and neither is asked for, or another sweep than the one to resume.
        OutputError: the folder cannot be written.
    """
    path = output / SWEEP_FILE
    if not path.exists():
        if resume:
            logger.warning(
                "nothing to resume in '%s': there is no %s; the sweep starts from the beginning", output, SWEEP_FILE
            )
    elif resume:
        before = parse_file(path, "file")
        changed = sorted(name for name in before.keys() | facts.keys() if before.get(name) != facts.get(name))
        if changed:
            listed = ", ".join(f"{name} was {before.get(name)!r} and is {facts.get(name)!r}" for name in changed)
            raise ConfigError(
                f"the sweep in '{output}' cannot go on with other settings: {listed}; give the same, or another "
                "`output`",
                field="resume",
            )
    elif overwrite:
        for folder in (TRIALS_FOLDER, BEST_FOLDER):
            shutil.rmtree(output / folder, ignore_errors=True)
    else:
        raise ConfigError(
            f"folder '{output}' holds a sweep already; give another `output`, `resume=True` to go on with it, or "
            "`overwrite=True` to replace it",
            field="output",
            value=str(output),
        )
    write_files(output, {SWEEP_FILE: (json.dumps(facts, indent=2, ensure_ascii=False) + "\n").encode()})


def forget(output: Path) -> None:
    """Remove the note of a sweep that could not start, so that a corrected one can begin in the folder."""
    if not (output / TRIALS_FOLDER).exists():
        with suppress(OSError):
            (output / SWEEP_FILE).unlink(missing_ok=True)
            output.rmdir()  # if it is empty


def sweep_here(settings: SweepSettings, task: Task, data: TextData, on_change: OnChange) -> list[Trial]:
    """Run the trials of a sweep one after another in this process, and return all of them.

    Args:
        settings: how to search.
        task: what all trials share.
        data: the data to train on.
        on_change: called after every epoch.

    Raises:
        BackboneError: the backbone cannot be loaded.
        TrainingError: every trial has failed.
    """
    search = Search(settings, task)

    def report(number: int, line: dict[str, Any]) -> bool:
        stop = search.report(number, line)
        on_change(search.snapshot())
        return stop

    _work("this process", task, task.load_backbone(), data, search, report, lambda: on_change(search.snapshot()))
    return _checked(search.snapshot(), task)


def sweep_on_ray(
    settings: SweepSettings,
    task: Task,
    data: TextData,
    on_change: OnChange,
    address: str | None = None,
    workers: int | None = None,
) -> list[Trial]:
    """Run the trials of a sweep on a Ray cluster, and return all of them.

    A worker that is lost is replaced, and its trial goes on from its checkpoint. All machines of the cluster have to
    see the folder of the sweep.

    Args:
        settings, task, data: as for `sweep_here`.
        on_change: called about twice a second.
        address: of an existing cluster; see `cluster`.
        workers: how many trials run at a time. Default: one per GPU, or one per CPU without GPUs.

    Raises:
        ConfigError: Ray is not installed, there is no cluster at the address, or it is too small.
        BackboneError: the backbone cannot be loaded.
        TrainingError: every trial has failed, or workers are lost again and again.
    """
    with cluster(address) as ray:
        plan = plan_workers(ray, workers)
        search = ray.remote(Search).options(num_cpus=0).remote(settings, task)
        shared = ray.put(data)
        make = ray.remote(Worker).options(**plan.options)
        running: dict[Any, tuple[str, Any]] = {}  # the promise of each worker's end, with its name and its actor

        def start(name: str) -> None:
            actor = make.remote(task, shared)
            running[actor.work.remote(name, search)] = name, actor

        lost_at_once = 0  # workers in a row that were lost before they had a trial
        for number in range(min(plan.count, settings.count)):
            start(f"worker {number + 1}")
        while running:
            ended, _ = ray.wait(list(running), timeout=_LOOK_EVERY)
            for promise in ended:
                name, _ = running.pop(promise)
                if _is_lost(ray, promise):
                    logger.warning("%s was lost; another one takes its place", name)
                    lost_at_once = 0 if ray.get(search.lose.remote(name)) else lost_at_once + 1
                    if lost_at_once >= MOST_LOSSES:
                        raise TrainingError(
                            "workers are lost before they begin to train, perhaps for lack of memory; use fewer "
                            "`workers`"
                        )
                    start(name)
            on_change(ray.get(search.snapshot.remote()))
        return _checked(ray.get(search.snapshot.remote()), task)


class Worker:
    """A process of a cluster that runs trials. It loads the backbone once.

    Args:
        task: what all trials share.
        data: the data to train on.
    """

    def __init__(self, task: Task, data: TextData) -> None:
        self.task = task
        self.data = data
        self.backbone: Backbone | None = None

    def work(self, name: str, search: Any) -> None:
        """Run trials until none is left.

        Args:
            name: this worker's name.
            search: the actor of a `Search`.
        """
        if self.backbone is None:  # not when the actor is made, because errors of that come without their cause
            self.backbone = self.task.load_backbone()
        remote = _Remote(search)
        _work(name, self.task, self.backbone, self.data, remote, remote.report)


class _Remote:
    """A `Search` that is an actor of the cluster."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor

    def next(self, worker: str) -> Trial | None:
        return self._ask(self.actor.next.remote(worker))

    def report(self, number: int, line: dict[str, Any]) -> bool:
        return self._ask(self.actor.report.remote(number, line))

    def finish(self, trial: Trial) -> None:
        self._ask(self.actor.finish.remote(trial))

    def _ask(self, promise: Any) -> Any:
        import ray

        return ray.get(promise)


def _work(
    name: str,
    task: Task,
    backbone: Backbone,
    data: TextData,
    search: _Asked,
    report: Report,
    on_end: Callable[[], None] = lambda: None,
) -> None:
    """Run trials until the search has none left."""
    while (trial := search.next(name)) is not None:
        search.finish(run_trial(trial, task, backbone, data, report))
        on_end()


def _is_lost(ray: Any, promise: Any) -> bool:
    """Return whether a worker that ended was lost, and not done.

    Raises:
        Exception: what went wrong in the worker apart from its trials, such as a `BackboneError`.
    """
    try:
        ray.get(promise)
    except ray.exceptions.RayTaskError as err:
        raise cause_of(err) from None
    except ray.exceptions.RayError:
        return True
    return False


def _checked(trials: list[Trial], task: Task) -> list[Trial]:
    """Return trials, of which one has a result.

    Raises:
        TrainingError: none has.
    """
    if best_trial(trials, task.metric) is None:
        raise TrainingError(f"all {len(trials)} trials failed; the first one because: {trials[0].error}")
    return trials
