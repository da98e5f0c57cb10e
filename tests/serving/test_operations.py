"""Keys, limits, overload, logs, metrics, and a graceful end."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import yaml
from uvicorn.supervisors import Multiprocess

from ptune.cli.serve_workers import Worker, Workers
from ptune.errors import ConfigError, RequestError
from ptune.serving.app import SETTINGS_VARIABLE, check_reach, create_app, from_environment
from ptune.serving.keys import Keys
from ptune.serving.logs import JsonFormat, TextFormat
from ptune.serving.metrics import OTHER, Metrics
from ptune.serving.telemetry import UNTRACED
from tests.serving.conftest import ADMIN, USER, Client, running, settings_of, wait_for

BODY = {"inputs": "a good film"}
SECRET = "the plot of a secret film"


@pytest.fixture(scope="module")
def keyed(adapters, tmp_path_factory):
    """A server with keys of every kind, for three adapters."""
    path = tmp_path_factory.mktemp("keys") / "keys.yaml"
    keys = [
        {"name": "films", "key": "films-key-of-16-characters", "adapters": ["rev*"]},
        {"name": "hashed", "sha256": "11" * 32, "adapters": ["spam"]},
    ]
    path.write_text(yaml.safe_dump({"keys": keys}), encoding="utf-8")
    places = [f"{name}={adapters / name}" for name in ("reviews", "spam", "topics")]
    settings = settings_of(*places, api_keys=[USER], admin_keys=[ADMIN], api_keys_file=path)
    with running(settings) as client:
        yield client


def test_a_file_of_keys_is_not_repeated_and_gives_nobody_the_rights_of_another(adapters, tmp_path) -> None:
    path = tmp_path / "keys.yaml"
    secret = 12345678901234567890
    for entry in ({"name": "a", "key": secret}, {"name": "a", "secret": str(secret)}):
        path.write_text(yaml.safe_dump({"keys": [entry]}), encoding="utf-8")
        with pytest.raises(ConfigError) as refused:
            Keys(settings_of(adapters, api_keys_file=path))
        assert str(secret) not in str(refused.value)
    path.write_text(yaml.safe_dump({"keys": [{"name": "same", "key": ADMIN, "adapters": ["spam"]}]}), encoding="utf-8")
    with pytest.raises(ConfigError, match="keys 'admin_keys\\[1\\]' and 'same' are the same"):
        Keys(settings_of(adapters, admin_keys=[ADMIN], api_keys_file=path))


def test_an_administrator_of_some_adapters_does_not_read_the_metrics_of_all(adapters, tmp_path) -> None:
    path = tmp_path / "keys.yaml"
    entry = {"name": "a", "key": USER, "adapters": ["rev*"], "admin": True}
    path.write_text(yaml.safe_dump({"keys": [entry]}), encoding="utf-8")
    caller = Keys(settings_of(adapters, api_keys_file=path)).caller(f"Bearer {USER}")
    assert caller is not None
    caller.check_admin()
    with pytest.raises(RequestError, match="metrics are about all adapters"):
        caller.check_metrics()


def test_the_documentation_asks_for_a_key(keyed) -> None:
    document = Client(keyed.port).get("/openapi.json")
    assert document["components"]["securitySchemes"]["key"] == {"type": "http", "scheme": "bearer"}
    assert document["security"] == [{"key": []}]


def test_failed_requests_count_for_their_adapter(keyed) -> None:
    client = Client(keyed.port, ADMIN)
    assert client("POST", "/adapters/topics/predict", {"inputs": 5})[0] == 422
    assert client("POST", "/v1/classify", {"model": "topics", "input": None})[0] == 400
    metrics = client.get("/metrics")
    for route, status in (("/adapters/{name}/predict", 422), ("/v1/classify", 400)):
        assert f'ptune_requests_total{{adapter="topics",route="{route}",status="{status}"}} 1.0' in metrics
    assert 'te_request_failure{err="validation"}' in metrics
    assert 'te_request_count{method="single"}' in metrics


def test_requests_need_a_key(keyed) -> None:
    for key in (None, "nonsense", USER + "x", ""):
        client = Client(keyed.port, key)
        for method, path in (("POST", "/adapters/reviews/predict"), ("GET", "/adapters"), ("GET", "/metrics")):
            status, content = client(method, path, BODY if method == "POST" else None)
            assert status == 401
            assert "key" in content["error"]
            assert client.last["www-authenticate"] == "Bearer"
    assert Client(keyed.port)("GET", "/health")[0] == 200
    assert Client(keyed.port)("GET", "/v2/health/ready")[0] == 200
    assert Client(keyed.port)("HEAD", "/docs-files/swagger-ui.css")[0] == 200
    assert Client(keyed.port)("POST", "/", BODY)[0] == 401
    assert Client(keyed.port, USER).post("/adapters/reviews/predict", BODY)


def test_head_is_get_without_a_body(keyed) -> None:
    for path in ("/health", "/ping", "/v2/health/ready", "/openapi.json"):
        status, body = Client(keyed.port)("HEAD", path)
        assert (status, body) == (200, "")
        assert Client(keyed.port)("GET", path)[0] == 200
    assert Client(keyed.port)("HEAD", "/adapters")[0] == 401
    assert Client(keyed.port, USER)("HEAD", "/adapters") == (200, "")
    assert Client(keyed.port, USER)("HEAD", "/adapters/reviews/predict")[0] == 405


def test_a_key_may_use_its_adapters_alone(keyed) -> None:
    client = Client(keyed.port, "films-key-of-16-characters")
    assert client("GET", "/metrics")[0] == 403  # they name adapters
    assert "ptune_ready" in Client(keyed.port, USER)("GET", "/metrics")[1]
    assert client.post("/adapters/reviews/predict", BODY)
    assert [adapter["name"] for adapter in client.get("/adapters")["adapters"]] == ["reviews"]
    assert [model["id"] for model in client.get("/v1/models")["data"]] == ["reviews"]
    assert client.post("/predict-many", {**BODY, "adapters": "*"}).keys() == {"reviews"}
    for method, path, body in (
        ("POST", "/adapters/spam/predict", BODY),
        ("POST", "/classify", {"model": "spam", "input": "bad"}),
        ("POST", "/predict-many", {**BODY, "adapters": ["reviews", "spam"]}),
        ("GET", "/adapters/spam", None),
        ("GET", "/adapters/spam/info", None),
        ("GET", "/v2/models/spam", None),
    ):
        denied = client(method, path, body)
        assert denied[0] == 404
        assert "'spam'" in json.dumps(denied[1])  # the same as for a name that does not exist
    assert client("POST", "/predict", BODY, X_Adapter="spam")[0] == 404


def test_under_load_an_adapter_of_others_is_still_one_that_does_not_exist(keyed, monkeypatch) -> None:
    def busy() -> None:
        raise RequestError("the server is busy", 429, retry_after=1)

    monkeypatch.setattr(keyed.service.batcher, "let_in", busy)
    client = Client(keyed.port, "films-key-of-16-characters")
    assert client("POST", "/adapters/reviews/predict", BODY)[0] == 429
    for path in ("/adapters/{}/predict", "/adapters/{}", "/v2/models/{}/infer"):
        denied, missing = (client("POST", path.format(name), BODY) for name in ("spam", "nope"))
        assert denied[0] == missing[0] == 404


def test_a_wrong_method_is_answered_with_all_that_the_path_takes(keyed) -> None:
    assert keyed("PATCH", "/adapters/reviews")[0] == 405
    assert keyed.last["allow"] == "DELETE, GET, HEAD, POST, PUT"


def test_the_default_adapter_is_shown_to_those_who_may_use_it(adapters, tmp_path) -> None:
    path = tmp_path / "keys.yaml"
    keys = [{"name": name, "key": f"{name}-key-of-16-characters", "adapters": [name]} for name in ("reviews", "spam")]
    path.write_text(yaml.safe_dump({"keys": keys}), encoding="utf-8")
    settings = settings_of(f"reviews={adapters / 'reviews'}", api_keys_file=path)
    with running(settings) as server:
        found = [Client(server.port, key["key"]).get("/adapters")["default"] for key in keys]
        assert server("POST", "/predict", BODY, Authorization=f"Bearer {keys[0]['key']}", X_Adapter="")[0] == 200
    assert found == ["reviews", None]


def test_the_name_of_the_default_adapter_is_not_told_to_others(adapters, tmp_path) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(yaml.safe_dump({"keys": [{"name": "a", "key": USER, "adapters": ["spam"]}]}), encoding="utf-8")
    places = [f"{name}={adapters / name}" for name in ("reviews", "spam")]
    with running(settings_of(*places, api_keys_file=path, default_adapter="reviews")) as server:
        client = Client(server.port, USER)
        for method, where in (("POST", "/predict"), ("POST", "/"), ("GET", "/info")):
            status, content = client(method, where, BODY if method == "POST" else None)
            assert status == 400
            assert "name an adapter" in content["error"]
            assert "reviews" not in content["error"]


def test_probes_alone_are_not_traced() -> None:
    http = pytest.importorskip("opentelemetry.util.http")
    excluded = http.parse_excluded_urls(UNTRACED)
    address = "http://127.0.0.1:8080"
    for path in ("/health", "/ready", "/ping", "/metrics", "/v2/health/live"):
        assert excluded.url_disabled(f"{address}{path}")
    for path in ("/adapters/shopping/predict", "/adapters/healthcare", "/v2/models/already-seen/infer", "/predict"):
        assert not excluded.url_disabled(f"{address}{path}")


def test_the_gauges_of_a_worker_that_died_are_dropped(tmp_path, monkeypatch, caplog) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    for name in ("gauge_livesum_11.db", "gauge_livesum_12.db"):
        (tmp_path / name).touch()

    def replace(self: Workers) -> None:
        self.processes[0] = SimpleNamespace(pid=13)

    monkeypatch.setattr(Multiprocess, "keep_subprocess_alive", replace)
    workers = object.__new__(Workers)
    workers.processes = [SimpleNamespace(pid=11), SimpleNamespace(pid=12)]
    workers.keep_subprocess_alive()
    assert "worker 11 has ended" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["gauge_livesum_12.db"]


def test_keys_are_compared_in_constant_time(adapters, monkeypatch) -> None:
    compared = []
    monkeypatch.setattr("hmac.compare_digest", lambda a, b: compared.append((len(a), len(b))) or a == b)
    keys = Keys(settings_of(adapters, api_keys=[USER, "another-key-of-16-characters"], admin_keys=[ADMIN]))
    assert keys.caller(f"Bearer {USER}") is not None
    assert keys.caller("Bearer x") is None
    assert compared == [(32, 32)] * 6  # all of them, and always of the same length


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("keys: 3", "expected a list"),
        ("keys: []", "has no keys"),
        ("keys: [{name: a}]", "either key or sha256"),
        ("keys: [{name: a, key: short}]", "16 or more"),
        ("keys: [{name: a, key: long-enough-for-a-key, adaptors: [x]}]", "adaptors"),
        ("keys: [", "not valid YAML"),
    ],
)
def test_files_of_keys_are_checked(content, message, adapters, tmp_path) -> None:
    (tmp_path / "keys.yaml").write_text(content)
    with pytest.raises(ConfigError, match=message):
        Keys(settings_of(adapters, api_keys_file=tmp_path / "keys.yaml"))


def test_without_keys_only_this_machine_gets_in(adapters) -> None:
    for host in ("0.0.0.0", "::", "example.org"):
        settings = settings_of(adapters, host=host)
        with pytest.raises(ConfigError, match=r"PTUNE_SERVE_API_KEYS"):
            check_reach(settings, Keys(settings))
        settings = settings_of(adapters, host=host, api_keys=[USER])
        check_reach(settings, Keys(settings))
    for host in ("127.0.0.1", "127.0.0.9", "localhost", "::1"):
        check_reach(settings_of(adapters, host=host), Keys(settings_of(adapters)))


@pytest.fixture(scope="module")
def strict(adapters):
    """A server with narrow limits."""
    limits = {"max_body": 1000, "max_rows": 8, "max_tokens": 40, "body_timeout": 0.3, "truncate": False}
    origins = ["https://example.org"]
    with running(settings_of(f"reviews={adapters / 'reviews'}", **limits, cors_origins=origins)) as client:
        yield client


def test_large_requests_are_refused(strict) -> None:
    status, content = strict("POST", "/predict", b" " * 1001)
    assert (status, content["error_type"]) == (413, "Validation")
    assert strict("POST", "/", {"inputs": ["bad"] * 9})[0] == 413
    assert strict("POST", "/vertex", {"instances": [{"inputs": "bad"}] * 9})[0] == 413
    assert strict("POST", "/", {"inputs": ["bad bad bad bad bad bad"] * 6})[0] == 413
    assert strict("POST", "/predict", {"inputs": "bad " * 30})[0] == 422
    assert strict("POST", "/predict", {"inputs": "bad " * 30, "truncate": True})[0] == 200


def test_a_body_in_chunks_is_bounded_too(strict) -> None:
    with socket.create_connection(("127.0.0.1", strict.port)) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        connection.sendall(b"200\r\n" + b" " * 512 + b"\r\n200\r\n" + b" " * 512 + b"\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


def test_a_slow_body_is_not_waited_for(strict) -> None:
    with socket.create_connection(("127.0.0.1", strict.port)) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 50\r\n\r\n{")
        assert connection.recv(100).startswith(b"HTTP/1.1 408")


def test_pages_of_other_origins_are_let_in_if_they_are_named(strict, server) -> None:
    strict("POST", "/predict", BODY, Origin="https://example.org")
    assert strict.last["access-control-allow-origin"] == "https://example.org"
    strict("POST", "/predict", BODY, Origin="https://other.org")
    assert "access-control-allow-origin" not in strict.last
    server("POST", "/predict", BODY, Origin="https://example.org")
    assert "access-control-allow-origin" not in server.last


def test_overload_is_answered_at_once_with_429(adapters) -> None:
    with running(settings_of(f"reviews={adapters / 'reviews'}", max_queue_rows=4, max_batch_rows=1)) as client:
        batcher = client.service.batcher
        gate, compute = threading.Event(), batcher._compute
        batcher._compute = lambda parts: (gate.wait(10), compute(parts))[1]
        with ThreadPoolExecutor(20) as threads:
            kept = [threads.submit(client, "POST", "/predict", BODY) for _ in range(5)]
            wait_for(lambda: batcher.rows == 4)
            started = time.perf_counter()
            client.service.encoding.encode = None  # nothing is done for a request that is refused
            for path, body in (("/predict", BODY), ("/", BODY), ("/v1/classify", {"input": "bad"})):
                status, content = client("POST", path, body)
                assert status == 429
                assert int(client.last["retry-after"]) >= 1
            assert content["error"]["type"] == "RateLimitError"
            assert time.perf_counter() - started < 1
            assert client("POST", "/adapters/nope", BODY)[0] == 404
            del client.service.encoding.encode
            gate.set()
            assert [one.result()[0] for one in kept] == [200] * 5
        assert client("POST", "/predict", BODY)[0] == 200


def test_a_request_that_takes_too_long_is_answered_504(adapters) -> None:
    with running(settings_of(f"reviews={adapters / 'reviews'}", timeout=0.2)) as client:
        gate, compute = threading.Event(), client.service.batcher._compute
        client.service.batcher._compute = lambda parts: (gate.wait(10), compute(parts))[1]
        assert client("POST", "/predict", BODY)[0] == 504
        gate.set()
        wait_for(lambda: client("POST", "/predict", BODY)[0] == 200)


def test_an_adapter_that_is_slow_to_load_holds_up_its_own_requests_alone(adapters) -> None:
    places = [f"{name}={adapters / name}" for name in ("reviews", "spam", "ensemble")]
    with running(settings_of(*places, timeout=0.3)) as client:
        gate, read = threading.Event(), client.service.bank.read
        client.service.bank.read = lambda entry: (gate.wait(10), read(entry))[1]
        assert client("POST", "/adapters/ensemble/predict", BODY)[0] == 504
        assert client("POST", "/adapters/reviews/predict", BODY)[0] == 200  # in memory since the warm-up
        gate.set()
        wait_for(lambda: client("POST", "/adapters/ensemble/predict", BODY)[0] == 200)


def test_a_client_that_has_gone_is_not_computed_for(adapters) -> None:
    with running(settings_of(f"reviews={adapters / 'reviews'}")) as client:
        batcher = client.service.batcher
        gate, compute = threading.Event(), batcher._compute
        batcher._compute = lambda parts: (gate.wait(10), compute(parts))[1]
        with ThreadPoolExecutor(1) as threads:
            first = threads.submit(client, "POST", "/predict", BODY)
            wait_for(lambda: batcher.busy_tokens > 0)
            with socket.create_connection(("127.0.0.1", client.port)) as connection:
                body = json.dumps(BODY).encode()
                head = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
                connection.sendall(head + body)
                wait_for(lambda: batcher.rows == 1)
            wait_for(lambda: batcher.rows == 0)
            gate.set()
            assert first.result()[0] == 200


def test_requests_have_ids_and_their_log_has_no_texts(adapters, caplog) -> None:
    with running(settings_of(f"reviews={adapters / 'reviews'}", log_requests=True)) as client, caplog.at_level("INFO"):
        client.post("/predict", {"inputs": SECRET}, X_Request_Id="my-id-7")
        assert client.last["x-request-id"] == "my-id-7"
        client("POST", "/predict", {"inputs": [SECRET, SECRET, SECRET]}, X_Request_Id="bad id\t")
        assert len(client.last["x-request-id"]) == 32
        client("GET", f"/adapters/{SECRET.replace(' ', '%20')}")
        client("GET", "/health")  # a probe comes every few seconds, and is not logged
        client.post("/", {"inputs": SECRET})
        wait_for(lambda: sum(record.name == "ptune.requests" for record in caplog.records) == 4)
    lines = [json.loads(JsonFormat().format(record)) for record in caplog.records if record.name == "ptune.requests"]
    assert (
        lines[0].items()
        >= {
            "level": "info",
            "request_id": "my-id-7",
            "method": "POST",
            "route": "/predict",
            "status": 200,
            "adapter": "reviews",
            "rows": 1,
            "tokens": 8,
            "caller": "anyone",
        }.items()
    )
    assert [line["status"] for line in lines] == [200, 422, 404, 200]
    for record in caplog.records:
        for form in (JsonFormat(), TextFormat()):
            assert "secret" not in form.format(record)
            assert "\n" not in form.format(record)


def test_an_error_of_the_server_is_one_of_the_protocol(adapters, caplog) -> None:
    with running(settings_of(f"reviews={adapters / 'reviews'}")) as client:
        client.service.encoding.encode = None
        status, content = client("POST", "/predict", {"inputs": SECRET})
        assert (status, content["error_type"]) == (500, "Backend")
        status, content = client("POST", "/v1/classify", {"input": SECRET})
        assert (status, content["error"]["type"]) == (500, "InternalServerError")
    assert "Traceback" not in json.dumps(content)
    assert sum(record.levelno == logging.ERROR for record in caplog.records) == 2


def test_labels_of_metrics_are_bounded(adapters) -> None:
    metrics = Metrics(2)
    assert [metrics.group(name) for name in ("a", "b", "c", "a", None)] == ["a", "b", OTHER, "a", ""]
    names = ["reviews", "spam", "topics"]
    places = [f"{name}={adapters / name}" for name in names]
    with running(settings_of(*places, metrics_adapters=1)) as client:
        for name in names:
            client.post(f"/adapters/{name}/predict", BODY)
        for number in range(5):
            client("GET", f"/adapters/unknown-{number}")
            client("GET", f"/nowhere/{number}")
        text = client.get("/metrics")
    assert 'ptune_rows_total{adapter="other"}' in text
    assert "unknown-" not in text
    assert "nowhere" not in text
    assert 'route="/adapters/{name}/predict",status="200"' in text
    assert "ptune_adapters_loaded 3.0" in text


def test_traces_go_to_opentelemetry(adapters) -> None:
    trace = pytest.importorskip("opentelemetry.trace")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    with running(settings_of(f"reviews={adapters / 'reviews'}", telemetry=True)) as client:
        client.post("/adapters/reviews/predict", {"inputs": SECRET})
        wait_for(lambda: any(span.kind.name == "SERVER" for span in exporter.get_finished_spans()))
    spans = exporter.get_finished_spans()
    assert "POST /adapters/{name}/predict" in {span.name for span in spans}
    assert "secret" not in "".join(span.to_json() for span in spans)


def test_the_server_is_ready_after_its_warm_up(adapters) -> None:
    app = create_app(settings_of(f"reviews={adapters / 'reviews'}"))
    service = app.state.service
    gate, warm_up = threading.Event(), service.warm_up
    before: list[bool] = []

    async def slow() -> None:
        before.append(service.takes_requests)
        await asyncio.to_thread(gate.wait, 10)
        before.append(service.takes_requests)
        await warm_up()

    service.warm_up = slow
    opener = threading.Thread(target=lambda: (wait_for(lambda: bool(before)), gate.set()))
    opener.start()
    with running(settings_of(f"reviews={adapters / 'reviews'}"), app) as client:
        assert client("GET", "/health")[0] == 200
        assert before == [False, False]
        service.ready = False
        assert [client("GET", path)[0] for path in ("/health", "/ready", "/v2/health/ready")] == [503] * 3
        assert client("GET", "/v2/health/live")[0] == 200
        service.ready = True
        service.draining = True
        assert client("GET", "/health")[0] == 503
        assert client("POST", "/predict", BODY)[0] == 200
        assert client.last["connection"] == "close"
        service.draining = False
    opener.join()


@contextmanager
def process_of(*arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], Client]]:
    """`ptune serve` in a process of its own, when it is ready."""
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment}
    command = [sys.executable, "-m", "ptune", "serve", "--port", "0", *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=variables
    ) as process:
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            assert first.startswith("ptune: serving"), first
            client = Client(int(first.split("http://127.0.0.1:")[1].split(":")[0]))
            assert f"curl {client.url}/adapters/" in process.stdout.readline()
            wait_for(lambda: client("GET", "/health")[0] == 200, 60)
            yield process, client
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


@pytest.mark.slow
def test_sigterm_under_load_answers_every_request(adapters) -> None:
    refused, lost, answered = [], [], []
    with process_of(
        str(adapters), "--drain-seconds", "0.5", "--max-wait", "60", PTUNE_SERVE_DEFAULT_ADAPTER="reviews"
    ) as (
        process,
        client,
    ):

        def ask() -> None:
            while True:
                try:
                    answered.append(Client(client.port)("POST", "/predict", BODY)[0])
                except ConnectionRefusedError:
                    refused.append(True)
                    return
                except OSError as err:
                    lost.append(err)
                    return

        with ThreadPoolExecutor(8) as threads:
            for _ in range(8):
                threads.submit(ask)
            wait_for(lambda: len(answered) > 50)
            process.send_signal(signal.SIGTERM)
    assert lost == []
    assert len(refused) == 8
    assert set(answered) == {200}


def test_garbage_collection_does_not_look_through_what_was_loaded_at_the_start(adapters, monkeypatch) -> None:
    monkeypatch.setenv(SETTINGS_VARIABLE, settings_of(adapters).worker_json())
    monkeypatch.setattr("ptune.serving.app.log_to_stderr", lambda form: None)
    try:
        app = from_environment()
        loaded = gc.get_freeze_count()
        assert loaded > 100_000  # the libraries alone
        assert len(gc.get_objects()) < loaded / 10
        asyncio.run(app.state.service.close())
    finally:
        gc.unfreeze()


@pytest.mark.slow
def test_workers_that_cannot_start_end_the_command(adapters) -> None:
    command = [sys.executable, "-m", "ptune", "serve", "--port", "0", str(adapters), "--workers", "2"]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    options = {"capture_output": True, "text": True, "env": variables, "timeout": 120}
    found = subprocess.run([*command, "--default-adapter", "nosuch"], **options)
    assert found.returncode == 2
    assert found.stderr.startswith("ptune: error: --default-adapter nosuch is not one of the adapters; there are ")
    assert found.stdout == ""
    found = subprocess.run([*command, "--device", "cuda:99"], **options)
    assert found.returncode == 2
    assert "cuda:99" in found.stderr
    assert found.stderr.splitlines()[-1] == "ptune: error: no worker could start; its message is above"
    assert "Traceback" not in found.stderr


def test_a_dead_worker_is_noticed_at_once_and_no_signal_waits_for_a_silent_one(monkeypatch) -> None:
    worker = object.__new__(Worker)
    worker.parent_conn, worker.child_conn = multiprocessing.Pipe()
    worker.process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    worker.process.start()
    started = time.monotonic()
    assert not worker.is_alive(timeout=0.1)  # it says nothing
    monkeypatch.setattr(Worker, "signals", [signal.SIGTERM])
    assert worker.is_alive(timeout=60)  # the signal comes first
    monkeypatch.setattr(Worker, "signals", [])
    worker.child_conn.send(True)
    assert worker.is_ready(timeout=60)
    threading.Timer(0.2, worker.process.kill).start()
    assert not worker.ping(timeout=60)
    assert time.monotonic() - started < 30
    worker.process.join()
    assert not worker.is_alive()
    worker.process.close()


@pytest.mark.long
def test_several_workers_share_a_port_and_their_metrics(adapters) -> None:
    with process_of(str(adapters), "--workers", "2", "--drain-seconds", "0") as (_, client):
        for _ in range(20):
            assert client("POST", "/adapters/reviews/predict", BODY)[0] == 200
        line = 'ptune_requests_total{adapter="reviews",route="/adapters/{name}/predict",status="200"} 20.0'
        assert line in client.get("/metrics")
        adapters_there = len(client.get("/adapters")["adapters"])
        time.sleep(1.5)  # each worker notes its state every second
        for text in (client.get("/metrics"), client.get("/metrics")):
            assert f"ptune_adapters {adapters_there}.0" in text
            assert "ptune_ready 1.0" in text
