"""The simulation of routing: banks forget what they used longest ago, and each policy moves what it should."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SMALL = ["--adapters", "2000", "--replicas", "8", "--banks", "40", "--requests", "8000", "--exponents", "1.0"]


@pytest.fixture(scope="module")
def simulation() -> Iterator[ModuleType]:
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield importlib.import_module("routing_sim")
    for name in {"routing_sim", "common"} - before:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def table(simulation) -> dict[str, dict[str, float]]:
    return simulation.main(SMALL)["exponent 1, 40 adapters a replica"]


def test_a_bank_forgets_the_adapter_that_was_not_used_for_the_longest_time(simulation) -> None:
    cluster = simulation.Cluster([7], bank=2, under_way=3)
    assert [cluster.answer(7, adapter) for adapter in (1, 2, 1, 3, 1, 2)] == [False, False, True, False, True, False]
    assert set(cluster.banks[7]) == {1, 2}
    assert cluster.load == {7: 3}  # of the last three requests


def test_requests_follow_zipfs_law(simulation) -> None:
    asked = simulation.requests(1000, 1.0, 200_000, 0)
    assert 1.8 < asked.count(0) / asked.count(1) < 2.2
    assert 9 < asked.count(0) / asked.count(9) < 11


def test_routing_by_adapter_finds_more_adapters_in_memory_than_chance(table) -> None:
    assert table["rendezvous"]["hit_rate"] > table["random"]["hit_rate"] + 0.2
    assert table["rendezvous"]["copies_of_one"] == 1.0


def test_only_the_adapters_of_the_replica_that_came_or_went_move(table) -> None:
    for name in ("rendezvous", "consistent", "bounded"):
        assert table[name]["moved_by_join"] == pytest.approx(1 / 9, abs=0.05)
        assert table[name]["moved_by_leave"] == pytest.approx(1 / 9, abs=0.05)
    assert table["modulo"]["moved_by_join"] > 0.8
    assert table["random"]["moved_by_join"] is None


def test_a_bound_keeps_the_busiest_replica_near_its_share(table) -> None:
    assert table["bounded"]["busiest"] <= 1.3 < table["rendezvous"]["busiest"]
    assert table["bounded"]["hit_rate"] > table["random"]["hit_rate"]


def test_the_same_seed_gives_the_same_numbers(simulation, table) -> None:
    again = simulation.main([*SMALL, "--policies", "random", "bounded"])["exponent 1, 40 adapters a replica"]
    assert again == {name: table[name] for name in again}


def test_a_replica_that_left_gets_no_requests(simulation) -> None:
    cluster = simulation.Cluster([0, 1, 2], bank=5, under_way=4)
    for name, policy in simulation.POLICIES.items():
        chooser = policy(cluster, 0)
        for adapter in range(20):
            cluster.answer(chooser.choose(adapter), adapter)
        assert set(cluster.banks) == {0, 1, 2}, name
    cluster.leave(1)
    for name, policy in simulation.POLICIES.items():
        chooser = policy(cluster, 0)
        assert {chooser.choose(adapter) for adapter in range(50)} <= {0, 2}, name
