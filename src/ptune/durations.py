"""Times in words."""

from __future__ import annotations


def in_words(seconds: float) -> str:
    """Return a time in words of two units at most: 90 s, 10 min, 1 h 30 min."""
    if seconds < 120:
        return f"{seconds:g} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return " ".join([*([f"{hours} h"] if hours else []), *([f"{minutes} min"] if minutes else [])])
