"""A command's Ray cluster: what is said where there is none. Tests that start one are in the files of the commands."""

from __future__ import annotations

import socket
import sys

import pytest

from ptune.errors import ConfigError, DataError
from ptune.scale.cluster import cause_of, cluster, import_ray, plan_workers


class Cluster:
    """Stands for the package `ray`, connected to a cluster whose machines are all alike."""

    def __init__(self, machines: int = 1, **resources: float) -> None:
        self.machines = machines
        self.resources = resources

    def cluster_resources(self) -> dict[str, float]:
        return {name: self.machines * amount for name, amount in self.resources.items()}

    def nodes(self) -> list[dict[str, object]]:
        return [{"Resources": {}}, *[{"Resources": self.resources}] * self.machines]


def test_without_ray_the_message_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"`scale='ray'` needs Ray.*pip install 'ptune\[ray\]'"):
        import_ray()


def test_an_address_at_which_nothing_listens_is_named_at_once() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(ConfigError, match=rf"no Ray cluster at `ray_address='{address}'`: Connection refused"):
            cluster(address).__enter__()


@pytest.mark.parametrize("address", ["nonsense", "localhost:99999"])
def test_what_is_no_address_is_named(address) -> None:
    with pytest.raises(ConfigError, match=f"no Ray cluster at `ray_address='{address}'`"):
        cluster(address).__enter__()


def test_a_cluster_that_does_not_start_is_tried_again_and_then_an_error_with_its_reason(monkeypatch) -> None:
    ray, tries = import_ray(), []

    def fail(*_: object, **settings: object) -> None:
        assert settings["include_dashboard"] is False
        tries.append(1)
        raise Exception("The current node timed out.")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", fail)
    with pytest.raises(ConfigError, match="cannot start a cluster on this machine: The current node timed out; try"):
        cluster().__enter__()
    assert len(tries) == 3


def test_telemetry_is_off(monkeypatch) -> None:
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    import_ray()
    from ray._common.usage.usage_lib import usage_stats_enabled

    assert not usage_stats_enabled()


@pytest.mark.parametrize(
    ("resources", "count", "planned"),
    [
        ({"CPU": 8.0}, None, (8, 1, 0)),
        ({"CPU": 8.0}, 3, (3, 2, 0)),
        ({"CPU": 8.0, "GPU": 2.0}, None, (2, 4, 1)),
        ({"CPU": 8.0, "GPU": 2.0}, 4, (4, 2, 0.5)),
        ({"machines": 2, "CPU": 4.0}, 1, (1, 4, 0)),
    ],
)
def test_workers_share_what_the_cluster_has(resources, count, planned) -> None:
    workers = plan_workers(Cluster(**resources), count)
    assert (workers.count, workers.cpus, workers.gpus) == planned


def test_more_workers_than_cpus_are_refused() -> None:
    with pytest.raises(ConfigError, match="`workers` is 3, but the cluster has 2 CPUs; use at most 2"):
        plan_workers(Cluster(CPU=2.0), 3)


def test_the_cause_of_an_error_in_a_worker_is_found() -> None:
    inner = DataError("row 3 is broken")
    outer = RuntimeError("Ray failed")
    outer.cause = ValueError("UserCodeException")  # type: ignore[attr-defined]
    outer.cause.__cause__ = inner  # type: ignore[attr-defined]
    assert cause_of(outer) is inner
    assert str(cause_of(RuntimeError("lost"))) == "lost"
