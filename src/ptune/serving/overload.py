"""How long a request may wait for its turn, and when refusals are an overload.

A burst may fill the queue up to its bound. Under an overload that lasts, the queue would always be that long, so when
refusals go on, only a short queue is allowed: requests that are accepted keep their latency. From time to time the long
queue is tried again. Otherwise clients that repeat their requests at once, of whom the long queue could hold all, would
be refused forever.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

# Refusals are an overload if they go on for LASTING seconds, with less than BURST between two of them. Other refusals
# are the end of a burst, or of a moment in which the machine was busy with something else.
LASTING, BURST = 0.2, 0.5
# An overload ends after so many seconds without a refusal. Until then, this share of the longest wait is allowed.
ENDS, SHARE = 1.0, 0.25
# The whole queue is tried again after FIRST_TRY seconds. If it is full within TRY seconds, the next try is twice as
# long after, up to LAST_TRY.
FIRST_TRY, TRY, LAST_TRY = 1.0, 2.0, 8.0


class Overload:
    """Decides how long a new request may wait.

    Args:
        max_wait: seconds that a request may wait while there is no overload.
        clock: returns the time in seconds.
    """

    def __init__(self, max_wait: float, clock: Callable[[], float] = time.perf_counter) -> None:
        self.max_wait = max_wait
        self._clock = clock
        self._refused = -math.inf  # the time of the last refusal
        self._first_refused = -math.inf  # the time of the first of the latest refusals
        self._next_try = -math.inf  # when the whole queue is allowed again, whatever happens until then
        self._try_after = FIRST_TRY

    @property
    def lasts(self) -> bool:
        """True during an overload, except while the whole queue is tried again."""
        now = self._clock()
        return now < self._next_try and now - self._refused < ENDS

    def longest_wait(self, least: float) -> float:
        """Return the seconds that a new request may wait at present.

        Args:
            least: seconds that may be waited during an overload too, if `max_wait` is not shorter.
        """
        return min(self.max_wait, max(SHARE * self.max_wait, least)) if self.lasts else self.max_wait

    def note_refusal(self) -> None:
        """Note that a request was refused now because it would have had to wait too long."""
        now, lasts = self._clock(), self.lasts
        if now - self._refused > BURST:
            self._first_refused = now
        if not lasts and now - self._first_refused >= LASTING:
            failed = 0 <= now - self._next_try < TRY
            self._try_after = min(2 * self._try_after, LAST_TRY) if failed else FIRST_TRY
            self._next_try = now + self._try_after
        self._refused = now
