"""The folder for what is kept between runs and can be made again: compiled backbones, adapters of object stores."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return the folder that PTUNE_CACHE names, or else ~/.cache/ptune. It need not exist."""
    return Path(os.environ.get("PTUNE_CACHE") or Path.home() / ".cache" / "ptune")
