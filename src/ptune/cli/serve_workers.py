"""The processes of `ptune serve --workers`. This module needs uvicorn."""

from __future__ import annotations

from uvicorn.supervisors import Multiprocess


class Workers(Multiprocess):
    """uvicorn's supervisor, which starts processes, and starts another one where one has died.

    When they end, the first process closes the socket first. Otherwise connections would wait at it for nobody.
    """

    def terminate_all(self) -> None:
        """Ask all processes to end."""
        for listening in self.sockets:
            listening.close()
        super().terminate_all()
