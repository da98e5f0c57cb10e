"""metrics.jsonl: the metrics of a run, one line per epoch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ptune.atomic import write_files
from ptune.processes import Processes

METRICS_FILE = "metrics.jsonl"


class MetricsFile:
    """The metrics file in the adapter's folder, with one JSON object per epoch.

    Args:
        folder: the adapter's folder; None: no file is written.
        history: lines of earlier epochs, which a resumed run keeps.
        processes: those that train together. Only the first writes the file.
    """

    def __init__(self, folder: Path | None, history: list[dict[str, Any]], processes: Processes) -> None:
        self.folder = folder
        self._writes = processes.first
        self._lines = [json.dumps(line) for line in history]

    def add(self, line: dict[str, Any]) -> None:
        """Append the line of an epoch and write the file.

        Raises:
            OutputError: the file cannot be written.
        """
        self._lines.append(json.dumps(line))
        if self._writes and self.folder is not None:
            write_files(self.folder, {METRICS_FILE: ("\n".join(self._lines) + "\n").encode()})
