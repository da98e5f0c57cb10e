"""ptune train --scale ray"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ptune.cli.options import ClusterOptions
from ptune.cli.recorded import absolute
from ptune.cli.terminal import log_to_stderr
from ptune.errors import ConfigError


def train_on_cluster(
    train: Callable[..., None], arguments: Mapping[str, Any], cluster: ClusterOptions, workers: int | None
) -> None:
    """Run `ptune train` in the workers of a Ray cluster.

    Args:
        train: the command's function.
        arguments: of that function. Local places in them become absolute, for workers with other folders.
        cluster: which cluster.
        workers: how many processes; None: see `ptune.scale.train.train_on_ray`.

    Raises:
        ConfigError: the data are standard input, or the output is a URL, which not all workers see as a folder.
    """
    from ptune.scale.cluster import import_ray
    from ptune.scale.train import train_on_ray

    import_ray()
    output = arguments["output"]
    if not isinstance(output, Path):
        raise ConfigError(f"output '{output}': with --scale ray all workers need the folder as a path; give one")
    if arguments["data"] == "-":
        raise ConfigError("--scale ray reads data that all workers see; give --data a file or a folder")
    places = {name: absolute(arguments[name]) for name in ("backbone", "data")}
    train_on_ray(
        partial(_work, train, {**arguments, **places, "output": output.resolve()}), cluster.ray_address, workers
    )


def _work(train: Callable[..., None], arguments: dict[str, Any]) -> None:
    log_to_stderr()
    train(**arguments)
