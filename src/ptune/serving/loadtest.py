"""Send load to a running server and measure how it answers.

With a rate, requests are sent at random times (a Poisson process) whether or not earlier ones have been answered: an
open loop. A slow server is then asked as often as a fast one, and the wait for its answers counts from the moment at
which a request was due. Without a rate, each connection sends its next request when it has an answer: a closed loop,
which finds the highest throughput.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ptune.errors import ConfigError, cut, short
from ptune.serving.connection import Connection, Server
from ptune.serving.load import LoadConfig, Question

_OK, _BUSY, _NOT_READY = 200, 429, 503
# Seconds that a connection waits after a refusal before its next request. Otherwise the load test would measure how
# fast a server refuses.
REFUSED_PAUSE = 0.25


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a request. Times are those of `time.perf_counter`.

    Attributes:
        question: the request.
        due: when it should have been sent.
        sent: when it was sent.
        done: when the answer had arrived.
        status: the HTTP status, or why there is none: "timeout", "connection failed" or "not HTTP".
        content: the body of the answer.
    """

    question: Question
    due: float
    sent: float
    done: float
    status: int | str
    content: bytes


@dataclass(frozen=True)
class Latency:
    """Milliseconds: the mean, percentiles, and the longest."""

    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Latency | None:
        """Return the latency over requests, None if there are none."""
        if not seconds:
            return None
        ordered = sorted(seconds)
        places = (max(0, -(-len(ordered) * share // 100) - 1) for share in (50, 90, 95, 99, 100))
        values = [sum(ordered) / len(ordered), *(ordered[place] for place in places)]
        return cls(*(round(1000 * value, 3) for value in values))


@dataclass(frozen=True)
class LoadReport:
    """What a load test measured.

    Attributes:
        seconds: length of the measurement.
        rate: requests per second that were asked for; None for as many as possible.
        requests: requests that were due in this time.
        throughput: requests per second that were answered with 200.
        rows_per_second: pairs of a text and an adapter per second that were answered with 200.
        statuses: how many requests ended with which status.
        latency_ms: of answers with 200, from when the request was due.
        refused_ms: of answers with 429.
        not_sent: requests that found no free connection.
        lateness_ms: how late requests were sent. Large values mean that this program could not keep up.
        adapters: how many different adapters were asked.
        errors: the first answer of each status other than 200 and 429, cut.
    """

    seconds: float
    rate: float | None
    requests: int
    throughput: float
    rows_per_second: float
    statuses: dict[str, int]
    latency_ms: Latency | None
    refused_ms: Latency | None
    not_sent: int
    lateness_ms: Latency | None
    adapters: int
    errors: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return asdict(self)


@dataclass
class Tally:
    """Collects the answers of a load test.

    Attributes:
        start, end: the time that is measured; requests that were due in it are counted.
        not_sent: requests that found no free connection.
    """

    start: float = 0.0
    end: float = 0.0
    not_sent: int = 0
    answers: list[tuple[float, float, float, int | str]] = field(default_factory=list)
    adapters: set[str] = field(default_factory=set)
    errors: dict[str, str] = field(default_factory=dict)
    done: int = 0
    rows: int = 0

    def add(self, answer: Answer) -> None:
        """Count an answer."""
        if answer.status == _OK and self.start <= answer.done < self.end:
            self.done += 1
            self.rows += answer.question.rows
        if self.start <= answer.due < self.end:
            self.answers.append((answer.due, answer.sent, answer.done, answer.status))
            self.adapters.update(answer.question.adapters)
            if answer.content and answer.status not in (_OK, _BUSY):
                self.errors.setdefault(str(answer.status), cut(answer.content.decode(errors="replace"), 300))

    def skip(self, due: float) -> None:
        """Count a request that found no free connection."""
        self.not_sent += self.start <= due < self.end

    def report(self, rate: float | None) -> LoadReport:
        """Return the report over the answers so far."""
        seconds = max(min(self.end, time.perf_counter()) - self.start, 1e-9)
        return LoadReport(
            seconds=round(seconds, 3),
            rate=rate,
            requests=len(self.answers) + self.not_sent,
            throughput=round(self.done / seconds, 2),
            rows_per_second=round(self.rows / seconds, 2),
            statuses={str(status): count for status, count in Counter(row[3] for row in self.answers).most_common()},
            latency_ms=Latency.of([done - due for due, _, done, status in self.answers if status == _OK]),
            refused_ms=Latency.of([done - due for due, _, done, status in self.answers if status == _BUSY]),
            not_sent=self.not_sent,
            lateness_ms=None if rate is None else Latency.of([sent - due for due, sent, _, _ in self.answers]),
            adapters=len(self.adapters),
            errors=self.errors,
        )


async def drive(
    server: Server,
    asked: Iterator[Question],
    config: LoadConfig,
    tally: Tally,
    on_answer: Callable[[Answer], None] | None = None,
) -> None:
    """Send requests until the time is over, and wait for the answers that are still missing.

    Args:
        server: where to.
        asked: requests without end, see `questions`.
        config: rate, connections, duration.
        tally: counts the answers.
        on_answer: called with each answer, also those of the warm-up.
    """
    tally.start = time.perf_counter() + config.warmup
    tally.end = tally.start + config.duration

    def note(answer: Answer) -> None:
        tally.add(answer)
        if on_answer is not None:
            on_answer(answer)

    if config.rate is None:
        await _closed_loop(server, asked, config, tally.end, note)
    else:
        await _open_loop(server, asked, config, tally, note)


async def _closed_loop(
    server: Server, asked: Iterator[Question], config: LoadConfig, end: float, note: Callable[[Answer], None]
) -> None:
    async def work() -> None:
        connection = Connection(server)
        while (now := time.perf_counter()) < end:
            answer = await _send(connection, next(asked), now, config.timeout)
            note(answer)
            if answer.status in (_BUSY, _NOT_READY) or not answer.content:
                await asyncio.sleep(REFUSED_PAUSE)
        connection.close()

    await asyncio.gather(*(work() for _ in range(config.most_connections)))


async def _open_loop(
    server: Server, asked: Iterator[Question], config: LoadConfig, tally: Tally, note: Callable[[Answer], None]
) -> None:
    assert config.rate is not None
    gaps = random.Random(config.seed + 1)
    idle: list[Connection] = []
    tasks: set[asyncio.Task[None]] = set()

    async def work(question: Question, due: float) -> None:
        connection = idle.pop() if idle else Connection(server)  # the last one used is the least likely to be closed
        note(await _send(connection, question, due, config.timeout))
        idle.append(connection)

    due = time.perf_counter()
    while (due := due + gaps.expovariate(config.rate)) < tally.end:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        if len(tasks) >= config.most_connections:
            tally.skip(due)
            continue
        task = asyncio.create_task(work(next(asked), due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.sleep(max(0.0, tally.end - time.perf_counter()))  # no request is due any more, but time is measured
    await asyncio.gather(*tasks)
    for connection in idle:
        connection.close()


async def _send(connection: Connection, question: Question, due: float, timeout: float) -> Answer:
    """Send a request and return its answer, or why there is none."""
    sent = time.perf_counter()
    status: int | str
    content = b""
    try:
        async with asyncio.timeout(timeout):
            reply = await connection.post(question.path, question.body)
        status, content = reply.status, reply.content
    except TimeoutError:
        status = "timeout"
    except OSError:
        status = "connection failed"
    except ValueError:
        status = "not HTTP"
    return Answer(question, due, sent, time.perf_counter(), status, content)


async def served_adapters(server: Server, timeout: float = 30.0) -> list[dict[str, Any]]:
    """Return what the server says of its adapters: dicts with at least a "name".

    Raises:
        ConfigError: the server cannot be reached, wants another key, or is not a ptune server.
    """
    url = f"{'https' if server.secure else 'http'}://{server.host}:{server.port}{server.path}"
    connection = Connection(server)
    try:
        async with asyncio.timeout(timeout):
            reply = await connection.get("/adapters")
    except TimeoutError as err:
        raise ConfigError(f"the server at {url} gave no answer for {timeout:g} s; is it overloaded?") from err
    except OSError as err:
        reason = os.strerror(err.errno).lower() if err.errno and err.errno > 0 else str(err)
        raise ConfigError(f"no server answers at {url}: {reason}; start one with: ptune serve DIR") from err
    except ValueError as err:
        raise ConfigError(f"what answers at {url} does not speak HTTP: {err}; check the port") from err
    finally:
        connection.close()
    if reply.status in (401, 403):
        raise ConfigError(f"the server at {url} asks for an API key; put it into the environment as PTUNE_KEY")
    listed = _listed(reply.content) if reply.status == _OK else None
    if listed is None:
        raise ConfigError(
            f"what answers at {url} is not `ptune serve`: GET /adapters gives status {reply.status} and "
            f"{short(reply.content, 80)}; check the address"
        )
    return listed


def _listed(content: bytes) -> list[dict[str, Any]] | None:
    """Return the adapters that an answer lists, None if it is another answer."""
    try:
        answer = json.loads(content)
        adapters = answer["adapters"] if isinstance(answer, dict) else answer
        return adapters if all(isinstance(one["name"], str) for one in adapters) else None
    except (ValueError, KeyError, TypeError):
        return None
