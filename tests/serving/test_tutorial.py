"""The last steps of the tutorial: what it asks the server is answered, and its client works."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="needs the extra 'serve'")

from tests.serving.running import RunningServer, save_kind

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"
BLOCK = re.compile(r"tests/serving/test_tutorial\.py -->\n```(?P<language>\w+)\n(?P<code>.*?)^```$", re.M | re.S)
HERE = "http://127.0.0.1:8080"


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_requests_of_the_tutorial_are_answered(backbone, backbone_folder, tmp_path, capsys) -> None:
    folder = save_kind(tmp_path, backbone("bert"), "topics")
    served = {"adapters": [f"helpdesk={folder}"], "backbone": [str(backbone_folder("bert"))]}
    (_, curl), (_, client) = BLOCK.findall(TUTORIAL.read_text(encoding="utf-8"))
    with RunningServer(**served) as server:
        command = curl.replace(HERE, server.url).replace("curl ", "curl --fail-with-body ")
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
        assert len(json.loads(done.stdout)) == 7
        exec(compile(client.replace(HERE, server.url), "client", "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out.count("'") == 6  # three queues
