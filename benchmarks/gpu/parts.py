"""Processes with time limits: what benchmarks/gpu/run is made of. Standard library alone."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Part:
    """One process: what to run and for how long at most. timed: it is told how long that is."""

    name: str
    command: list[str]
    seconds: float
    timed: bool = False
    status: str = "not run"
    took: float = 0.0
    log: Path | None = None
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    limit: float = 0.0


def run_parts(parts: list[Part], environment: dict[str, str], work: Path, until: float) -> None:
    """Run parts side by side, each to its end or its limit, and none beyond `until`."""
    try:
        for part in parts:
            if time.monotonic() < until:
                start(part, environment, work, until)
        while running := [part for part in parts if part.status == "running"]:
            for part in running:
                look(part)
            time.sleep(0.1)
    finally:
        for part in parts:
            if part.process is not None and part.process.poll() is None:
                stop(part)


def start(part: Part, environment: dict[str, str], work: Path, until: float) -> None:
    """Start a part, in a process group of its own, so that it can be ended with all that it has started."""
    part.started, part.status = time.monotonic(), "running"
    part.limit = min(part.started + part.seconds, until)
    seconds = ["--seconds", f"{part.limit - part.started - 10:.0f}"] if part.timed else []
    part.log = work / f"{part.name}.log"
    with part.log.open("wb") as log:
        part.process = subprocess.Popen(
            [*part.command, *seconds], cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, process_group=0
        )


def look(part: Part) -> None:
    """Note whether a part has ended, and end it where its time is over."""
    assert part.process is not None
    code, now = part.process.poll(), time.monotonic()
    if code is None and now < part.limit:
        return
    part.took = now - part.started
    part.status = {0: "done", None: f"stopped after {part.took:.0f} s"}.get(code, f"failed with {code}")
    if code is None:
        stop(part)
    print(f"{part.name}: {part.status}, {part.took:.0f} s", flush=True)


def stop(part: Part) -> None:
    """End a part with all that it has started."""
    assert part.process is not None
    os.killpg(part.process.pid, signal.SIGKILL)
    part.process.wait()


def last_lines(part: Part, count: int) -> str:
    """The end of what a part has printed."""
    return tail(part.log.read_text("utf-8", "replace"), count) if part.log is not None else ""


def tail(text: str, count: int) -> str:
    """The last lines of a text."""
    return "\n".join(text.strip().splitlines()[-count:])
