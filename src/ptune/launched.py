"""What a launcher such as torchrun tells the processes that it starts."""

from __future__ import annotations

import os

_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def is_launched() -> bool:
    """Return whether a launcher has started this process together with others."""
    return all(os.environ.get(name) for name in _VARIABLES) and int(os.environ["WORLD_SIZE"]) > 1


def is_first() -> bool:
    """Return whether this process writes files and reports: the first of those that were started together."""
    return not is_launched() or os.environ["RANK"] == "0"
