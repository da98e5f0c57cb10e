"""metrics.jsonl: what a run writes down along the way, a line for each epoch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ptune.atomic import write_files

METRICS_FILE = "metrics.jsonl"


class MetricsFile:
    """One JSON line an epoch, in the adapter's folder. A resumed run keeps the lines before it."""

    def __init__(self, folder: Path, history: list[dict[str, Any]]) -> None:
        self.folder = folder
        self._lines = [json.dumps(line) for line in history]

    def add(self, line: dict[str, Any]) -> None:
        """Append an epoch's metrics.

        Raises:
            OutputError: the file cannot be written.
        """
        self._lines.append(json.dumps(line))
        write_files(self.folder, {METRICS_FILE: ("\n".join(self._lines) + "\n").encode()})
