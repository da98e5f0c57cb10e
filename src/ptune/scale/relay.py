"""A request on its way to one of several servers: read at the front, answered by the ASGI application elsewhere.

Nothing here needs Ray. `ptune.scale.serve` puts the two ends on a cluster.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import Response

from ptune.errors import PtuneError, RequestError
from ptune.serving.app import create_app
from ptune.serving.catalogue import name_in_path
from ptune.serving.gate import GONE, GoneError, identify, read_body
from ptune.serving.keys import Keys
from ptune.serving.replies import error_reply
from ptune.serving.settings import ServeSettings

logger = logging.getLogger(__name__)

Headers = list[tuple[bytes, bytes]]
_IN_BODY = ("/v1/classify", "/classify", "/predict", "/")
# Seconds between two tries with other replicas, doubled each time up to the last.
_PAUSE, _LONGEST_PAUSE = 0.05, 1.0


@dataclass(frozen=True)
class Call:
    """A request of HTTP, whole.

    Attributes:
        method, path, query, headers, client: as in an ASGI scope.
        body: all of it.
    """

    method: str
    path: str
    query: bytes = b""
    headers: Headers = field(default_factory=list)
    body: bytes = b""
    client: tuple[str, int] | None = None

    @property
    def repeatable(self) -> bool:
        """True if the request changes nothing, so that it can be sent again when its answer is lost."""
        return self.method in ("GET", "HEAD", "OPTIONS", "POST")


@dataclass(frozen=True)
class Reply:
    """The answer to a call."""

    status: int
    headers: Headers
    body: bytes


Send = Callable[[Call, str | None], Awaitable[Reply]]


def adapter_of(call: Call) -> str | None:
    """Return the adapter that a request names, in the path, in the body or in the header X-Adapter.

    It only decides which replica is asked, so what cannot be read is None. The application judges the request.
    """
    in_path = name_in_path(call.path)
    if in_path:
        return unquote(in_path)
    if call.method == "POST" and call.path in _IN_BODY and b'"model"' in call.body:
        with suppress(ValueError, RecursionError, AttributeError):
            name = json.loads(call.body).get("model")
            if isinstance(name, str):
                return name
    return next((value.decode("latin-1") for key, value in call.headers if key.lower() == b"x-adapter"), None)


class Engine:
    """The server's application in a replica, without a socket of its own.

    Args:
        settings: a server's settings as `ServeSettings.worker_json` gives them.
    """

    def __init__(self, settings: str) -> None:
        self.app = create_app(ServeSettings.model_validate_json(settings))
        self.service = self.app.state.service
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Warm up, and follow the folders of adapters from now on."""
        await self.service.warm_up()
        self._watching = asyncio.create_task(self.service.watch())

    async def stop(self) -> None:
        """Answer what is under way and end all threads."""
        if self._watching is not None:
            self._watching.cancel()
        await self.service.close()

    def knows(self, name: str | None) -> bool:
        """Return whether there is an adapter of a name."""
        return name in self.service.catalogue.entries

    async def hold(self, name: str) -> str:
        """Load an adapter into memory if it is not there, and return its name. Its request says what is wrong."""
        with suppress(PtuneError):
            await self.service.adapter(name)
        return name

    async def answer(self, call: Call) -> Reply:
        """Return the application's answer."""
        return await run_app(self.app, call)


async def run_app(app: Any, call: Call) -> Reply:
    """Return the answer of an ASGI application to a whole request."""
    start: dict[str, Any] = {}
    parts: list[bytes] = []
    messages = [{"type": "http.request", "body": call.body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        await asyncio.Event().wait()  # the client stays: if it goes, the task is cancelled
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            start.update(message)
        else:
            parts.append(message.get("body", b""))

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": call.method,
        "scheme": "http",
        "path": call.path,
        "raw_path": call.path.encode(),
        "query_string": call.query,
        "root_path": "",
        "headers": call.headers,
        "client": call.client,
        "server": None,
        "state": {},
    }
    await app(scope, receive, send)
    return Reply(start["status"], [(bytes(key), bytes(value)) for key, value in start["headers"]], b"".join(parts))


class Front:
    """Takes requests in, and sends each to a replica. One whose replica dies is sent to another.

    Args:
        settings: of the server.
        send: gives a call to a replica, preferably to one that holds the adapter.
        lost: errors that say that a replica has failed, and not that the request is wrong.
    """

    def __init__(self, settings: ServeSettings, send: Send, lost: tuple[type[BaseException], ...]) -> None:
        self.settings = settings
        self.keys = Keys(settings)
        self.send = send
        self.lost = lost

    async def __call__(self, request: Request) -> Response:
        """Return the answer to a request."""
        try:
            call = await self._read(request)
            async with asyncio.timeout(self.settings.timeout + 1):  # the replica itself answers 504 before that
                reply = await self._ask(call)
        except GoneError:
            return Response(status_code=GONE)
        except RequestError as err:
            return error_reply(request.url.path, request.method, err)
        except TimeoutError:
            late = RequestError("no replica has answered in time; try again", 504)
            return error_reply(request.url.path, request.method, late)
        response = Response(reply.body, reply.status)
        response.raw_headers = reply.headers
        return response

    async def _read(self, request: Request) -> Call:
        """Return a request with its body. What the application would refuse is not sent to a replica.

        Raises:
            RequestError: a key is needed (401), or the body is too large (413) or too slow (408).
            GoneError: the client goes.
        """
        scope = request.scope
        headers = [(bytes(key), bytes(value)) for key, value in scope["headers"]]
        by_name = dict(headers)
        caller = identify(self.keys, scope, by_name)
        body = await read_body(self.settings, request.method, by_name, caller, request.receive)
        client = None if request.client is None else (request.client.host, request.client.port)
        return Call(request.method, request.url.path, scope["query_string"], headers, body, client)

    async def _ask(self, call: Call) -> Reply:
        """Send a call until it is answered."""
        name, pause = adapter_of(call), _PAUSE
        while True:
            started = time.monotonic()
            try:
                return await self.send(call, name)
            except self.lost as err:
                if not call.repeatable:
                    raise RequestError(
                        "the replica that changed the adapter is gone; look with GET /adapters, and try again", 503
                    ) from err
                logger.warning("a replica has failed after %.3f s; another one is tried", time.monotonic() - started)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
