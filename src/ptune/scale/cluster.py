"""The Ray cluster that a command runs on: an existing one by its address, or one on this machine.

A cluster on this machine begins and ends with the command. It sends nothing over the network and has no dashboard.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from ptune.errors import ConfigError, PtuneError

# Ray's own settings. Those of the user's environment take precedence.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # it would send what a worker prints to the log too
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # otherwise Ray warns of a change in its future versions
}
# Starts a cluster even where another one runs on the machine.
_LOCAL = "local"
# How often a new cluster is started before giving up. Ray waits 30 seconds for it, which a busy machine may exceed.
_STARTS = 3
# Seconds in which an existing cluster has to accept a connection. Ray itself would try for two minutes.
_CONNECT_SECONDS = 5.0


@dataclass(frozen=True)
class Workers:
    """How many workers a command starts, and what each of them takes.

    count: number of workers.
    cpus: CPUs of each.
    gpus: GPUs of each; less than 1 if workers share one.
    """

    count: int
    cpus: int
    gpus: float

    @property
    def options(self) -> dict[str, Any]:
        """The resources of a worker as Ray names them."""
        return {"num_cpus": self.cpus, "num_gpus": self.gpus}


def import_ray() -> ModuleType:
    """Return the package `ray` with its telemetry off.

    Raises:
        ConfigError: Ray is not installed; the message gives the command that installs it.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as err:
        raise ConfigError(
            "`scale='ray'` needs Ray, which is not installed; pip install 'ptune[ray]'", field="scale", value="ray"
        ) from err
    logging.getLogger("ray").setLevel(logging.ERROR)
    return ray


@contextmanager
def cluster(address: str | None = None, cpus: int | None = None) -> Iterator[ModuleType]:
    """Connect to a Ray cluster, and leave it at the end. A cluster that was started for this ends with it.

    Args:
        address: HOST:PORT of the head of an existing cluster, `auto` for the one that runs on this machine, or
            `ray://HOST:PORT`. None: what RAY_ADDRESS says, otherwise a new cluster on this machine.
        cpus: CPUs of a new cluster. Default: those of the machine.

    Yields:
        The package `ray`, connected.

    Raises:
        ConfigError: Ray is not installed.
        ConfigError: there is no cluster at the address, it refuses the connection, or a new one does not start.
    """
    ray = import_ray()
    place = address or os.environ.get("RAY_ADDRESS") or _LOCAL
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    if place == _LOCAL:
        settings |= {"include_dashboard": False, "num_cpus": cpus}
    else:
        _check_reachable(place)
    for left in reversed(range(_STARTS if place == _LOCAL else 1)):
        try:
            ray.init(place, **settings)
            break
        except Exception as err:  # Ray raises errors of many kinds, `Exception` itself among them
            reason = " ".join(str(err).split())
            if not left:
                raise (_not_started(reason) if place == _LOCAL else _no_cluster(place, reason)) from err
            ray.shutdown()
    try:
        yield ray
    finally:
        ray.shutdown()


def plan_workers(ray: ModuleType, count: int | None = None) -> Workers:
    """Return the workers that share the connected cluster. Without a count there is one for each GPU, else each CPU.

    Raises:
        ConfigError: the cluster is too small for so many workers.
    """
    total = ray.cluster_resources()
    cpus, gpus = int(total.get("CPU", 0)), int(total.get("GPU", 0))
    # A worker has to fit on one machine.
    most = min(int(node["Resources"]["CPU"]) for node in ray.nodes() if node["Resources"].get("CPU"))
    if count is None:
        count = max(1, gpus or cpus)
    elif count > max(cpus, 1):
        raise ConfigError(
            f"`workers` is {count}, but the cluster has {cpus} CPUs; use at most {cpus}",
            field="workers",
            value=count,
            expected=f"at most {cpus}",
        )
    return Workers(count, max(1, min(cpus // count, most)), min(1.0, gpus / count))


def cause_of(err: BaseException) -> BaseException:
    """Return the error of ptune inside an error of Ray, or the error itself if there is none."""
    inner: BaseException | None = err
    while inner is not None:
        if isinstance(inner, PtuneError) and not hasattr(inner, "cause"):
            return inner
        inner = getattr(inner, "cause", None) or inner.__cause__
    return err


def _check_reachable(address: str) -> None:
    """Check that something accepts connections at an address of the form HOST:PORT.

    Raises:
        ConfigError: nothing does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return  # such as `auto`, which Ray resolves
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
    except (OSError, OverflowError) as err:
        raise _no_cluster(address, str(getattr(err, "strerror", None) or err)) from err


def _not_started(reason: str) -> ConfigError:
    return ConfigError(
        f"Ray cannot start a cluster on this machine: {reason.rstrip('.')}; try again when the machine is less busy, "
        "or join a cluster by its `ray_address`",
        field="scale",
        value="ray",
    )


def _no_cluster(address: str, reason: str) -> ConfigError:
    return ConfigError(
        f"there is no Ray cluster at `ray_address='{address}'`: {reason.rstrip('.')}; give HOST:PORT of its head, as "
        "`ray start --head` prints it, set RAY_AUTH_MODE=token if it asks for a token, or leave the address out to "
        "start a cluster on this machine",
        field="ray_address",
        value=address,
        expected="HOST:PORT",
    )
