"""Ending a run when its time is over."""

from __future__ import annotations

import re
import time
from typing import Any

_UNITS = {"h": 3600.0, "m": 60.0, "min": 60.0, "s": 1.0}
_PART = r"(\d+(?:\.\d+)?)\s*(h|min|m|s)"


def seconds_of(value: Any) -> Any:
    """Return a time such as `10m` or `1h30m` in seconds. Anything but text stays as it is.

    Raises:
        ValueError: the text is neither a time nor a number.
    """
    if not isinstance(value, str):
        return value
    text = value.strip().lower()
    if re.fullmatch(rf"(?:{_PART}\s*)+", text):
        return sum(float(number) * _UNITS[unit] for number, unit in re.findall(_PART, text))
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"'{value}' is not a time; give one such as 90s, 10m or 1h30m") from None


class Deadline:
    """When a run has to begin to end.

    Args:
        seconds: time from now on; None: there is no end.
    """

    def __init__(self, seconds: float | None) -> None:
        self._end = None if seconds is None else time.monotonic() + seconds
        self.reserved = 0.0  # seconds that the last measurement will take
        self._over = False

    @property
    def over(self) -> bool:
        """True if the time is over but for what is reserved. It stays true, because the run has begun to end."""
        if self._end is not None and time.monotonic() >= self._end - self.reserved:
            self._over = True
        return self._over
