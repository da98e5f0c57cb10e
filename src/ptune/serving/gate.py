"""What every request passes first: its id, its key, the limits of its body, and at the end its line in the log.

It also notices that a client has gone, and cancels the request then.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from ptune.errors import RequestError
from ptune.serving.keys import ANYONE, Caller, Keys
from ptune.serving.logs import requests
from ptune.serving.metrics import Metrics
from ptune.serving.replies import error_reply
from ptune.serving.settings import ServeSettings

logger = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)
# Paths that need no key: a probe has none, and what is static tells nothing.
OPEN = frozenset(
    {
        "/",
        "/health",
        "/ready",
        "/ping",
        "/docs",
        "/openapi.json",
        "/api-doc/openapi.json",
        "/v2/health/live",
        "/v2/health/ready",
    }
)
# Where the files of /docs are.
DOCS_FILES = "/docs-files"
TOO_MANY = 429
GONE = 499  # in the log alone: the client has closed the connection
# The route, in log and metrics, of requests that are refused before they reach one.
BUSY = SimpleNamespace(path="busy")


def _is_open(scope: MutableMapping[str, Any]) -> bool:
    """Return whether a request needs no key."""
    path = scope["path"]
    return scope["method"] in ("GET", "HEAD") and (path in OPEN or path.startswith(f"{DOCS_FILES}/"))


class GoneError(Exception):
    """The client has closed the connection."""


def identify(keys: Keys, scope: MutableMapping[str, Any], headers: Mapping[bytes, bytes]) -> Caller:
    """Return who sends a request.

    Args:
        keys: who may use the server.
        scope: the request's, of ASGI.
        headers: the request's, by name in lower case.

    Raises:
        RequestError: a key is needed, and it is missing or unknown (401).
    """
    caller = keys.caller(headers.get(b"authorization", b"").decode("latin-1")) if keys else ANYONE
    if caller is None and not _is_open(scope) and scope["method"] != "OPTIONS":
        raise RequestError("a valid API key is needed; send it as: Authorization: Bearer KEY", 401)
    return caller or ANYONE


async def read_body(
    settings: ServeSettings, method: str, headers: Mapping[bytes, bytes], caller: Caller, receive: Receive
) -> bytes:
    """Return the body of a request.

    Args:
        settings: say how large it may be, and how long it may take.
        method: the request's.
        headers: the request's, by name in lower case.
        caller: who sends it. Only administrators upload adapters.
        receive: gives its parts.

    Raises:
        RequestError: it is too large (413), or takes too long (408).
        GoneError: the client goes.
    """
    if method in ("GET", "HEAD", "OPTIONS"):
        return b""
    most = settings.max_upload if method == "PUT" and caller.admin else settings.max_body
    too_large = RequestError(f"the body has more than {most} bytes; send less at a time", 413)
    length = headers.get(b"content-length", b"0")
    if length.isdigit() and int(length) > most:
        raise too_large
    parts, size = [], 0
    try:
        async with asyncio.timeout(settings.body_timeout):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise GoneError
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > most:
                    raise too_large
                if not message.get("more_body", False):
                    return b"".join(parts)
    except TimeoutError:
        raise RequestError(
            f"the body did not arrive within {settings.body_timeout:g} seconds", 408, kind="Validation"
        ) from None


@dataclass
class Facts:
    """What is known of a request.

    Attributes:
        request_id: given by the client or made up.
        caller: who sends it.
        method: single or batch, for metrics, by the number of texts and adapters; empty for those that ask no adapter.
        adapter: that was asked.
        rows, tokens: that were computed.
    """

    request_id: str
    caller: Caller = ANYONE
    method: str = ""
    adapter: str | None = None
    rows: int = 0
    tokens: int = 0
    extra: dict[str, Any] = field(default_factory=dict)


class Gate:
    """ASGI middleware around the application.

    Args:
        app: the application.
        settings: of the server.
        keys: who may use it.
        metrics: count the requests.
        is_draining: returns whether the server is about to stop. Connections are then closed after an answer.
        let_in: is given the path of a request that may ask adapters and its caller, and counts it until it is answered.
            It raises a RequestError if the server is busy. Refusing here costs a fraction of what it costs behind the
            routes.
    """

    def __init__(
        self,
        app: Any,
        settings: ServeSettings,
        keys: Keys,
        metrics: Metrics,
        is_draining: Callable[[], bool],
        let_in: Callable[[str, Caller], AbstractContextManager[None]],
    ) -> None:
        self.app = app
        self.settings = settings
        self.keys = keys
        self.metrics = metrics
        self.is_draining = is_draining
        self.let_in = let_in

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        headers = dict(scope["headers"])
        asked = headers.get(b"x-request-id", b"").decode("latin-1")
        facts = Facts(asked if _ID.fullmatch(asked) else uuid.uuid4().hex)
        scope.setdefault("state", {})["facts"] = facts
        answer = _Answer(send, facts.request_id, self.is_draining)
        if scope["method"] == "POST":
            facts.method = "single"  # until it is known
        try:
            facts.caller = identify(self.keys, scope, headers)
            body = await read_body(self.settings, scope["method"], headers, facts.caller, receive)
            with self.let_in(scope["path"], facts.caller) if scope["method"] == "POST" else nullcontext():
                await self._run(scope, body, receive, answer)
        except RequestError as err:
            if err.status == TOO_MANY:  # the only reason is that the server is busy
                scope["route"] = BUSY
            await self._refuse(scope, answer, err)
        except GoneError:
            answer.status = GONE
        except Exception:
            logger.exception("request %s failed", facts.request_id)
            await self._refuse(scope, answer, RequestError("the server failed; its log says why", 500))
        finally:
            self._note(scope, facts, answer.status, time.perf_counter() - started)

    async def _run(self, scope: MutableMapping[str, Any], body: bytes, receive: Receive, answer: _Answer) -> None:
        """Run the application, and cancel it when the client goes."""
        task = asyncio.current_task()
        assert task is not None
        gone = False

        async def wait_for_end() -> None:
            nonlocal gone
            while (await receive())["type"] != "http.disconnect":
                pass
            if answer.status == 0:
                gone = True
                task.cancel()

        listening: asyncio.Task[None] | None = None
        given = False

        async def replay() -> Message:
            nonlocal given
            if not given:
                given = True
                return {"type": "http.request", "body": body, "more_body": False}
            await asyncio.Future()  # the application learns of the end by being cancelled
            raise AssertionError

        if scope["method"] not in ("GET", "HEAD", "OPTIONS"):
            listening = asyncio.ensure_future(wait_for_end())
        # Routes know no HEAD. It is a GET, and the server leaves the body of the answer out.
        inner = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
        try:
            await self.app(inner, replay, answer)
        except asyncio.CancelledError:
            if gone:
                task.uncancel()
                raise GoneError from None
            raise
        finally:
            if "route" in inner:
                scope["route"] = inner["route"]
            if listening is not None:
                listening.cancel()

    async def _refuse(self, scope: MutableMapping[str, Any], answer: _Answer, err: RequestError) -> None:
        if answer.status == 0:
            answer.close = answer.close or err.status in (408, 413)  # the rest of the body is not read
            await error_reply(scope["path"], scope["method"], err)(scope, _nothing, answer)  # type: ignore[arg-type]

    def _note(self, scope: MutableMapping[str, Any], facts: Facts, status: int, seconds: float) -> None:
        """Write the request into the log and count it."""
        route = getattr(scope.get("route"), "path", "unknown")
        self.metrics.request(route, facts.method, facts.adapter, status, seconds)
        if not self.settings.log_requests or (_is_open(scope) and status < 400):
            return
        found: dict[str, Any] = {
            "request_id": facts.request_id,
            "method": scope["method"],
            "route": route,
            "status": status,
            "milliseconds": round(1000 * seconds, 2),
            "caller": facts.caller.name,
        }
        if facts.adapter is not None:
            found |= {"adapter": facts.adapter, "rows": facts.rows, "tokens": facts.tokens}
        requests.info("request", extra={"facts": found | facts.extra})


async def _nothing() -> Message:
    return {"type": "http.disconnect"}


class _Answer:
    """Sends an answer, with the request's id, and remembers its status. 0: nothing was sent yet."""

    def __init__(self, send: Send, request_id: str, is_draining: Callable[[], bool]) -> None:
        self.send = send
        self.request_id = request_id.encode("latin-1")
        self.is_draining = is_draining
        self.status = 0
        self.close = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = int(message["status"])
            message["headers"] = [*message.get("headers", []), (b"x-request-id", self.request_id)]
            if self.close or self.is_draining():
                message["headers"].append((b"connection", b"close"))
        await self.send(message)
