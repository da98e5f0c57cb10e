"""A result that is still being computed, such as a batch that OpenVINO is working on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

Result = TypeVar("Result")
Next = TypeVar("Next")


class Pending(Generic[Result]):
    """A handle to a result that may not be ready yet.

    Args:
        wait: a function that blocks until the result is ready and returns it. It is called at most once.
    """

    def __init__(self, wait: Callable[[], Result]) -> None:
        self._wait: Callable[[], Result] | None = wait
        self._result: list[Result] = []

    @classmethod
    def done(cls, result: Result) -> Pending[Result]:
        """Return a handle to a result that is already known."""
        pending = cls(lambda: result)
        pending.result()
        return pending

    def result(self) -> Result:
        """Wait for the result and return it. Later calls return the same object at once."""
        if self._wait is not None:
            self._result.append(self._wait())
            self._wait = None  # free what the function refers to
        return self._result[0]

    def then(self, follow: Callable[[Result], Next]) -> Pending[Next]:
        """Return a handle to `follow(result)`. The function runs when that handle is waited on."""
        return Pending(lambda: follow(self.result()))
