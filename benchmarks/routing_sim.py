"""Simulate which replica answers for which adapter: hit rate of the banks, balance, adapters that move.

    python benchmarks/routing_sim.py --write

Requests name adapters whose frequencies follow Zipf's law. Each replica keeps the adapters it used last, as
`ptune serve` does (`ptune.serving.bank`). Halfway a replica joins, and later one leaves. The policies:

    random, round_robin   any replica; the adapters are not looked at
    modulo                the hash of the adapter, modulo the number of replicas
    consistent            a ring with 64 points for each replica (Karger et al., 1997)
    rendezvous            the replica with the highest hash of both (Thaler and Ravishankar, 1996)
    bounded               rendezvous, but a replica that has more than 1.25 times its share of the requests under way
                          passes them on to the next one (Mirrokni et al., arXiv:1608.01350)
    holders               of two replicas that hold the adapter the one with fewer requests; of any two if none does

No model is run and no clock is read, so the same numbers come out everywhere.
"""

from __future__ import annotations

import argparse
import math
import random
from bisect import bisect
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any

import numpy as np
from common import facts, write_results

POINTS = 64  # of a replica on the ring
BOUND = 1.25
_MASK = 2**64 - 1


def mix(value: int) -> int:
    """Return a hash of 64 bits: the finalizer of SplitMix64."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


class Cluster:
    """Replicas with their banks, and how many of the last requests each has got.

    Args:
        replicas: their ids.
        bank: adapters that a replica holds.
        under_way: requests that are being answered at any time.
    """

    def __init__(self, replicas: Sequence[int], bank: int, under_way: int) -> None:
        self.replicas = list(replicas)
        self.bank = bank
        self.under_way: deque[int] = deque(maxlen=under_way)
        self.load = dict.fromkeys(replicas, 0)
        self.banks: dict[int, OrderedDict[int, None]] = {replica: OrderedDict() for replica in replicas}
        self.holders: dict[int, set[int]] = {}

    def join(self, replica: int) -> None:
        self.replicas.append(replica)
        self.load[replica] = 0
        self.banks[replica] = OrderedDict()

    def leave(self, replica: int) -> None:
        self.replicas.remove(replica)
        for adapter in self.banks.pop(replica):
            self.holders[adapter].discard(replica)
        self.under_way = deque((r for r in self.under_way if r != replica), self.under_way.maxlen)
        del self.load[replica]

    def answer(self, replica: int, adapter: int) -> bool:
        """Give a request to a replica, and return whether it holds the adapter already."""
        if len(self.under_way) == self.under_way.maxlen:
            self.load[self.under_way[0]] -= 1
        self.under_way.append(replica)
        self.load[replica] += 1
        return self.use(replica, adapter)

    def use(self, replica: int, adapter: int) -> bool:
        bank = self.banks[replica]
        if adapter in bank:
            bank.move_to_end(adapter)
            return True
        bank[adapter] = None
        self.holders.setdefault(adapter, set()).add(replica)
        if len(bank) > self.bank:
            gone, _ = bank.popitem(last=False)
            self.holders[gone].discard(replica)
        return False


class Policy:
    """Chooses a replica for each request."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self.cluster = cluster
        self.draw = random.Random(seed)
        self.changed()

    def changed(self) -> None:
        """Take in that replicas have joined or left."""

    def home(self, adapter: int) -> int | None:  # noqa: ARG002
        """Return the replica that an adapter belongs to; None if it belongs to none."""
        return None

    def choose(self, adapter: int) -> int:
        home = self.home(adapter)
        assert home is not None
        return home


class Random(Policy):
    def choose(self, adapter: int) -> int:  # noqa: ARG002
        return self.draw.choice(self.cluster.replicas)


class RoundRobin(Policy):
    def changed(self) -> None:
        self.turn = count()

    def choose(self, adapter: int) -> int:  # noqa: ARG002
        return self.cluster.replicas[next(self.turn) % len(self.cluster.replicas)]


class Modulo(Policy):
    def home(self, adapter: int) -> int:
        return self.cluster.replicas[mix(adapter) % len(self.cluster.replicas)]


class Consistent(Policy):
    def changed(self) -> None:
        ring = sorted(
            (mix(replica << 32 | point), replica) for replica in self.cluster.replicas for point in range(POINTS)
        )
        self.places = [place for place, _ in ring]
        self.owners = [replica for _, replica in ring]

    def home(self, adapter: int) -> int:
        return self.owners[bisect(self.places, mix(adapter)) % len(self.owners)]


class Rendezvous(Policy):
    def changed(self) -> None:
        self.salts = np.array([mix(~replica & _MASK) for replica in self.cluster.replicas], np.uint64)
        self.orders: dict[int, list[int]] = {}

    def order(self, adapter: int) -> list[int]:
        """Return the replicas for an adapter, the first choice first."""
        found = self.orders.get(adapter)
        if found is None:
            value = self.salts ^ np.uint64(mix(adapter))
            value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            value ^= value >> np.uint64(31)
            found = self.orders[adapter] = [self.cluster.replicas[place] for place in np.argsort(value)[::-1]]
        return found

    def home(self, adapter: int) -> int:
        return self.order(adapter)[0]


class Bounded(Rendezvous):
    def choose(self, adapter: int) -> int:
        cluster = self.cluster
        most = math.ceil(BOUND * (len(cluster.under_way) + 1) / len(cluster.replicas))
        order = self.order(adapter)
        return next((replica for replica in order if cluster.load[replica] < most), order[0])


class Holders(Policy):
    def choose(self, adapter: int) -> int:
        cluster = self.cluster
        known = sorted(cluster.holders.get(adapter, ())) or cluster.replicas
        return min((self.draw.choice(known) for _ in range(2)), key=cluster.load.__getitem__)


POLICIES: dict[str, type[Policy]] = {
    "random": Random,
    "round_robin": RoundRobin,
    "modulo": Modulo,
    "consistent": Consistent,
    "rendezvous": Rendezvous,
    "bounded": Bounded,
    "holders": Holders,
}


def requests(adapters: int, exponent: float, number: int, seed: int) -> list[int]:
    """Return the adapters that requests ask for. Adapter 0 is the most frequent one."""
    weights = np.cumsum(1 / np.arange(1, adapters + 1) ** exponent)
    draws = np.random.default_rng(seed).random(number) * weights[-1]
    return np.searchsorted(weights, draws).tolist()


def simulate(name: str, asked: Sequence[int], options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of a policy.

    The banks begin with the most frequent adapters. A tenth of the requests passes before anything is counted. After
    four tenths a replica joins, and after seven one leaves.
    """
    cluster = Cluster(range(options.replicas), options.bank, options.under_way * options.replicas)
    policy = POLICIES[name](cluster, options.seed)
    fill(cluster, policy, options)
    tenth = len(asked) // 10
    sample = range(min(options.adapters, 20_000))
    result: dict[str, Any] = {}

    def run(part: Sequence[int]) -> tuple[float, float]:
        """Answer requests, and return the share of hits and the most requests of a replica, in terms of the mean."""
        hits, counts = 0, dict.fromkeys(cluster.replicas, 0)
        peaks: list[float] = []
        window = options.under_way * options.replicas
        for number, adapter in enumerate(part, 1):
            replica = policy.choose(adapter)
            counts[replica] += 1
            hits += cluster.answer(replica, adapter)
            if number % window == 0:
                peaks.append(max(cluster.load.values()) * len(cluster.load) / window)
        result["busiest"] = round(max(counts.values()) * len(counts) / len(part), 2)
        return hits / len(part), float(np.mean(peaks)) if peaks else 0.0

    def change(what: Callable[[], None], part: Sequence[int]) -> tuple[float, float]:
        """Return the share of the adapters that move in a change, and the hit rate right after it."""
        before = [policy.home(adapter) for adapter in sample]
        what()
        policy.changed()
        moved = sum(old != policy.home(adapter) for adapter, old in zip(sample, before, strict=True)) / len(sample)
        return moved, run(part)[0]

    run(asked[:tenth])
    hit_rate, peak = run(asked[tenth : 4 * tenth])
    steady = {"hit_rate": round(hit_rate, 4), "busiest": result["busiest"], "busiest_at_a_time": round(peak, 2)}
    copies = [len(cluster.holders[adapter]) for adapter in range(options.adapters) if cluster.holders.get(adapter)]
    soon = tenth // 10
    joined = change(lambda: cluster.join(options.replicas), asked[4 * tenth : 4 * tenth + soon])
    run(asked[4 * tenth + soon : 7 * tenth])
    left = change(lambda: cluster.leave(0), asked[7 * tenth : 7 * tenth + soon])
    hit_rate, _ = run(asked[7 * tenth + soon :])
    return {
        **steady,
        "adapters_in_memory": len(copies),
        "copies_of_one": round(float(np.mean(copies)), 2),
        "moved_by_join": round(joined[0], 4) if policy.home(0) is not None else None,
        "hit_rate_after_join": round(joined[1], 4),
        "moved_by_leave": round(left[0], 4) if policy.home(0) is not None else None,
        "hit_rate_after_leave": round(left[1], 4),
        "hit_rate_at_end": round(hit_rate, 4),
    }


def fill(cluster: Cluster, policy: Policy, options: argparse.Namespace) -> None:
    """Fill the banks with the most frequent adapters: at home, or everywhere if they belong to no replica."""
    if policy.home(0) is None and not isinstance(policy, Holders):
        for replica in cluster.replicas:
            for adapter in reversed(range(min(options.bank, options.adapters))):
                cluster.use(replica, adapter)
        return
    for adapter in reversed(range(min(options.bank * options.replicas, options.adapters))):
        home = policy.home(adapter)
        cluster.use(cluster.replicas[adapter % options.replicas] if home is None else home, adapter)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapters", type=int, default=1_000_000)
    parser.add_argument("--replicas", type=int, default=64)
    parser.add_argument("--banks", type=int, nargs="+", default=[1_440, 11_500], help="adapters that a replica holds")
    parser.add_argument("--exponents", type=float, nargs="+", default=[1.0, 0.8], help="of Zipf's law")
    parser.add_argument("--requests", type=int, default=500_000)
    parser.add_argument("--under-way", type=int, default=32, help="requests that a replica answers at a time")
    parser.add_argument("--policies", nargs="+", default=list(POLICIES), choices=list(POLICIES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="write a dated file into benchmarks/results")
    options = parser.parse_args(arguments)
    tables = dict(_tables(options))
    if options.write:
        asked = {name: value for name, value in vars(options).items() if name not in ("write", "bank")}
        write_results("routing_sim", {"facts": facts(), "options": asked, "tables": tables})
    return tables


def _tables(options: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    for exponent in options.exponents:
        asked = requests(options.adapters, exponent, options.requests, options.seed)
        for bank in options.banks:
            options.bank = bank
            title = f"exponent {exponent:g}, {bank} adapters a replica"
            print(f"{title}:")
            table = {}
            for name in options.policies:
                table[name] = simulate(name, asked, options)
                print(f"  {name:12}", ", ".join(f"{key} {value}" for key, value in table[name].items()), flush=True)
            yield title, table


if __name__ == "__main__":
    main()
