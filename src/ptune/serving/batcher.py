"""The queue in front of the model: rows of many requests become batches.

A request is a ticket. Its rows wait in the queue until a thread of the model is free, which then takes as many rows as
suit the device. A ticket with many rows queues up again after a few of them, so that a request with one text does not
wait for one with ten thousand.

How long a new request would wait is known from the tokens in front of it and the measured speed. Where that is too
long, it is refused at once; `Overload` says what is too long.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch import Tensor

from ptune.data.encode import Encoded
from ptune.errors import PtuneError, RequestError
from ptune.serving.bank import Loaded
from ptune.serving.overload import Overload

logger = logging.getLogger(__name__)

# Rows that a ticket may take from a batch before it is another ticket's turn.
TURN = 16
# How fast the measured speed follows: the weight of the newest batch.
_NEWEST = 0.1
# Under an overload, requests may wait until so many rows are done: half of them are being computed and half wait,
# because small batches are slow.
_OVERLOAD_ROWS = 16

Pair = tuple[int, int]


@dataclass(eq=False)
class Ticket:
    """The rows of a request.

    Attributes:
        loaded: the adapters that are asked.
        encoded: the rows as token ids.
        pairs: which row is asked of which adapter, by index.
        deadline: on the clock of the event loop.
        answer: the logits of each pair [C_i], in their order.
    """

    loaded: Sequence[Loaded]
    encoded: Sequence[Encoded]
    pairs: Sequence[Pair]
    deadline: float
    answer: asyncio.Future[list[Tensor]]
    submitted: float = 0.0
    started: float = 0.0  # when the first of its rows was
    finished: float = 0.0
    taken: int = 0  # pairs that left the queue
    open: int = 0  # pairs that are being computed
    turn: int = 0  # tokens of the pairs of the next turn
    logits: list[Tensor | None] = field(default_factory=list)

    def tokens(self, start: int, end: int) -> int:
        """Return the tokens of some pairs."""
        return sum(len(self.encoded[row]) for row, _ in self.pairs[start:end])


# Pairs of a ticket from one index to another.
Part = tuple[Ticket, int, int]
Compute = Callable[[Sequence[Part]], list["list[Tensor] | PtuneError"]]


@dataclass(frozen=True)
class Limits:
    """Bounds of the queue and of batches.

    Attributes:
        batch_tokens, batch_rows: of what is computed at a time.
        queue_rows: rows that may wait.
        max_wait: seconds that a new request may have to wait, fewer while the server is overloaded.
    """

    batch_tokens: int
    batch_rows: int
    queue_rows: int
    max_wait: float


def too_late() -> RequestError:
    """Return the error of a request whose time is over."""
    message = "the request was not answered in time; try again later, or send fewer rows"
    return RequestError(message, 504, kind="Overloaded")


class Batcher:
    """Tickets that wait, and those that are being computed. All methods belong to the event loop.

    Args:
        compute: computes parts of tickets in a thread, and returns the logits of each part or what went wrong with it.
        limits: bounds of queue and batches.
        threads: threads that run the model: one, or as many as the backbone keeps passes under way.
    """

    def __init__(self, compute: Compute, limits: Limits, threads: int = 1) -> None:
        self.limits = limits
        self.threads = threads
        self.rows = 0  # that wait
        self.tokens = 0  # that wait
        self.busy_tokens = 0  # that are being computed
        self.on_batch: Callable[[int, int], None] | None = None  # is told the rows and tokens of each batch
        self._compute = compute
        self._queue: deque[Ticket] = deque()
        self._turns = 0  # tokens of the next turn of all tickets
        self._ends: dict[int, float] = {}  # when the batches that are being computed should be done
        self._seconds_a_token: float | None = None
        self._tickets = 0  # that wait or are being computed
        self._requests = 0  # that were let in
        self._tokens_a_ticket = 0.0
        self._overload = Overload(limits.max_wait)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="ptune-model")

    def wait(self) -> float:
        """Return the seconds that a new request would wait for its turn, as far as is known."""
        now = time.perf_counter()
        busy = sum(max(0.0, end - now) for end in self._ends.values()) / self.threads
        return busy + self._turns * (self._seconds_a_token or 0.0)

    @contextmanager
    def let_in(self) -> Iterator[None]:
        """Count a request from before it is read until it is answered.

        Requests that come at the same time would otherwise all be let in before the first of them is in the queue.

        Raises:
            RequestError: as `check_room`.
        """
        coming = self._requests - self._tickets  # let in, and not in the queue yet
        self.check_room(1, coming * self._tokens_a_ticket * (self._seconds_a_token or 0.0))
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1

    async def submit(
        self, loaded: Sequence[Loaded], encoded: Sequence[Encoded], pairs: Sequence[Pair], deadline: float
    ) -> Ticket:
        """Compute the logits of pairs of a row and an adapter, and return their ticket. A caller that is cancelled
        takes its rows out of the queue.

        Raises:
            RequestError: the queue is full (429), or the deadline has passed (504).
            PtuneError: an adapter gives no finite numbers, or the device has no memory for a row.
        """
        loop = asyncio.get_running_loop()
        ticket = Ticket(loaded, encoded, pairs, deadline, loop.create_future(), submitted=loop.time())
        if not pairs:
            ticket.started = ticket.finished = ticket.submitted
            ticket.answer.set_result([])
            return ticket
        self._admit(ticket)
        self._tickets += 1
        self._start_batches()
        try:
            async with asyncio.timeout_at(deadline):
                await ticket.answer
        except TimeoutError:
            raise too_late() from None
        finally:
            self._tickets -= 1
            if not ticket.finished:
                self._forget(ticket)
        return ticket

    def check_room(self, rows: int, coming: float = 0.0) -> None:
        """Check that a new request would be taken.

        Args:
            rows: of the request.
            coming: seconds that requests take which will be in the queue before it.

        Raises:
            RequestError: it would have to wait too long, or there are too many rows (429).
        """
        if not self._queue and not coming:
            return
        if self.rows + rows > self.limits.queue_rows:
            raise self._busy_error()
        tokens = self.tokens / self.rows if self.rows else self._tokens_a_ticket
        least = _OVERLOAD_ROWS * tokens * (self._seconds_a_token or 0.0)
        if self.wait() + coming > self._overload.longest_wait(least):
            self._overload.note_refusal()
            raise self._busy_error()

    def _busy_error(self) -> RequestError:
        message = "the server is busy: too many rows are waiting; try again later"
        return RequestError(message, 429, retry_after=max(1, math.ceil(self.wait())))

    def _admit(self, ticket: Ticket) -> None:
        """Put a ticket into the queue.

        Raises:
            RequestError: it would have to wait too long, or there are too many rows (429).
        """
        rows, tokens = len(ticket.pairs), ticket.tokens(0, len(ticket.pairs))
        self.check_room(rows)
        ready = ticket.submitted + self.wait() + (self.tokens + tokens) * (self._seconds_a_token or 0.0)
        if self._queue and ready > ticket.deadline:
            raise self._busy_error()
        self._tokens_a_ticket += _NEWEST * (tokens - self._tokens_a_ticket) if self._tokens_a_ticket else tokens
        ticket.logits = [None] * rows
        self.rows += rows
        self.tokens += tokens
        self._set_turn(ticket)
        self._queue.append(ticket)

    def _set_turn(self, ticket: Ticket) -> None:
        """Note how many tokens a ticket takes at its next turn."""
        self._turns -= ticket.turn
        ticket.turn = ticket.tokens(ticket.taken, min(ticket.taken + TURN, len(ticket.pairs)))
        self._turns += ticket.turn

    def _forget(self, ticket: Ticket) -> None:
        """Take what still waits of a ticket out of the queue."""
        waiting = len(ticket.pairs) - ticket.taken
        if waiting:
            self.rows -= waiting
            self.tokens -= ticket.tokens(ticket.taken, len(ticket.pairs))
            ticket.taken = len(ticket.pairs)
            self._set_turn(ticket)
            self._queue.remove(ticket)

    def _start_batches(self) -> None:
        loop = asyncio.get_running_loop()
        while self._queue and len(self._ends) < self.threads:
            parts = self._take(loop.time())
            if not parts:
                return
            tokens = sum(ticket.tokens(start, end) for ticket, start, end in parts)
            self.busy_tokens += tokens
            if self.on_batch is not None:
                self.on_batch(sum(end - start for _, start, end in parts), tokens)
            begun = time.perf_counter()
            self._ends[id(parts)] = begun + tokens * (self._seconds_a_token or 0.0) * self.threads
            future = loop.run_in_executor(self._pool, self._compute, parts)
            future.add_done_callback(lambda done, p=parts, t=tokens, b=begun: self._finish(done, p, t, b))  # type: ignore[misc]

    def _take(self, now: float) -> list[Part]:
        """Take the parts of the next batch out of the queue."""
        parts: list[Part] = []
        rows = tokens = 0
        while self._queue:
            ticket = self._queue[0]
            if ticket.deadline <= now:  # its caller has been told, or is about to be
                self._forget(ticket)
                continue
            start = end = ticket.taken
            last = min(start + TURN, len(ticket.pairs))
            while end < last and rows < self.limits.batch_rows:
                length = len(ticket.encoded[ticket.pairs[end][0]])
                if rows and tokens + length > self.limits.batch_tokens:
                    break
                rows, tokens, end = rows + 1, tokens + length, end + 1
            if end == start:
                break
            parts.append((ticket, start, end))
            self._leave(ticket, end, now)
        return parts

    def _leave(self, ticket: Ticket, end: int, now: float) -> None:
        """Note that the pairs of a ticket up to `end` are being computed. With others left, it queues up again."""
        ticket.started = ticket.started or now
        self.rows -= end - ticket.taken
        self.tokens -= ticket.tokens(ticket.taken, end)
        ticket.open += end - ticket.taken
        ticket.taken = end
        self._set_turn(ticket)
        self._queue.popleft()
        if end < len(ticket.pairs):
            self._queue.append(ticket)

    def _finish(
        self, done: asyncio.Future[list[list[Tensor] | PtuneError]], parts: Sequence[Part], tokens: int, begun: float
    ) -> None:
        """Give results to their owners, and start the next batch."""
        self.busy_tokens -= tokens
        del self._ends[id(parts)]
        seconds = (time.perf_counter() - begun) / max(tokens, 1) / self.threads
        before = self._seconds_a_token
        self._seconds_a_token = seconds if before is None else (1 - _NEWEST) * before + _NEWEST * seconds
        if done.cancelled():
            return
        error = done.exception()
        results: Sequence[list[Tensor] | BaseException] = done.result() if error is None else [error] * len(parts)
        now = asyncio.get_running_loop().time()
        for (ticket, start, end), result in zip(parts, results, strict=True):
            ticket.open -= end - start
            if ticket.answer.done():
                continue
            if isinstance(result, BaseException):
                self._forget(ticket)
                ticket.answer.set_exception(result)
                continue
            ticket.logits[start:end] = result
            if not ticket.open and ticket.taken == len(ticket.pairs):
                ticket.finished = now
                ticket.answer.set_result(ticket.logits)  # type: ignore[arg-type]
        self._start_batches()

    async def close(self) -> None:
        """Wait for what is being computed and end the threads."""
        await asyncio.get_running_loop().run_in_executor(None, self._pool.shutdown)
