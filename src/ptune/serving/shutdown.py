"""A graceful end: after SIGTERM the server says that it is not ready, still answers for a while, and then stops.

uvicorn closes its socket and all connections that have no request yet. Connections that wait to be accepted, and
requests that are on their way, would be lost. So they are taken in first.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from ptune.serving.service import Service

logger = logging.getLogger(__name__)

# Time in which the request of a connection that was just opened arrives.
ARRIVAL_SECONDS = 0.2


def drain_on_sigterm(service: Service) -> None:
    """Put a pause between SIGTERM and the end of the HTTP server.

    In the pause every request is answered, and its connection is closed afterwards.

    Args:
        service: says from then on that it is not ready.
    """
    if threading.current_thread() is not threading.main_thread():
        return  # a test, or a program that runs the server itself
    loop = asyncio.get_running_loop()
    stop = signal.getsignal(signal.SIGTERM)
    if not callable(stop):
        return
    ending: list[asyncio.Task[None]] = []  # the loop itself does not keep a task

    def handle(number: int, _: FrameType | None) -> None:
        if not service.draining:
            service.draining = True
            loop.call_soon_threadsafe(lambda: ending.append(loop.create_task(_end(service, stop, number))))

    signal.signal(signal.SIGTERM, handle)


async def _end(service: Service, stop: Callable[..., Any], number: int) -> None:
    """Answer for a while, take in the last connections, and stop.

    Args:
        stop: uvicorn's handler of the signal, a method of its server.
        number: the signal.
    """
    logger.info("stopping: new connections are taken for %g s more", service.settings.drain_seconds)
    await asyncio.sleep(service.settings.drain_seconds)
    server = getattr(stop, "__self__", None)
    if server is not None and hasattr(server, "servers"):
        await _close_listeners(server)
        await asyncio.sleep(ARRIVAL_SECONDS)
    stop(number, None)


async def _close_listeners(server: Any) -> None:
    """Accept the connections that wait at the sockets of a uvicorn server, and close the sockets."""
    loop = asyncio.get_running_loop()
    waiting = [connection for listener in server.servers for connection in _accept_all(listener)]

    def make_protocol() -> asyncio.Protocol:
        return server.config.http_protocol_class(
            config=server.config, server_state=server.server_state, app_state=server.lifespan.state
        )

    for connection in waiting:
        await loop.connect_accepted_socket(make_protocol, connection)


def _accept_all(listener: asyncio.base_events.Server) -> Iterator[socket.socket]:
    """Yield the connections that wait at a listener, and close it when there are no more."""
    copies = [socket.socket(fileno=os.dup(one.fileno())) for one in listener.sockets]
    for copy in copies:
        copy.setblocking(False)
        try:
            while True:
                yield copy.accept()[0]
        except OSError:  # none is left
            pass
    listener.close()
    for copy in copies:
        copy.close()
