"""uvicorn's HTTP protocol with bounds on the head of a request, which uvicorn itself lacks.

Without them, a client could send headers without end, and fill the memory, or open connections and send nothing, and
use up the files that a process may open.
"""

from __future__ import annotations

import http
import json
from asyncio import TimerHandle, Transport
from typing import Any

import httptools
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# Longest head of a request in bytes. Browsers and proxies send a few kilobytes, and most servers take 8 to 64.
HEAD_BYTES = 2**16


class LimitedConfig(Config):
    """uvicorn's configuration of a server whose connections are bounded.

    Args:
        app: the application, or its name.
        head_seconds: how long the head of a request may take, and how long a client may read nothing of its answer.
        options: see `uvicorn.Config`.
    """

    def __init__(self, app: Any, head_seconds: float, **options: Any) -> None:
        # There are no websockets here, and uvicorn's protocol of them would take a connection out of all limits.
        super().__init__(app, http=LimitedProtocol, ws="none", **options)
        self.head_seconds = head_seconds


class LimitedProtocol(HttpToolsProtocol):
    """One connection. A head that is too long is answered 431, one that takes too long 408, and no valid one 400.

    An offer to go on in another protocol, such as HTTP/2 in the first request of Java's client, is ignored, as HTTP
    has it. uvicorn would lose the body of such a request.
    """

    config: LimitedConfig

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first head."""
        super().connection_made(transport)
        self._head_bytes = 0
        self._began = False
        self._reading_head = True
        self._status = 400
        self._offered = False  # True from the head of a request that offers another protocol until it is ignored
        self._timer: TimerHandle | None = None
        self._reading: TimerHandle | None = None
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_timer()
        self._stop_watching()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read a part of a request."""
        self._began = True
        began_in_head = self._reading_head
        self._feed(data)
        if self.transport.is_closing():
            return
        if not self._reading_head:
            # Line breaks after a request end uvicorn's wait for the next one.
            if self.cycle is not None and self.cycle.response_complete:
                self._start_timer()
            return
        # The end of the last request may be in the same part, so only parts that belong to the head alone are counted.
        self._head_bytes += len(data) if began_in_head else 0
        if self._head_bytes > HEAD_BYTES:
            self._refuse(431)

    def _feed(self, data: bytes) -> None:
        """Parse a part of a request, as uvicorn does, but go on with its body where another protocol is offered."""
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
        except httptools.HttpParserUpgrade as err:
            self._ignore_offer()
            if rest := data[err.args[0] :]:
                self._feed(rest)

    def _ignore_offer(self) -> None:
        """Begin to parse the body of the request whose head has been parsed.

        The parser expects no body behind such a head, so another one gets a head of the same length without the offer.
        """
        framing = [b": ".join(pair) for pair in self.headers if pair[0] in (b"content-length", b"transfer-encoding")]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.feed_data(b"\r\n".join([b"POST / HTTP/1.1", *framing, b"", b""]))

    def on_message_begin(self) -> None:
        """Begin to wait for the rest of a head."""
        if self._offered:
            return
        super().on_message_begin()
        self._reading_head = True
        self._start_timer()

    def on_url(self, url: bytes) -> None:
        """Take a part of the address."""
        if not self._offered:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        if not self._offered:
            super().on_header(name, value)

    def on_message_complete(self) -> None:
        """End a request, unless its body is still to be parsed."""
        if not self._offered:
            super().on_message_complete()

    def on_headers_complete(self) -> None:
        """Take the head, unless it is too long.

        Raises:
            ValueError: it is. The parser stops, and `send_400_response` answers.
        """
        if self._offered:
            self._offered = False  # this is the head without the offer, and a body follows or the end
            return
        self._stop_timer()
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > HEAD_BYTES:
            self._status = 431
            raise ValueError("the head of the request is too long")
        self._reading_head, self._head_bytes = False, 0
        super().on_headers_complete()
        self._offered = self.parser.should_upgrade()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not a valid request, and close the connection."""
        self._refuse(self._status, msg)

    def pause_writing(self) -> None:
        """Begin to watch whether the client reads its answer."""
        super().pause_writing()
        self._watch(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """Stop watching: the client has read."""
        self._stop_watching()
        super().resume_writing()

    def _watch(self, unread: int) -> None:
        self._stop_watching()
        self._reading = self.loop.call_later(self.config.head_seconds, self._check_reading, unread)

    def _check_reading(self, before: int) -> None:
        """Drop a client that has read nothing. What is left for it would stay in memory."""
        unread = self.transport.get_write_buffer_size()
        if unread >= before:
            self.transport.abort()
        else:
            self._watch(unread)

    def _stop_watching(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _start_timer(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self.config.head_seconds, self._give_up)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        if self._began:
            self._refuse(408)
        else:  # a connection that was opened in advance, as browsers do, and waits for no answer
            self.transport.close()

    def _refuse(self, status: int, message: str = "") -> None:
        self._stop_timer()
        if self.transport.is_closing():
            return
        sentence = {
            408: f"the head of the request did not arrive within {self.config.head_seconds:g} seconds",
            431: f"the head of the request has more than {HEAD_BYTES} bytes",
        }.get(status, message)
        body = json.dumps({"error": sentence, "error_type": "Validation"}).encode()
        lines = (
            f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}",
            "content-type: application/json",
            f"content-length: {len(body)}",
            "connection: close",
        )
        self.transport.write("\r\n".join([*lines, "", ""]).encode() + body)
        self.transport.close()
