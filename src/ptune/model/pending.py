"""A result that is still being computed, such as a batch that OpenVINO has under way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

Result = TypeVar("Result")
Next = TypeVar("Next")


class Pending(Generic[Result]):
    """A handle to wait on.

    Args:
        wait: blocks until the result is there and returns it. It is called at most once.
    """

    def __init__(self, wait: Callable[[], Result]) -> None:
        self._wait: Callable[[], Result] | None = wait
        self._result: list[Result] = []

    @classmethod
    def done(cls, result: Result) -> Pending[Result]:
        """Wrap a result that is already there."""
        pending = cls(lambda: result)
        pending.result()
        return pending

    def result(self) -> Result:
        """Wait for the result and return it; later calls return the same object at once."""
        if self._wait is not None:
            self._result.append(self._wait())
            self._wait = None  # frees what the wait held on to
        return self._result[0]

    def then(self, follow: Callable[[Result], Next]) -> Pending[Next]:
        """Return a handle of `follow(result)`, which runs when that handle is waited on."""
        return Pending(lambda: follow(self.result()))
