"""A request that is answered elsewhere: the same answer, the adapter it names, another try if a replica has failed."""

from __future__ import annotations

import asyncio
import json

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route
from starlette.testclient import TestClient

from ptune.errors import ConfigError
from ptune.scale.cluster import Workers
from ptune.scale.relay import Call, Engine, Front, Reply, adapter_of, run_app
from ptune.scale.serve import Replicas, _application
from tests.serving.conftest import ADMIN, USER, put_adapter, settings_of

TEXT = "a good film"


class ReplicaGoneError(Exception):
    """What a cluster raises when a replica dies."""


@pytest.fixture(scope="module")
def folder(backbone, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters")
    put_adapter(folder / "reviews", backbone("bert"), ["negative", "positive"], seed=1)
    put_adapter(folder / "spam", backbone("bert"), ["ham", "spam"], seed=2)
    return folder


def front(send, **settings) -> TestClient:
    """A client of a front that sends calls to a function."""
    server = Front(settings_of("adapters", **settings), send, (ReplicaGoneError,))
    methods = ["GET", "POST", "PUT", "DELETE"]
    return TestClient(Starlette(routes=[Route("/{path:path}", server.__call__, methods=methods)]))


def test_what_the_application_would_refuse_does_not_reach_a_replica() -> None:
    async def send(call: Call, name: str | None) -> Reply:
        return Reply(200, [], call.body)

    settings = {"api_keys": [USER], "admin_keys": [ADMIN], "max_body": 64, "max_upload": 5000}
    client = front(send, **settings)
    assert client.put("/adapters/new", content=b"x" * 80).status_code == 401
    user, admin = ({"Authorization": f"Bearer {key}"} for key in (USER, ADMIN))
    assert client.put("/adapters/new", content=b"x" * 80, headers=user).status_code == 413
    assert client.put("/adapters/new", content=b"x" * 80, headers=admin).content == b"x" * 80
    assert client.put("/adapters/new", content=b"x" * 5001, headers=admin).status_code == 413
    assert client.post("/predict", content=b"x" * 65, headers=admin).status_code == 413
    assert client.get("/health").status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "name"),
    [
        ("POST", "/adapters/reviews/predict", {}, {}, "reviews"),
        ("GET", "/adapters/a%20b", {}, {}, "a b"),
        ("POST", "/v2/models/spam/infer", {}, {"model": "other"}, "spam"),
        ("POST", "/v1/classify", {"x-adapter": "other"}, {"model": "reviews"}, "reviews"),
        ("POST", "/predict", {"X-Adapter": "spam"}, {"inputs": "x"}, "spam"),
        ("POST", "/predict", {}, {"inputs": "x"}, None),
        ("POST", "/v1/classify", {}, {"model": 3}, None),
        ("POST", "/v1/classify", {}, [{"model": "reviews"}], None),
        ("GET", "/health", {}, {}, None),
    ],
)
def test_the_adapter_of_a_request_is_found_where_the_protocols_have_it(method, path, headers, body, name) -> None:
    pairs = [(key.encode(), value.encode()) for key, value in headers.items()]
    assert adapter_of(Call(method, path, b"", pairs, json.dumps(body).encode())) == name


def test_an_engine_answers_as_the_server_does(folder) -> None:
    settings = settings_of(folder)
    call = Call(
        "POST", "/adapters/reviews/predict", headers=[(b"x-request-id", b"7")], body=b'{"inputs": "a good film"}'
    )

    async def ask() -> tuple[list[Reply], bool]:
        engine = Engine(settings.worker_json())
        await engine.start()
        assert engine.knows("spam")
        assert not engine.knows("nobody")
        await engine.hold("spam")
        held = "spam" in engine.service.bank
        replies = [
            await engine.answer(each) for each in (call, Call("GET", "/health"), Call("GET", "/adapters/nobody"))
        ]
        again = await run_app(engine.app, call)
        await engine.stop()
        assert again.body == replies[0].body
        return replies, held

    replies, held = asyncio.run(ask())
    assert held
    assert [reply.status for reply in replies] == [200, 200, 404]
    assert (b"x-request-id", b"7") in replies[0].headers
    assert {item["label"] for item in json.loads(replies[0].body)} == {"negative", "positive"}


def test_a_request_whose_replica_dies_goes_to_another(monkeypatch) -> None:
    monkeypatch.setattr("ptune.scale.relay._PAUSE", 0.0)
    tries = []

    async def send(call: Call, name: str | None) -> Reply:
        tries.append((call.body, name))
        if len(tries) < 3:
            raise ReplicaGoneError
        return Reply(200, [(b"content-type", b"text/plain"), (b"content-length", b"4")], b"done")

    answer = front(send).post("/adapters/reviews/predict", content=b"body")
    assert (answer.status_code, answer.text) == (200, "done")
    assert tries == [(b"body", "reviews")] * 3


def test_a_change_of_an_adapter_is_not_sent_twice() -> None:
    tries = []

    async def send(call: Call, _: str | None) -> Reply:
        tries.append(call.method)
        raise ReplicaGoneError

    answer = front(send).put("/adapters/new", content=b"files")
    assert (answer.status_code, tries) == (503, ["PUT"])
    assert "look with GET /adapters" in answer.json()["error"]


def test_a_body_that_no_replica_would_take_ends_at_the_front() -> None:
    async def send(*_: object) -> Reply:
        pytest.fail("the body was sent on")

    answer = front(send, max_body=100).post("/predict", content=b"x" * 5001)
    assert (answer.status_code, answer.json()["error"]) == (
        413,
        "the body has more than 100 bytes; send less at a time",
    )


def test_a_cluster_that_does_not_answer_is_a_status(monkeypatch) -> None:
    async def send(*_: object) -> Reply:
        await asyncio.sleep(60)
        raise AssertionError

    monkeypatch.setattr("ptune.scale.relay.asyncio.timeout", lambda _: asyncio.timeouts.timeout(0.05))
    assert front(send).post("/predict", content=b"{}").status_code == 504


def test_bounds_of_the_replicas_are_those_of_ray() -> None:
    assert Replicas(2, 2).options == {"num_replicas": 2}
    assert Replicas(1, 4).options["autoscaling_config"]["max_replicas"] == 4
    with pytest.raises(ConfigError, match="`max_replicas` is 1, but `min_replicas` is 3"):
        Replicas(3, 1)


def test_the_deployments_of_a_cluster_answer_as_the_server_does(folder) -> None:
    """Ray Serve runs them in this process, without a cluster."""
    serve = pytest.importorskip("ray.serve")
    settings = settings_of(folder, dtype="float32", device="cpu")
    front = serve.run(_application(settings, Replicas(1, 1), Workers(1, 1, 0.0), 5), _local_testing_mode=True)
    body = b'{"inputs": "a good film"}'
    replies = {
        name: front.remote(request_of(f"/adapters/{name}/predict", body)).result() for name in ("spam", "nobody")
    }

    async def ask() -> Reply:
        engine = Engine(settings.worker_json())
        reply = await engine.answer(Call("POST", "/adapters/spam/predict", body=body))
        await engine.stop()
        return reply

    assert json.loads(replies["spam"].body) == json.loads(asyncio.run(ask()).body)
    assert replies["nobody"].status_code == 404


def request_of(path: str, body: bytes) -> Request:
    """A request as Serve's proxy gives it to the front."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict:
        return messages.pop()

    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": [], "scheme": "http"}
    return Request({**scope, "client": None, "server": ("127.0.0.1", 80), "root_path": ""}, receive)
