"""The queue in front of the model: batches, turns, bounds, deadlines, and errors that reach their own rows alone."""

from __future__ import annotations

import asyncio
import threading
from contextlib import ExitStack
from types import SimpleNamespace

import pytest
import torch

from ptune.data.encode import Encoded
from ptune.errors import AdapterError, RequestError
from ptune.serving.batcher import TURN, Batcher, Limits
from ptune.serving.overload import Overload

LIMITS = Limits(batch_tokens=100, batch_rows=64, queue_rows=200, max_wait=0.5)
ROW = Encoded([7] * 5, None)


class Model:
    """Answers each pair with its adapter's number. Waits while `gate` is closed."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.batches: list[list[int]] = []

    def __call__(self, parts):
        self.entered.set()
        assert self.gate.wait(10)
        self.batches.append([end - start for _, start, end in parts])
        return [self.answer(ticket, start, end) for ticket, start, end in parts]

    def answer(self, ticket, start, end):
        adapters = [ticket.loaded[adapter] for _, adapter in ticket.pairs[start:end]]
        if any(adapter.number < 0 for adapter in adapters):
            return AdapterError("this one is damaged")
        return [torch.tensor([float(adapter.number)]) for adapter in adapters]


def adapter(number: int) -> SimpleNamespace:
    return SimpleNamespace(number=number)


def run(test, limits: Limits = LIMITS) -> Model:
    """Run a test with a batcher, and end it."""
    model = Model()

    async def main() -> None:
        batcher = Batcher(model, limits)
        await test(batcher, model)
        assert (batcher.rows, batcher.tokens, batcher._turns, len(batcher._queue)) == (0, 0, 0, 0)
        await batcher.close()

    asyncio.run(main())
    return model


def submit(batcher, number: int = 1, rows: int = 1, seconds: float = 10):
    deadline = asyncio.get_running_loop().time() + seconds
    pairs = [(0, 0)] * rows
    return asyncio.ensure_future(batcher.submit([adapter(number)], [ROW], pairs, deadline))


async def close_gate(batcher, model):
    """Let the model work on a row until the gate opens."""
    model.gate.clear()
    first = submit(batcher)
    await asyncio.to_thread(model.entered.wait)
    return first


def test_rows_that_wait_become_one_batch_and_answers_go_to_their_owners() -> None:
    async def test(batcher, model):
        first = await close_gate(batcher, model)
        others = [submit(batcher, number, rows=2) for number in range(5)]
        await asyncio.sleep(0.01)
        model.gate.set()
        await first
        for number, ticket in enumerate(await asyncio.gather(*others)):
            assert [float(logits) for logits in ticket.logits] == [number, number]

    assert run(test).batches == [[1], [2] * 5]


def test_batches_are_bounded_by_tokens_and_rows() -> None:
    async def test(batcher, model):
        first = await close_gate(batcher, model)
        others = [submit(batcher, rows=12) for _ in range(4)]
        await asyncio.sleep(0.01)
        model.gate.set()
        await asyncio.gather(first, *others)

    assert [sum(batch) for batch in run(test).batches] == [1, 20, 20, 8]
    few_rows = Limits(batch_tokens=10_000, batch_rows=30, queue_rows=200, max_wait=9)
    assert max(sum(batch) for batch in run(test, few_rows).batches) == 30


def test_a_large_request_does_not_hold_up_a_small_one() -> None:
    ended = []

    async def test(batcher, model):
        first = await close_gate(batcher, model)
        large, small = submit(batcher, rows=10 * TURN), submit(batcher)
        large.add_done_callback(lambda _: ended.append("large"))
        small.add_done_callback(lambda _: ended.append("small"))
        await asyncio.sleep(0.01)
        model.gate.set()
        await asyncio.gather(first, large, small)

    run(test)
    assert ended == ["small", "large"]


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back() -> None:
    async def test(batcher, model):
        first = await close_gate(batcher, model)
        waiting = submit(batcher, rows=200)
        await asyncio.sleep(0.01)
        with pytest.raises(RequestError) as caught:
            await submit(batcher)
        assert caught.value.status == 429
        assert caught.value.retry_after >= 1
        model.gate.set()
        await asyncio.gather(first, waiting)
        await submit(batcher)

    run(test)


def test_a_request_that_would_wait_too_long_is_refused() -> None:
    async def test(batcher, model):
        await submit(batcher)
        batcher._seconds_a_token = 0.06  # 5 tokens take 0.3 s
        first = await close_gate(batcher, model)
        assert 0.2 < batcher.wait() <= 0.3
        second = submit(batcher)
        await asyncio.sleep(0.01)
        with pytest.raises(RequestError, match="busy"):
            await submit(batcher)
        model.gate.set()
        await asyncio.gather(first, second)

    run(test)


def test_under_a_lasting_overload_the_queue_stays_short() -> None:
    async def test(batcher, model):
        now = [0.0]
        batcher._overload = Overload(batcher.limits.max_wait, clock=lambda: now[0])
        first = await close_gate(batcher, model)
        waiting = [submit(batcher, rows=16) for _ in range(2)]  # 160 tokens
        await asyncio.sleep(0.01)
        batcher._seconds_a_token = 0.004
        for now[0] in (0.0, 0.25):  # a single refusal is no overload
            assert not batcher._overload.lasts
            with pytest.raises(RequestError, match="busy"):
                await submit(batcher)
        batcher._seconds_a_token = 0.002  # 0.32 s, where half is now allowed
        with pytest.raises(RequestError, match="busy"):
            await submit(batcher)
        now[0] = 1.25  # a second without a refusal
        last = submit(batcher)
        await asyncio.sleep(0.01)
        model.gate.set()
        await asyncio.gather(first, *waiting, last)

    run(test)


def test_requests_that_come_at_the_same_time_count_before_they_are_in_the_queue() -> None:
    async def test(batcher, model):
        await submit(batcher, rows=4)  # 20 tokens
        batcher._seconds_a_token = 0.005
        with ExitStack() as stack:
            for _ in range(6):  # 0.1 s each; more than 0.5 s is too long
                stack.enter_context(batcher.let_in())
            with pytest.raises(RequestError, match="busy"):
                stack.enter_context(batcher.let_in())
        batcher._overload = Overload(batcher.limits.max_wait)
        with batcher.let_in():  # those that were answered do not count
            assert batcher._requests == 1

    run(test)


def test_a_request_whose_time_is_over_is_not_computed() -> None:
    async def test(batcher, model):
        first = await close_gate(batcher, model)
        late = submit(batcher, seconds=0.02)
        with pytest.raises(RequestError) as caught:
            await late
        assert caught.value.status == 504
        model.gate.set()
        await first

    assert run(test).batches == [[1]]


def test_a_cancelled_request_leaves_the_queue() -> None:
    async def test(batcher, model):
        first = await close_gate(batcher, model)
        gone, kept = submit(batcher, rows=3), submit(batcher, rows=2)
        await asyncio.sleep(0.01)
        gone.cancel()
        await asyncio.sleep(0.01)
        assert batcher.rows == 2
        model.gate.set()
        await asyncio.gather(first, kept)
        with pytest.raises(asyncio.CancelledError):
            await gone

    assert run(test).batches == [[1], [2]]


def test_an_error_reaches_its_own_rows_alone() -> None:
    async def test(batcher, model):
        first = await close_gate(batcher, model)
        good, bad, other = submit(batcher, 1), submit(batcher, -1, rows=40), submit(batcher, 2)
        await asyncio.sleep(0.01)
        model.gate.set()
        await asyncio.gather(first, good, other)
        with pytest.raises(AdapterError, match="damaged"):
            await bad

    run(test)


def test_a_request_without_rows_is_answered() -> None:
    async def test(batcher, model):
        assert (await submit(batcher, rows=0)).logits == []

    assert run(test).batches == []
