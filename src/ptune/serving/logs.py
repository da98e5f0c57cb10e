"""The server's log on stderr: a line of JSON, or of text, for each request and event.

Texts of requests are not logged.
"""

from __future__ import annotations

import json
import logging
import time
from typing import Any

from ptune.errors import cut, printable

requests = logging.getLogger("ptune.requests")


class JsonFormat(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and the facts of a request."""

    def format(self, record: logging.LogRecord) -> str:
        content: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": cut(record.getMessage()),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            content["traceback"] = cut(self.formatException(record.exc_info))
        return printable(json.dumps(content, ensure_ascii=False, default=str))


class TextFormat(logging.Formatter):
    """A line for people: time, level, message, and the facts of a request."""

    def format(self, record: logging.LogRecord) -> str:
        facts = "".join(f" {name}={value}" for name, value in getattr(record, "facts", {}).items())
        line = f"{_time(record)} {record.levelname.lower()} {cut(record.getMessage())}{facts}"
        if record.exc_info:
            line += f" | {cut(self.formatException(record.exc_info))}"
        return printable(line).replace("\n", "\\n")


def _time(record: logging.LogRecord) -> str:
    seconds = time.gmtime(record.created)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', seconds)}.{int(record.msecs):03d}Z"


def log_to_stderr(form: str) -> None:
    """Send all messages of the server to stderr.

    Args:
        form: `json` or `text`.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormat() if form == "json" else TextFormat())
    for name, level in (("ptune", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False
