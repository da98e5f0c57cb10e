"""The examples in deploy/ fit the server: files parse, and every metric, path and setting in them exists."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("fastapi", reason="needs the extra 'serve'")

from ptune.errors import ConfigError
from ptune.serving.keys import Keys
from ptune.serving.settings import ServeSettings
from tests.serving.running import RunningServer, save_kinds

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
YAML = sorted(DEPLOY.rglob("*.yaml"))
# Words of PromQL that are no metrics.
PROMQL = {
    "sum",
    "by",
    "rate",
    "max",
    "topk",
    "histogram_quantile",
    "le",
    "up",
    "status",
    "adapter",
    "route",
    "job",
    "ptune",
}


def documents(path: Path) -> list[Any]:
    return [one for one in yaml.safe_load_all(path.read_text(encoding="utf-8")) if one is not None]


def text_of(name: str) -> str:
    return (DEPLOY / name).read_text(encoding="utf-8")


def test_the_key_of_prometheus_reads_metrics_and_no_adapter(backbone, backbone_folder, tmp_path) -> None:
    folder = save_kinds(tmp_path / "served", backbone("bert"), ["reviews"])
    settings = {"api_keys_file": DEPLOY / "keys.example.yaml", "backbone": [str(backbone_folder("bert"))]}
    keys = {key["name"]: key.get("key") for key in documents(DEPLOY / "keys.example.yaml")[0]["keys"]}
    with RunningServer(adapters=[str(folder)], **settings) as running:

        def ask(path: str, name: str) -> int:
            request = urllib.request.Request(running.url + path, headers={"Authorization": f"Bearer {keys[name]}"})
            try:
                with urllib.request.urlopen(request) as reply:
                    return int(reply.status)
            except urllib.error.HTTPError as err:
                return err.code

        assert ask("/metrics", "prometheus") == 200
        assert ask("/adapters/reviews", "prometheus") == 404
        assert ask("/metrics", "customer-42") == 403


@pytest.fixture(scope="module")
def server(backbone, backbone_folder, tmp_path_factory) -> Iterator[RunningServer]:
    folder = save_kinds(tmp_path_factory.mktemp("served"), backbone("bert"), ["reviews"])
    with RunningServer(adapters=[str(folder)], backbone=[str(backbone_folder("bert"))]) as running:
        yield running


@pytest.fixture(scope="module")
def metrics(server) -> set[str]:
    """Names of all time series that the server gives after an answer and an error."""
    import asyncio

    from ptune.serving.connection import Connection, Server

    async def ask() -> str:
        connection = Connection(Server.at(server.url))
        for body in (b'{"inputs": "a good film"}', b'{"inputs": ["a", "pair"]}'):
            await connection.post("/predict", body)
        text = (await connection.get("/metrics")).content.decode()
        connection.close()
        return text

    return {re.split(r"[{ ]", line)[0] for line in asyncio.run(ask()).splitlines() if not line.startswith("#")}


@pytest.mark.parametrize("path", YAML, ids=lambda path: path.name)
def test_yaml_files_parse(path) -> None:
    assert documents(path)


def expressions() -> list[str]:
    board = json.loads(text_of("grafana/board.json"))
    found = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    (alerts,) = documents(DEPLOY / "alerts.yaml")
    return found + [rule["expr"] for group in alerts["groups"] for rule in group["rules"]]


@pytest.mark.parametrize("expression", expressions())
def test_every_metric_of_the_board_and_the_alerts_exists(expression, metrics) -> None:
    without_values = re.sub(r'"[^"]*"|\[[^\]]*\]', "", expression)
    names = set(re.findall(r"[a-z_]+", without_values)) - PROMQL
    assert names or "up{" in expression
    assert names <= metrics
    assert expression.count("(") == expression.count(")")


def test_the_metrics_of_text_embeddings_inference_have_its_names(metrics) -> None:
    counters = {"te_request_count", "te_request_success", "te_request_failure", "te_queue_size"}
    kinds = ("te_request_duration", "te_request_queue_duration", "te_request_inference_duration", "te_batch_next_size")
    histograms = {f"{name}_bucket" for name in (*kinds, "te_batch_next_tokens")}
    assert counters | histograms <= metrics
    assert not any(name.startswith("te_") and name.endswith("_total") for name in metrics)


def test_the_panels_of_the_board_do_not_overlap() -> None:
    taken = set()
    for panel in json.loads(text_of("grafana/board.json"))["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells


@pytest.mark.parametrize("name", ["Containerfile", "compose.yaml", "ptune-serve.service", "kubernetes.yaml"])
def test_every_setting_by_environment_exists(name) -> None:
    named = {setting.lower() for setting in re.findall(r"PTUNE_SERVE_([A-Z_]+)", text_of(name))}
    assert named
    assert named <= ServeSettings.model_fields.keys()


@pytest.mark.parametrize("name", ["Containerfile", "kubernetes.yaml", "prometheus.yaml"])
def test_every_path_that_is_asked_exists(name, server) -> None:
    paths = set(re.findall(r"(?:path: |metrics_path: |127\.0\.0\.1:8080)(/[\w/]+)", text_of(name))) - {"/etc"}
    served = {getattr(route, "path", "") for route in server.app.routes} | set(server.app.openapi()["paths"])
    assert paths
    assert paths <= served


def test_probes_tell_a_process_that_runs_from_one_that_is_ready() -> None:
    deployment = next(one for one in documents(DEPLOY / "kubernetes.yaml") if one["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["livenessProbe"]["httpGet"]["path"] == "/v2/health/live"
    assert container["readinessProbe"]["httpGet"]["path"] == container["startupProbe"]["httpGet"]["path"]
    environment = {one["name"]: one["value"] for one in container["env"]}
    stop = ServeSettings.model_fields["stop_seconds"].default
    grace = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace > float(environment["PTUNE_SERVE_DRAIN_SECONDS"]) + stop
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert f"PTUNE_SERVE_PORT={ports['http']}" in text_of("Containerfile")


def test_compose_mounts_files_that_are_there_and_gives_the_server_time_to_stop() -> None:
    (compose,) = documents(DEPLOY / "compose.yaml")
    sources = [volume.split(":")[0] for service in compose["services"].values() for volume in service["volumes"]]
    made_by_hand = {"./adapters", "./backbones"}  # as the first lines of the file say
    for source in {one for one in sources if one.startswith("./")} - made_by_hand:
        assert (DEPLOY / source).exists(), source
    assert {one for one in sources if not one.startswith("./")} <= compose["volumes"].keys()
    ptune = compose["services"]["ptune"]
    stop = ServeSettings.model_fields["stop_seconds"].default
    drain = float(ptune["environment"]["PTUNE_SERVE_DRAIN_SECONDS"])
    assert float(ptune["stop_grace_period"].removesuffix("s")) > drain + stop
    assert (DEPLOY / ptune["build"]["context"]).resolve() == ROOT
    assert (ROOT / ptune["build"]["dockerfile"]).is_file()


def test_the_example_of_keys_is_one_that_the_server_takes(tmp_path) -> None:
    file = tmp_path / "keys.yaml"
    file.write_text(text_of("keys.example.yaml"))
    keys = Keys(ServeSettings(adapters=["x"], api_keys_file=file))
    app = keys.caller("Bearer replace-this-by-a-key-of-your-own")
    customer = keys.caller("Bearer replace-this-too-by-another-key")
    assert app is not None
    assert customer is not None
    assert app.may_use("customer-41-news")
    assert (customer.may_use("customer-42-news"), customer.may_use("customer-41-news")) == (True, False)
    file.write_text("keys: [{name: a, key: short}]")
    with pytest.raises(ConfigError, match="has 16 or more"):
        Keys(ServeSettings(adapters=["x"], api_keys_file=file))


def test_the_container_copies_files_that_are_there_and_not_ignored() -> None:
    copied = [
        word
        for line in text_of("Containerfile").splitlines()
        if re.match(r"COPY [^-]", line)
        for word in line.split()[1:-1]
    ]
    assert copied
    allowed = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] == "!"}
    for name in copied:
        assert (ROOT / name).exists(), name
        assert name in allowed, name


def test_the_unit_of_systemd_is_valid_as_far_as_can_be_told() -> None:
    text = text_of("ptune-serve.service")
    sections = re.findall(r"^\[(\w+)\]$", text, re.MULTILINE)
    assert sections == ["Unit", "Service", "Install"]
    assert all(re.fullmatch(r"(#.*|\[\w+\]|\w+=.*|)", line) for line in text.splitlines())
    (command,) = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    words = shlex.split(command)
    assert words[0].endswith("/ptune")
    options = [word.removeprefix("--").replace("-", "_") for word in words if word.startswith("--")]
    assert set(options) <= ServeSettings.model_fields.keys()
    if shutil.which("systemd-analyze") is None:
        return
    unit = str(DEPLOY / "ptune-serve.service")
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    # The program is not installed here, and nothing else may be wrong.
    assert [line for line in done.stderr.splitlines() if "/opt/ptune" not in line and "ptune-serve" in line] == []
