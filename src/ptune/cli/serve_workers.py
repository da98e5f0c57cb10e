"""The processes of `ptune serve --workers`. This module needs uvicorn and prometheus_client."""

from __future__ import annotations

import logging
from collections.abc import Callable

from prometheus_client.multiprocess import mark_process_dead
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

logger = logging.getLogger(__name__)


class Workers(Multiprocess):
    """uvicorn's supervisor, which starts processes, and starts another one where one has died.

    When they end, the first process closes the socket first. Otherwise connections would wait at it for nobody.
    """

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
