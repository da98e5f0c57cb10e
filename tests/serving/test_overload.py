"""Refusals become an overload when they go on, and the whole queue is tried again from time to time."""

from __future__ import annotations

import pytest

from ptune.serving.overload import ENDS, LASTING, Overload


class Clock:
    """A clock that the test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def overload(clock) -> Overload:
    """An overload that has just begun."""
    overload = Overload(max_wait=0.8, clock=clock)
    for clock.now in (0.0, LASTING):
        overload.note_refusal()
    assert overload.lasts
    return overload


def test_refusals_are_an_overload_only_when_they_go_on(clock) -> None:
    overload = Overload(max_wait=0.8, clock=clock)
    for clock.now in (0.0, 0.19):
        overload.note_refusal()
        assert not overload.lasts
    for clock.now in (2.0, 2.6, 3.2):  # too far apart to belong together
        overload.note_refusal()
        assert not overload.lasts
    clock.now = 3.45
    overload.note_refusal()
    assert overload.lasts


@pytest.mark.parametrize(("least", "allowed"), [(0.0, 0.2), (0.1, 0.2), (0.5, 0.5), (2.0, 0.8)])
def test_during_an_overload_requests_wait_less(least, allowed, overload) -> None:
    assert overload.longest_wait(least) == pytest.approx(allowed)


def test_an_overload_ends_without_refusals(overload, clock) -> None:
    clock.now = LASTING + ENDS - 0.01
    assert overload.longest_wait(0.0) == pytest.approx(0.2)
    clock.now = LASTING + ENDS
    assert overload.longest_wait(0.0) == 0.8


def test_the_whole_queue_is_tried_again_even_if_refusals_do_not_end(overload, clock) -> None:
    begun = clock.now
    for after in (1.0, 2.0, 4.0, 8.0, 8.0):  # the whole queue is full each time
        while clock.now < begun + after - 0.01:
            assert overload.lasts
            overload.note_refusal()
            clock.now += 0.25
        clock.now = begun = begun + after
        assert not overload.lasts
        overload.note_refusal()
        assert overload.lasts


def test_tries_begin_anew_once_the_whole_queue_was_not_full(overload, clock) -> None:
    while clock.now < LASTING + 0.99:
        overload.note_refusal()
        clock.now += 0.25
    for clock.now in (10.0, 10.25):
        overload.note_refusal()
    clock.now = 11.2
    assert overload.lasts
    overload.note_refusal()
    clock.now = 11.25
    assert not overload.lasts
