"""Tokenization in threads of its own. Requests that come together are tokenized in one call.

A call of a tokenizer takes ten times as long as the text of a short request in it.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ptune.data.encode import Encoded, TextEncoder
from ptune.data.template import Side

# Requests with more rows or characters have a thread of their own, so that they hold up no others.
MANY, LONG = 32, 20_000


@dataclass(eq=False)
class _Job:
    encoder: TextEncoder
    texts: list[str]
    pairs: list[str] | None
    side: Side
    answer: asyncio.Future[list[Encoded]]

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
        self._lanes = (_Lane("short"), _Lane("long"))

    async def encode(
        self, encoder: TextEncoder, texts: list[str], pairs: list[str] | None, side: Side = "right"
    ) -> list[Encoded]:
        """Return the token ids of texts, or of pairs.

        Raises:
            DataError: see `TextEncoder.encode`.
        """
        answer = asyncio.get_running_loop().create_future()
        is_long = len(texts) > MANY or sum(map(len, texts)) + sum(map(len, pairs or ())) > LONG
        self._lanes[is_long].add(_Job(encoder, texts, pairs, side, answer))
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
