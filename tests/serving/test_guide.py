"""The guide for operators does what it says: its requests are answered, and its tables are complete."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="needs the extra 'serve'")

from ptune.serving.replies import _TEI_TYPES
from tests.serving.running import RunningServer, save_kind, save_kinds

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "serving.md"
KEY, ADMIN = "a-key-for-the-guide", "a-key-for-administrators"
HERE = "http://127.0.0.1:8080"
CURL = re.compile(r"^```bash\n((?:curl|tar).*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def server(backbone, backbone_folder, tmp_path_factory) -> Iterator[RunningServer]:
    folder = save_kinds(tmp_path_factory.mktemp("served"), backbone("bert"))
    with RunningServer(
        adapters=[str(folder)],
        backbone=[str(backbone_folder("bert"))],
        default_adapter="reviews",
        api_keys=[KEY],
        admin_keys=[ADMIN],
    ) as running:
        yield running


def blocks() -> list[str]:
    return CURL.findall(GUIDE.read_text(encoding="utf-8"))


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("block", blocks(), ids=lambda block: block.splitlines()[0][:60])
def test_every_request_of_the_guide_is_answered(block, server, backbone, tmp_path) -> None:
    save_kind(tmp_path, backbone("bert"), "moods")
    (tmp_path / "moods").rename(tmp_path / "new")
    lines = re.sub(r"\\\n\s*", "", block).strip().splitlines()
    for line in lines:
        key = "" if "PTUNE_ADMIN_KEY" in line else f" -H 'Authorization: Bearer {KEY}'"
        options = (
            f" --silent --show-error --fail-with-body -w '\\n%{{http_code}}'{key}" if line.startswith("curl") else ""
        )
        done = subprocess.run(
            ["bash", "-c", line.replace(HERE, server.url) + options],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env={**os.environ, "PTUNE_ADMIN_KEY": ADMIN},
        )
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        if not line.startswith("curl"):
            continue
        body, status = done.stdout.rsplit("\n", 1)
        assert status in ("200", "201", "204"), line
        assert body == "" or json.loads(body) is not None


def test_the_guide_has_a_request_for_every_protocol() -> None:
    asked = set(re.findall(rf"{HERE}(\S*)", "".join(blocks())))
    wanted = {
        "/predict",
        "/adapters/reviews/predict",
        "/adapters/reviews",
        "/",
        "/classify",
        "/v1/classify",
        "/v1/models",
    }
    assert wanted | {"/predict-many", "/v2/models/reviews/infer", "/adapters", "/adapters/new"} <= asked


def test_every_status_that_the_server_knows_is_explained() -> None:
    listed = {int(status) for status in re.findall(r"^\| (\d{3}) \|", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)}
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src" / "ptune" / "serving").rglob("*.py"))
    raised = {int(status) for status in re.findall(r"RequestError\([^()]*?(?:\([^()]*\)[^()]*?)*?\b([45]\d\d)\b", code)}
    assert len(raised) > 8
    assert raised | _TEI_TYPES.keys() <= listed


def test_the_tables_of_the_guide_are_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)  # type: ignore[union-attr]
    assert generate.serving_page() == GUIDE.read_text(encoding="utf-8"), "run `make docs`"


def test_settings_that_the_guide_names_exist() -> None:
    from ptune.serving.settings import ServeSettings

    text = GUIDE.read_text(encoding="utf-8")
    named = set(re.findall(r"PTUNE_SERVE_([A-Z_]+)", text)) - {"ADAPTER_MEMORY"}
    assert {name.lower() for name in named} <= ServeSettings.model_fields.keys()
    options = set(re.findall(r"ptune serve [^\n]*?--([a-z-]+)", text))
    assert {name.replace("-", "_") for name in options} <= ServeSettings.model_fields.keys()
