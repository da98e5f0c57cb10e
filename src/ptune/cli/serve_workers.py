"""The processes of `ptune serve --workers`. This module needs uvicorn and prometheus_client."""

from __future__ import annotations

import logging
import pickle
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from socket import socket

from prometheus_client.multiprocess import mark_process_dead
from uvicorn.config import STARTUP_FAILURE, Config
from uvicorn.supervisors import multiprocess
from uvicorn.supervisors.multiprocess import Multiprocess, Process

logger = logging.getLogger(__name__)


class Worker(Process):
    """A process whose end is noticed at once, and for which no signal waits."""

    signals: Sequence[int] = ()  # those that wait to be handled

    def _healthcheck(self, timeout: float) -> bool | None:
        """Return what uvicorn's does: whether the process has started, or None if it does not answer in time.

        uvicorn waits at a pipe whose other end is open in this process too, so that the end of the worker is no news.
        """
        end = time.monotonic() + timeout
        try:
            self.parent_conn.send(b"ping")
            while not (ready := wait([self.parent_conn, self.process.sentinel], 0.5)):
                if self.signals:
                    return True  # there is something to do before it can be said
                if time.monotonic() >= end:
                    return None
            return bool(self.parent_conn.recv()) if self.parent_conn in ready else None
        except (OSError, EOFError, pickle.UnpicklingError):
            return None


class Workers(Multiprocess):
    """uvicorn's supervisor, which starts processes, and starts another one where one has died.

    When they end, the first process closes the socket first. Otherwise connections would wait at it for nobody.
    """

    def __init__(self, config: Config, sockets: list[socket]) -> None:
        super().__init__(config, sockets)
        Worker.signals = self.signal_queue
        multiprocess.Process = Worker  # type: ignore[misc]  # uvicorn has no other way to name the class

    @property
    def failed(self) -> bool:
        """True if they have ended because one of them could not start."""
        return any(process.exitcode == STARTUP_FAILURE for process in self.processes)

    def terminate_all(self) -> None:
        """Ask all processes to end."""
        for listening in self.sockets:
            listening.close()
        super().terminate_all()

    def keep_subprocess_alive(self) -> None:
        """Replace processes that have died."""
        self._replacing(super().keep_subprocess_alive)

    def restart_all(self) -> None:
        """Replace all processes, one after the other."""
        self._replacing(super().restart_all)

    def _replacing(self, replace: Callable[[], None]) -> None:
        """Call what may replace processes, and drop the gauges of those that are gone."""
        before = {process.pid for process in self.processes}
        replace()
        for pid in before - {process.pid for process in self.processes}:
            if pid is not None:
                logger.warning("worker %d has ended; another one takes its place", pid)
                mark_process_dead(pid)
