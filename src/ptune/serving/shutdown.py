"""A graceful end: after SIGTERM the server says that it is not ready, still answers for a while, and then stops."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from types import FrameType

from ptune.serving.service import Service

logger = logging.getLogger(__name__)


def drain_on_sigterm(service: Service) -> None:
    """Put a pause between SIGTERM and the end of the HTTP server.

    A client that is about to send a request on an open connection would otherwise find it closed. In the pause every
    request is answered, and its connection is closed afterwards.

    Args:
        service: says from then on that it is not ready.
    """
    if threading.current_thread() is not threading.main_thread():
        return  # a test, or a program that runs the server itself
    loop = asyncio.get_running_loop()
    stop = signal.getsignal(signal.SIGTERM)
    if not callable(stop):
        return

    def handle(number: int, _: FrameType | None) -> None:
        if service.draining:
            return
        service.draining = True
        loop.call_soon_threadsafe(begin, number)

    def begin(number: int) -> None:
        seconds = service.settings.drain_seconds
        logger.info("stopping: no new connections in %g s", seconds)
        loop.call_later(seconds, stop, number, None)

    signal.signal(signal.SIGTERM, handle)
