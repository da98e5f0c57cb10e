"""What becomes of requests when a server gets more than it can answer; a part of benchmarks/serving.py."""

from __future__ import annotations

import argparse
import asyncio
import statistics
from collections.abc import Sequence

from common import Cell
from servers import ServerProcess, load

from ptune.data.texts import Text
from ptune.serving.connection import Server
from ptune.serving.load import LoadConfig, questions
from ptune.serving.loadtest import Answer, LoadReport, Tally, drive


def measure_capacity(
    server: ServerProcess, names: Sequence[str], texts: Sequence[Text], options: argparse.Namespace
) -> Cell:
    """Return what becomes of requests at 80 % of capacity, at three times capacity, and right after it."""
    asked = names[: max(options.counts)]
    settings = {"connections": options.connections, "warmup": 0.5}
    capacity = load(server.url, asked, texts, duration=options.seconds, **settings).throughput
    settings = {"warmup": 0.5, "connections": 4000}
    table: Cell = {"capacity": {"requests_per_second": capacity}}
    usual = load(server.url, asked, texts, rate=0.8 * capacity, duration=2 * options.seconds, **settings)
    table["80 %"] = _shares(usual)
    answers: list[Answer] = []
    over, after = asyncio.run(_overload(server, asked, texts, capacity, options.seconds, answers))
    table["three times"] = _shares(over)
    assert usual.latency_ms is not None
    table["half, right after"] = {**_shares(after), **_recovery(answers, usual.latency_ms.p99)}
    return table


async def _overload(
    server: ServerProcess,
    asked: Sequence[str],
    texts: Sequence[Text],
    capacity: float,
    seconds: float,
    answers: list[Answer],
) -> tuple[LoadReport, LoadReport]:
    """Send three times the capacity, and half of it from the moment at which that ends. Collects the later answers."""
    settings = {"warmup": 0, "connections": 4000}
    over = LoadConfig(rate=3 * capacity, duration=2 * seconds, **settings)
    after = LoadConfig(rate=0.5 * capacity, duration=3, seed=2, **settings)
    tallies, target = (Tally(), Tally()), Server.at(server.url)

    async def later() -> None:
        await asyncio.sleep(over.duration)
        await drive(target, questions(after, asked, texts), after, tallies[1], answers.append)

    await asyncio.gather(drive(target, questions(over, asked, texts), over, tallies[0]), later())
    return tallies[0].report(over.rate), tallies[1].report(after.rate)


def _recovery(answers: Sequence[Answer], usual_p99: float) -> Cell:
    """Return for how many seconds requests were still refused, and half of them slower than is usual.

    Args:
        answers: to requests after the overload.
        usual_p99: milliseconds.
    """
    begun = min(answer.due for answer in answers)
    windows: dict[int, list[float]] = {}
    for answer in answers:
        windows.setdefault(int(10 * (answer.due - begun)), []).append(1000 * (answer.done - answer.due))
    slow = [number + 1 for number, values in windows.items() if statistics.median(values) > usual_p99]
    refused = [answer.due - begun for answer in answers if answer.status != 200]
    return {"refused_until_s": round(max(refused, default=0.0), 2), "slow_until_s": max(slow, default=0) / 10}


def _shares(done: LoadReport) -> Cell:
    """Return latency of the accepted, and share and latency of the refused."""
    accepted, refused = done.statuses.get("200", 0), done.statuses.get("429", 0)
    assert done.latency_ms is not None
    cell = {
        "offered_per_second": round(done.requests / done.seconds, 1),
        "answered_per_second": done.throughput,
        "share_429": round(refused / max(1, done.requests), 4),
        "others": done.requests - accepted - refused,
        "p50_ms": done.latency_ms.p50,
        "p99_ms": done.latency_ms.p99,
    }
    if done.refused_ms is not None:
        cell |= {"p50_429_ms": done.refused_ms.p50, "p99_429_ms": done.refused_ms.p99}
    return cell
