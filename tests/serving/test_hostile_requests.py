"""Requests that mean harm, against a real server: each gets an answer in words, and the server goes on as before."""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.serving.running import RunningServer, save_kind, save_kinds

pytest.importorskip("fastapi", reason="needs the extra 'serve'")

GOOD = {"inputs": "a good film"}
MAX_BODY, MAX_ROWS = 50_000, 64
# Every route that takes a body, and the key that holds its texts.
BODIES = {
    "/": "inputs",
    "/predict": "inputs",
    "/adapters/reviews": "inputs",
    "/adapters/reviews/predict": "inputs",
    "/classify": "input",
    "/v1/classify": "input",
    "/predict-many": "inputs",
    "/vertex": "instances",
    "/v2/models/reviews/infer": "inputs",
}


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)


@dataclass
class Target:
    """The server under attack, and what it must not touch."""

    server: RunningServer
    outside: Path
    opened: list[str]
    failures: list[logging.LogRecord]

    def raw(self, request: bytes, timeout: float = 10.0) -> Reply | None:
        """Send bytes and return the answer; None if the connection was closed without one."""
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=timeout) as sock:
            sock.sendall(request)
            return read_reply(sock)

    def post(self, path: str, body: bytes | object, headers: str = "") -> Reply:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n"
        )
        reply = self.raw(head.encode() + headers.encode("latin-1") + b"\r\n" + content)
        assert reply is not None
        return reply

    def get(self, path: str) -> Reply:
        reply = self.raw(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode("latin-1"))
        assert reply is not None
        return reply


class NoEndError(Exception):
    """The server neither answered nor closed the connection."""


def read_reply(sock: socket.socket) -> Reply | None:
    answer = http.client.HTTPResponse(sock)
    try:
        answer.begin()
        content = answer.read()
    except (http.client.HTTPException, ConnectionError):
        return None
    except TimeoutError as err:
        raise NoEndError from err
    return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, content)


@pytest.fixture(scope="module")
def target(backbone, backbone_folder, tmp_path_factory) -> Iterator[Target]:
    root = tmp_path_factory.mktemp("root")
    folder = save_kinds(root / "served", backbone("bert"), ["reviews", "topics", "mrpc"])
    save_kind(root, backbone("bert"), "moods")  # an adapter, but outside of the folder that is served
    save_kind(folder / ".hidden", backbone("bert"), "stars")
    opened: list[str] = []
    watching = [True]

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if watching[0] and event == "open" and isinstance(arguments[0], str):
            opened.append(arguments[0])

    sys.addaudithook(note)  # it cannot be removed again
    failures: list[logging.LogRecord] = []

    class Failures(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info or record.levelno >= logging.ERROR:
                failures.append(record)

    handler = Failures()
    settings = {"max_body": MAX_BODY, "max_rows": MAX_ROWS, "max_tokens": 3000, "body_timeout": 0.5}
    loggers = [logging.getLogger(name) for name in ("ptune", "uvicorn", "asyncio")]
    for logger in loggers:
        logger.addHandler(handler)
    with RunningServer(
        adapters=[str(folder)], backbone=[str(backbone_folder("bert"))], default_adapter="reviews", **settings
    ) as server:
        yield Target(server, root / "moods", opened, failures)
    watching[0] = False
    for logger in loggers:
        logger.removeHandler(handler)


@pytest.fixture(autouse=True)
def server_goes_on(target) -> Iterator[None]:
    """After each test the server answers as before, has logged no failure, and has read nothing from outside."""
    before = target.post("/predict", GOOD)
    assert before.status == 200
    target.failures.clear()
    target.opened.clear()
    yield
    after = target.post("/predict", GOOD)
    assert (after.status, after.json) == (200, before.json)
    assert [record.getMessage() for record in target.failures] == []
    assert [path for path in target.opened if str(target.outside) in path or "/.hidden" in path] == []
    assert target.server.app.state.service.batcher.rows == 0


def refused(reply: Reply | None, *statuses: int) -> str:
    """Check that a reply refuses in words, and return them."""
    assert reply is not None
    assert reply.status in statuses, (reply.status, reply.content[:300])
    error = reply.json["error"]
    message = error if isinstance(error, str) else error["message"]
    assert message.strip()
    assert len(message) < 1000
    assert "Traceback" not in message
    return message


# --- bodies ----------------------------------------------------------------------------------------------------------

DEEP = 200_000
WRONG_BODIES: dict[str, bytes] = {
    "empty": b"",
    "half an object": b'{"inputs": "a',
    "null": b"null",
    "a number": b"1",
    "a text": b'"a good film"',
    "a list": b'["a good film"]',
    "an empty object": b"{}",
    "not JSON": b"inputs=a+good+film",
    "bad UTF-8": b'{"KEY": "\xff\xfe good"}',
    "UTF-8 cut in half": b'{"KEY": "\xc3"}',
    "Latin-1": '{"KEY": "café"}'.encode("latin-1"),
    "a null byte outside of a text": b'{"KEY": "a"}\x00',
    "a raw null byte inside a text": b'{"KEY": "a\x00b"}',
    "NaN": b'{"KEY": NaN}',
    "a number of 5,000 digits": b'{"KEY": ' + b"9" * 5000 + b"}",
    "a number too large for a float": b'{"KEY": 1e999}',
    "deep lists": b'{"KEY": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    "deep objects": b'{"KEY": ' + b'{"a":' * 8000 + b"1" + b"}" * 8000 + b"}",
    "deep and cut off": b"[" * 40_000,
    "null as text": b'{"KEY": null}',
    "a number as text": b'{"KEY": 1}',
    "true as text": b'{"KEY": true}',
    "an empty list": b'{"KEY": []}',
    "lists in lists": b'{"KEY": [[["a"]]]}',
    "an empty list in a list": b'{"KEY": [[]]}',
    "numbers in a list": b'{"KEY": [1, 2]}',
    "null in a list": b'{"KEY": ["a", null]}',
    "three texts in a pair": b'{"KEY": [["a", "b", "c"]]}',
    "a pair and a text": b'{"KEY": [["a", "b"], ["c"]]}',
    "an empty object as text": b'{"KEY": {}}',
    "objects of other keys": b'{"KEY": [{"a": "b"}]}',
    "a text that is a number": b'{"KEY": {"text": 1}}',
    "half a character": b'{"KEY": "\\ud800"}',
    "half a character in a list": b'{"KEY": ["a", "\\udfff"]}',
    "a key twice": b'{"KEY": "a", "KEY": 1}',
}


@pytest.mark.parametrize("path", BODIES)
def test_wrong_bodies_are_refused_in_words(path, target) -> None:
    taken = []
    for name, body in WRONG_BODIES.items():
        content = body.replace(b"KEY", BODIES[path].encode())
        if path == "/predict-many":
            content = content.replace(b"{", b'{"adapters": "*", ', 1)
        if path == "/vertex" and b"KEY" in body:
            content = b'{"instances": [' + content.replace(b"instances", b"inputs") + b"]}"
        reply = target.post(path, content)
        if reply.status in (400, 422):
            refused(reply, 400, 422)
        else:
            taken.append((name, reply.status, reply.content[:200]))
    assert taken == []


WRONG_OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("/predict", {**GOOD, "truncate": "yes"}),
    ("/predict", {**GOOD, "raw_scores": 1}),
    ("/predict", {**GOOD, "truncation_direction": "Up"}),
    ("/predict", {**GOOD, "truncation_direction": ["Left"]}),
    ("/predict", {**GOOD, "model": 5}),
    ("/", {**GOOD, "parameters": "all"}),
    ("/", {**GOOD, "parameters": {"top_k": 0}}),
    ("/", {**GOOD, "parameters": {"top_k": -(10**30)}}),
    ("/", {**GOOD, "parameters": {"top_k": 1.5}}),
    ("/", {**GOOD, "parameters": {"top_k": True}}),
    ("/", {**GOOD, "parameters": {"function_to_apply": "relu"}}),
    ("/", {**GOOD, "parameters": {"function_to_apply": {"a": 1}}}),
    ("/predict-many", GOOD),
    ("/predict-many", {**GOOD, "adapters": "reviews"}),
    ("/predict-many", {**GOOD, "adapters": []}),
    ("/predict-many", {**GOOD, "adapters": [1]}),
    ("/predict-many", {**GOOD, "adapters": {"reviews": True}}),
    ("/predict-many", {**GOOD, "adapters": ["mrpc"]}),  # takes pairs
    ("/classify", {"model": ["reviews"], "input": "a"}),
    ("/classify", {"model": {}, "input": "a"}),
    ("/v2/models/reviews/infer", {"inputs": [{"name": "text"}]}),
    (
        "/v2/models/reviews/infer",
        {"inputs": [{"name": "text", "shape": [10**12], "datatype": "BYTES", "data": ["a"]}]},
    ),
    (
        "/v2/models/reviews/infer",
        {"inputs": [{"name": "text", "shape": [1], "datatype": "FP32", "data": [1.0]}]},
    ),
    (
        "/v2/models/reviews/infer",
        {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a"]}], "outputs": [{"name": "x"}]},
    ),
    ("/vertex", {"instances": [GOOD, 1]}),
]


@pytest.mark.parametrize(("path", "body"), WRONG_OPTIONS)
def test_wrong_options_are_refused_in_words(path, body, target) -> None:
    message = refused(target.post(path, body), 400, 422)
    assert "object at 0x" not in message


@pytest.mark.parametrize(
    "text",
    [
        "\x00",
        "a\x00b",
        "\u202egood",
        "\x1b[31mred",
        "🎬" * 500,
        "\ufeff",
        " ",
        "\n\n",
        "good " * 3000,
        "ﷺ" * 300,
        "\U0010ffff",
    ],
    ids=ascii,
)
def test_odd_texts_are_texts(text, target) -> None:
    assert target.post("/predict", {"inputs": text}).status == 200
    assert target.post("/classify", {"model": "reviews", "input": [text]}).status == 200


def test_an_empty_batch_and_empty_names_are_refused(target) -> None:
    refused(target.post("/predict", {"inputs": []}), 400)
    refused(target.post("/classify", {"model": "reviews", "input": []}), 400)
    refused(target.post("/predict-many", {**GOOD, "adapters": [""]}), 404)


def test_a_body_that_is_too_large_is_refused_before_it_is_read(target) -> None:
    large = json.dumps({"inputs": "a" * MAX_BODY}).encode()
    refused(target.post("/predict", large), 413)
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n"
    refused(target.raw(head), 413)


def test_a_body_in_chunks_that_grows_too_large_is_refused(target) -> None:
    chunk = b"2000\r\n" + b"a" * 0x2000 + b"\r\n"
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    refused(target.raw(head + chunk * 7), 413)


def test_too_many_rows_and_too_many_tokens_are_refused(target) -> None:
    assert str(MAX_ROWS) in refused(target.post("/predict", {"inputs": [["a"]] * (MAX_ROWS + 1)}), 413, 422)
    many = {"inputs": ["a"] * 40, "adapters": ["reviews", "topics"]}
    refused(target.post("/predict-many", many), 413, 422)
    assert "3000" in refused(target.post("/predict", {"inputs": [["good " * 60]] * MAX_ROWS}), 413, 422)


# --- names -----------------------------------------------------------------------------------------------------------

UNKNOWN = [
    "nope",
    "moods",
    "../moods",
    "..",
    ".",
    ".hidden",
    ".hidden/stars",
    "/etc/passwd",
    "reviews/../../moods",
    "reviews/",
    "./reviews",
    "..\\moods",
    "C:\\moods",
    "reviews\x00",
    "reviews\n",
    "reviews ",
    " reviews",
    "REVIEWS",
    "ｒeviews",
    "reviews.",
    "*",
    "r*",
    "~",
    "%2e%2e%2fmoods",
    "${HOME}",
    "{name}",
    "a" * 5000,
    "🎬",
    "-1",
]


@pytest.mark.parametrize("name", UNKNOWN, ids=lambda name: ascii(name)[:30])
def test_unknown_names_are_404_in_every_body(name, target) -> None:
    refused(target.post("/classify", {"model": name, "input": "a"}), 404)
    refused(target.post("/v1/classify", {"model": name, "input": "a"}), 404)
    refused(target.post("/predict-many", {**GOOD, "adapters": [name]}), 404)
    refused(target.post("/predict-many", {**GOOD, "adapters": ["reviews", name]}), 404)
    refused(target.post("/predict", {**GOOD, "model": name}), 404)
    assert "moods" not in target.server.app.state.service.bank


PATHS = [
    ("POST", "/adapters/{}"),
    ("POST", "/adapters/{}/predict"),
    ("GET", "/adapters/{}"),
    ("GET", "/adapters/{}/info"),
    ("GET", "/v1/models/{}"),
    ("GET", "/v2/models/{}"),
    ("GET", "/v2/models/{}/ready"),
    ("POST", "/v2/models/{}/infer"),
]


@pytest.mark.parametrize("name", UNKNOWN, ids=lambda name: ascii(name)[:30])
def test_unknown_names_are_404_in_every_path(name, target) -> None:
    escaped = "".join(f"%{byte:02x}" for byte in name.encode())
    spelled = {escaped, escaped.upper()}
    if name.isascii() and name.isprintable() and not set(name) & set(" ?#"):
        spelled.add(name)  # as it is, without a client that would tidy it up
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a"]}
    for method, path in PATHS:
        for one in spelled:
            place = path.format(one)
            body = {"inputs": [tensor]} if place.endswith("/infer") else GOOD
            reply = target.post(place, body) if method == "POST" else target.get(place)
            # "reviews/" and "/" have other meanings as a path, but none of them is an adapter.
            assert reply.status in (404, 405, 307), (method, place, reply.status, reply.content[:200])


@pytest.mark.parametrize(
    "path",
    [
        "/adapters/..%2f..%2fmoods/predict",
        "/adapters/%2e%2e/%2e%2e/moods/predict",
        "/adapters/..;/moods/predict",
        "/adapters/reviews%2f..%2fmoods/predict",
        "/adapters/reviews%00/predict",
        "/adapters/%ff%fe/predict",
        "/adapters/%c0%ae%c0%ae%c0%afmoods/predict",
        "/adapters/%zz/predict",
        "/adapters//predict",
        "//adapters/moods/predict",
        "/static/../../etc/passwd",
        "/docs/../../../etc/passwd",
        "/page/index.html",
        "/v2/models/reviews/versions/..%2f..%2f/infer",
        "/v2/models/reviews/versions/99/infer",
        "/.env",
        "/" + "a" * 30_000,
    ],
    ids=lambda path: path[:50],
)
def test_paths_lead_nowhere(path, target) -> None:
    for reply in (target.post(path, GOOD), target.get(path)):
        assert reply.status in (404, 405, 307, 400, 414), (path, reply.status, reply.content[:200])
        assert b"root:" not in reply.content


@pytest.mark.parametrize(
    "name", ["../moods", "nope", "\xff\xfe", "a" * 4000, "reviews,topics"], ids=lambda name: name[:9]
)
def test_unknown_names_are_404_in_the_header(name, target) -> None:
    refused(target.post("/predict", GOOD, f"X-Adapter: {name}\r\n"), 404)


def test_the_answer_to_a_name_does_not_repeat_control_characters(target) -> None:
    reply = target.post("/classify", {"model": "\x1b[2J\r\nSet-Cookie: a=b", "input": "a"})
    refused(reply, 404)
    assert "set-cookie" not in reply.headers
    assert b"\x1b" not in reply.content


# --- the wire --------------------------------------------------------------------------------------------------------

REQUEST = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 25\r\n\r\n" + b'{"inputs": "a good film"}'


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200 + b"\r\n\r\n",  # the beginning of TLS
        b"\x00" * 1000 + b"\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon here\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: five\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 25\r\n\r\n{}",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
        b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n",
        b"TRACE / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"DELETE /predict HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PUT /adapters/reviews HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
        b"DELETE /adapters/reviews HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PUT /adapters/..%2fmoods HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
        b"DELETE /adapters/..%2fmoods HTTP/1.1\r\nHost: x\r\n\r\n",
        b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://169.254.169.254/latest HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=lambda request: ascii(request)[2:60],
)
def test_what_is_no_valid_request_gets_an_error_or_a_closed_connection(request_bytes, target) -> None:
    reply = target.raw(request_bytes, timeout=3)
    assert reply is None or 400 <= reply.status < 500 or reply.status == 501


def test_a_websocket_is_refused(target) -> None:
    head = b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    reply = target.raw(head + b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
    assert reply is None or reply.status < 500


OFFERS = {
    "HTTP/2": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk\r\n",
    "websocket": b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
}


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_an_offer_of_another_protocol_is_ignored(offer, framing, target) -> None:
    """Java's client offers HTTP/2 in its first request."""
    body = json.dumps(GOOD).encode()
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\n" + offer
    if framing == "length":
        whole = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    else:
        whole = head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"
    for split in (len(whole), len(whole) - 4, whole.index(b"\r\n\r\n") + 4, 60):
        with socket.create_connection(("127.0.0.1", target.server.port), timeout=10) as sock:
            for _ in range(2):  # on the same connection
                sock.sendall(whole[:split])
                time.sleep(0.05)
                sock.sendall(whole[split:])
                reply = read_reply(sock)
                assert reply is not None
                assert reply.status == 200, reply.content
    reply = target.raw(b"GET /health HTTP/1.1\r\nHost: x\r\n" + offer + b"\r\n")
    assert reply is not None
    assert reply.status == 200


def test_a_body_that_an_offer_announces_and_that_never_comes_is_given_up(target) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\n" + OFFERS["websocket"] + b"Content-Length: 3\r\n\r\n"
    refused(target.raw(head), 408)


def test_compressed_bodies_and_binary_tensors_of_other_protocols_are_refused_in_words(target) -> None:
    assert "compressed" in refused(target.post("/predict", b"\x1f\x8b\x08", "Content-Encoding: gzip\r\n"), 415)
    header = "Inference-Header-Content-Length: 2\r\n"
    assert "/v2/models/NAME/infer" in refused(target.post("/predict", b"{}\x00", header), 400)
    assert "no tensors" in refused(target.post("/v2/models/reviews/infer", b"{}\x00", header), 400)
    refused(target.post("/predict", json.dumps(GOOD).encode("utf-16")), 400)


def test_nothing_is_redirected_to_the_host_that_a_request_names(target) -> None:
    refused(target.post("/predict/", GOOD), 404)


def test_a_name_in_the_address_is_only_that_of_its_path(target) -> None:
    reply = target.post("/predict?name=nobody", GOOD)
    assert reply.status == 200


def test_a_slow_body_is_given_up_and_others_are_answered_meanwhile(target) -> None:
    with socket.create_connection(("127.0.0.1", target.server.port), timeout=10) as slow:
        slow.sendall(REQUEST[:-5])
        assert target.post("/predict", GOOD).status == 200
        refused(read_reply(slow), 408)


def test_slow_heads_hold_up_nobody_and_are_given_up(target) -> None:
    slow = [socket.create_connection(("127.0.0.1", target.server.port), timeout=10) for _ in range(50)]
    for number, sock in enumerate(slow):
        sock.sendall(REQUEST[: number % 40])  # also nothing at all
    assert target.post("/predict", GOOD).status == 200
    for number, sock in enumerate(slow):
        reply = read_reply(sock)
        assert reply is None if number % 40 == 0 else refused(reply, 408)
        assert sock.recv(1) == b""
        sock.close()


@pytest.mark.parametrize("more", [REQUEST[:30], b"\r\n"], ids=["half a head", "a line break"])
def test_a_head_that_is_slow_after_an_answer_is_given_up_too(more, target) -> None:
    with socket.create_connection(("127.0.0.1", target.server.port), timeout=10) as sock:
        sock.sendall(REQUEST)
        assert read_reply(sock).status == 200
        sock.sendall(more)
        refused(read_reply(sock), 408)


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 200_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 20_000 + b"\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 200_000,  # without an end
    ],
    ids=["one header", "many headers", "path", "no end"],
)
def test_heads_without_measure_are_refused(head, target) -> None:
    reply = target.raw(head)
    assert reply is None or reply.status == 431  # the answer is lost where the system resets the connection


def test_long_bodies_and_many_requests_are_no_long_heads(target) -> None:
    body = json.dumps({"inputs": "good " * 4000}).encode()
    request = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    with socket.create_connection(("127.0.0.1", target.server.port), timeout=10) as sock:
        for _ in range(10):
            sock.sendall(request)
            assert read_reply(sock).status == 200


def test_a_client_that_reads_nothing_of_its_answer_is_dropped(target) -> None:
    service = target.server.app.state.service
    body = json.dumps({"inputs": ["good"] * 50, "adapters": "*"}).encode()
    request = b"POST /predict-many HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(10)
        sock.connect(("127.0.0.1", target.server.port))
        with contextlib.suppress(OSError):
            for _ in range(2000):  # answers of 20 kilobytes each
                sock.sendall(request)
        end = time.monotonic() + 20
        while service.batcher.rows and time.monotonic() < end:
            time.sleep(0.05)
        with contextlib.suppress(ConnectionResetError):
            received = 0
            while part := sock.recv(65536):
                received += len(part)
            assert received < 2000 * 20_000
    assert target.post("/predict", GOOD).status == 200


def test_half_a_character_is_not_repeated(target) -> None:
    for path, body in (
        ("/predict", {"inputs": "my secret \ud800 text"}),
        ("/v2/models/reviews/infer", {"id": "\ud800", "inputs": []}),
        ("/classify", {"model": "\ud800", "input": "good"}),
    ):
        said = refused(target.post(path, json.dumps(body).encode()), 400, 404, 422)
        assert "secret" not in said


def test_clients_that_leave_early_leave_nothing_behind(target) -> None:
    for length in (len(REQUEST), len(REQUEST) - 5, 70, 20):
        for _ in range(10):
            with socket.create_connection(("127.0.0.1", target.server.port), timeout=10) as sock:
                sock.sendall(REQUEST[:length])
    service = target.server.app.state.service
    end = time.monotonic() + 5
    while (service.batcher.rows or service.batcher.busy_tokens) and time.monotonic() < end:
        time.sleep(0.02)
    assert (service.batcher.rows, service.batcher.busy_tokens) == (0, 0)


def test_requests_in_one_go_are_answered_in_their_order(target) -> None:
    other = REQUEST.replace(b"a good film", b"a poor plot")
    with socket.create_connection(("127.0.0.1", target.server.port), timeout=10) as sock:
        sock.sendall(REQUEST + other + REQUEST)
        file = sock.makefile("rb")
        answers = []
        for _ in range(3):
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += file.readline()
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
            answers.append(json.loads(file.read(int(length.split(b":")[1]))))
    assert answers[0] == answers[2] != answers[1]


def test_a_smuggled_request_is_not_answered(target) -> None:
    smuggled = b"0\r\n\r\nGET /adapters HTTP/1.1\r\nHost: x\r\n\r\n"
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: %d\r\n\r\n"
    with socket.create_connection(("127.0.0.1", target.server.port), timeout=3) as sock:
        sock.sendall(head % len(smuggled) + smuggled)
        received = b""
        try:
            while part := sock.recv(65536):
                received += part
                if received.count(b"HTTP/1.1 ") > 1:
                    break
        except TimeoutError:
            pass
    assert received.count(b'"adapters"') == 0


def test_metrics_have_bounded_labels_whatever_is_asked(target) -> None:
    for number in range(30):
        target.get(f"/no-such-path-{number}")
        target.post(f"/adapters/no-such-{number}/predict", GOOD)
    text = target.get("/metrics").content.decode()
    assert "no-such" not in text
