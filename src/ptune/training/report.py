"""What a run writes down for people and programs: metrics.jsonl, versions."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ptune import __version__
from ptune.atomic import write_files

METRICS_FILE = "metrics.jsonl"


class MetricsFile:
    """One JSON line an epoch, in the adapter's folder. A resumed run keeps the lines before it."""

    def __init__(self, folder: Path, history: list[dict[str, Any]]) -> None:
        self.folder = folder
        self._lines = [json.dumps(line) for line in history]

    def add(self, line: dict[str, Any]) -> None:
        """Append an epoch's figures.

        Raises:
            OutputError: the file cannot be written.
        """
        self._lines.append(json.dumps(line))
        write_files(self.folder, {METRICS_FILE: ("\n".join(self._lines) + "\n").encode()})


def versions() -> dict[str, str]:
    """Versions of what decides a run's numbers."""
    packages = {name: version(name) for name in ("torch", "transformers", "tokenizers")}
    # ptune's own out of its source, which may be used without being installed.
    return {"python": platform.python_version(), "ptune": __version__, **packages}
