"""Tokenization in threads of its own. Requests that come together are tokenized in one call.

A call of a tokenizer takes ten times as long as the text of a short request in it.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from ptune.data.encode import Encoded, TextEncoder
from ptune.data.template import Side

# Requests with more rows or characters have a thread of their own, so that they hold up no others.
MANY, LONG = 32, 20_000
# Rows and characters of such a request that are tokenized before the next one has its turn, and before it is seen that
# nobody waits for the answer any more.
TURN_ROWS, TURN_LENGTH = 256, 200_000


@dataclass(eq=False)
class _Job:
    encoder: TextEncoder
    texts: list[str]
    pairs: list[str] | None
    side: Side
    most: int | None  # tokens after which the rest is left out
    answer: asyncio.Future[list[Encoded]]
    rows: list[Encoded] = field(default_factory=list)  # so far
    tokens: int = 0  # of these

    @property
    def key(self) -> Hashable:
        """What jobs have in common that one call can tokenize."""
        return encoder_key(self.encoder), self.pairs is None, self.side


def encoder_key(encoder: TextEncoder) -> Hashable:
    """Return what the token ids of a text depend on. Adapters with the same key share them."""
    template = None if encoder.template is None else encoder.template.text
    return id(encoder.tokenizer), encoder.max_length, encoder.pair_separator, template


class Encoding:
    """Two threads that tokenize: one for short requests and one for long ones."""

    def __init__(self) -> None:
        self._lanes = (_Lane("short"), _LongLane("long"))

    async def encode(
        self,
        encoder: TextEncoder,
        texts: list[str],
        pairs: list[str] | None,
        side: Side = "right",
        most: int | None = None,
    ) -> list[Encoded]:
        """Return the token ids of texts, or of pairs.

        Args:
            encoder: tokenizes them.
            texts: the texts.
            pairs: the second texts.
            side: the end at which long texts are cut.
            most: tokens after which rows may be left out, because the request is refused anyway.

        Raises:
            DataError: see `TextEncoder.encode`.
        """
        answer = asyncio.get_running_loop().create_future()
        is_long = len(texts) > MANY or sum(map(len, texts)) + sum(map(len, pairs or ())) > LONG
        self._lanes[is_long].add(_Job(encoder, texts, pairs, side, most, answer))
        return await answer

    def close(self) -> None:
        """End the threads."""
        for lane in self._lanes:
            lane.close()


class _Lane:
    """A thread and the jobs that wait for it."""

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=f"ptune-encode-{name}")
        self._waiting: list[_Job] = []
        self._busy = False

    def add(self, job: _Job) -> None:
        self._waiting.append(job)
        if not self._busy:
            self._start()

    def _start(self) -> None:
        jobs, self._waiting = [job for job in self._waiting if not job.answer.done()], []
        if not jobs:
            return
        self._busy = True
        future = asyncio.get_running_loop().run_in_executor(self._pool, _encode_all, jobs)
        future.add_done_callback(lambda done: self._finish(done, jobs))

    def _finish(self, done: asyncio.Future[list[list[Encoded] | Exception]], jobs: Sequence[_Job]) -> None:
        self._busy = False
        if done.cancelled():
            return
        for job, result in zip(jobs, done.result(), strict=True):
            if job.answer.done():
                continue
            if isinstance(result, Exception):
                job.answer.set_exception(result)
            else:
                job.answer.set_result(result)
        self._start()

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


class _LongLane(_Lane):
    """A thread that tokenizes a part of each job in turn."""

    def _start(self) -> None:
        self._waiting = [job for job in self._waiting if not job.answer.done()]
        if not self._waiting:
            return
        job = self._waiting.pop(0)
        self._busy = True
        future = asyncio.get_running_loop().run_in_executor(self._pool, _encode_part, job)
        future.add_done_callback(lambda done: self._go_on(done, job))

    def _go_on(self, done: asyncio.Future[list[Encoded] | Exception], job: _Job) -> None:
        self._busy = False
        if done.cancelled():
            return
        result = done.result()
        if job.answer.done():
            pass  # nobody waits for it any more
        elif isinstance(result, Exception):
            job.answer.set_exception(result)
        else:
            job.rows += result
            job.tokens += sum(map(len, result))
            if len(job.rows) == len(job.texts) or (job.most is not None and job.tokens > job.most):
                job.answer.set_result(job.rows)
            else:
                self._waiting.append(job)
        self._start()


def _encode_part(job: _Job) -> list[Encoded] | Exception:
    """Return the next rows of a job, or the error that they cause."""
    first = last = len(job.rows)
    length = 0
    while last < len(job.texts) and last - first < TURN_ROWS and length < TURN_LENGTH:
        length += len(job.texts[last]) + (0 if job.pairs is None else len(job.pairs[last]))
        last += 1
    pairs = None if job.pairs is None else job.pairs[first:last]
    try:
        return job.encoder.encode(job.texts[first:last], pairs, job.side)
    except Exception as err:
        return err


def _encode_all(jobs: Sequence[_Job]) -> list[list[Encoded] | Exception]:
    """Return the rows of each job, or the error that it causes."""
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for number, job in enumerate(jobs):
        groups[job.key].append(number)
    results: dict[int, list[Encoded] | Exception] = {}
    for numbers in groups.values():
        together = [jobs[number] for number in numbers]
        try:
            rows = iter(_encode(together))
            results |= {number: [next(rows) for _ in jobs[number].texts] for number in numbers}
        except Exception:
            results |= {number: _encode_alone(jobs[number]) for number in numbers}
    return [results[number] for number in range(len(jobs))]


def _encode(jobs: Sequence[_Job]) -> list[Encoded]:
    first = jobs[0]
    texts = [text for job in jobs for text in job.texts]
    pairs = None if first.pairs is None else [pair for job in jobs for pair in job.pairs or ()]
    return first.encoder.encode(texts, pairs, first.side)


def _encode_alone(job: _Job) -> list[Encoded] | Exception:
    try:
        return _encode([job])
    except Exception as err:
        return err
