"""A tiny server in a thread that answers as a test tells it to, for what drives servers."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

NAMES = ["a", "b", "c/d e"]


@dataclass
class Asked:
    """A request that arrived."""

    method: str
    path: str
    headers: dict[str, str]
    content: Any


def reply(status: int, content: Any, headers: str = "") -> bytes:
    """An HTTP answer."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\n{headers}\r\n".encode() + body


async def lists_and_answers(asked: Asked) -> bytes:
    """Lists its adapters, and answers everything else with a label."""
    listed = {"adapters": [{"name": name} for name in NAMES]}
    return reply(200, listed if asked.method == "GET" else [{"label": "yes", "score": 1.0}])


class StubServer:
    """Serves until the block ends.

    Args:
        answer: gives the bytes of the answer to each request; b"" closes the connection.
    """

    def __init__(self, answer: Callable[[Asked], Awaitable[bytes]] = lists_and_answers) -> None:
        self.answer = answer
        self.asked: list[Asked] = []
        self.connections = 0
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def __enter__(self) -> StubServer:
        self._thread.start()
        self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(10)

    async def _serve(self) -> None:
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        self._open: set[asyncio.StreamWriter] = set()
        server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._ready.set()
        await self._stopped.wait()
        server.close()
        for writer in self._open:
            writer.close()
        await asyncio.sleep(0.01)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.add(writer)
        try:
            while True:
                first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
                headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                asked = Asked(*first.split(" ")[:2], headers, json.loads(body) if body else None)
                self.asked.append(asked)
                answer = await self.answer(asked)
                if not answer:
                    break
                writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()
