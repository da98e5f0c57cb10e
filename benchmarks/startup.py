"""Time to start: `ptune --help`, and `ptune train` from the command to its first optimizer step.

    python benchmarks/startup.py [--models minilm] [--repeats 5]

The backbone is on this machine already, the data are 400 pairs in a file. The first step is over when the checkpoint
of step 1 is there (--checkpoint-steps 1). Beside each is the time of importing what it cannot do without, in the same
run: `ratio` is the one by the other. The best of the rounds counts. Bars: 0.5 s for help, 8 s for the first step.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from common import CLASSES, Cell, drawn_pairs, interleave, load_model, parse, report, speed_options

from ptune.training.checkpoint import CHECKPOINT_FILE

ROWS = 400
PTUNE = (sys.executable, "-m", "ptune")
BARS = {"help": 0.5, "first step": 8.0}
# What the command line is made of; what a model of transformers is.
IMPORTS = {
    "help": "import cyclopts, pydantic, rich.console",
    "first step": "import torch, transformers.modeling_utils",
}


def main() -> None:
    options = read_options()
    report("startup", options, measure(options))


def read_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = speed_options(__doc__)
    parser.set_defaults(repeats=5)
    return parse(parser, arguments, {"models": ["minilm"], "repeats": 3})


def measure(options: argparse.Namespace) -> Cell:
    """A table for each model, in seconds."""
    return {name: _table(name, options) for name in options.models}


def _table(name: str, options: argparse.Namespace) -> Cell:
    with tempfile.TemporaryDirectory() as folder:
        backbone = load_model(name, Path(folder), options)
        data = Path(folder) / "data.jsonl"
        with data.open("w", encoding="utf-8") as file:
            for number, (first, second) in enumerate(drawn_pairs(backbone, ROWS)):
                file.write(json.dumps({"text": first, "text_pair": second, "label": number % CLASSES}) + "\n")
        train = [*PTUNE, "train", "--backbone", backbone.name, "--data", str(data), "--device", options.device]
        train += ["--dtype", options.dtype, *(["--random-weights"] if name != "minilm" else [])]
        runners: dict[str, Callable[[], float]] = {
            "help": partial(_run, [*PTUNE, "--help"]),
            "first step": partial(_first_step, train, Path(folder) / "runs"),
        }
        runners |= {f"imports of {what}": partial(_run, [sys.executable, "-c", IMPORTS[what]]) for what in IMPORTS}
        seconds = {what: min(values) for what, values in interleave(runners, options.repeats).items()}
    return {
        what: {
            "seconds": round(seconds[what], 3),
            "bar": bar,
            "imports": round(seconds[f"imports of {what}"], 3),
            "ratio": round(seconds[what] / seconds[f"imports of {what}"], 2),
        }
        for what, bar in BARS.items()
    }


def _run(command: Sequence[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def _first_step(command: Sequence[str], runs: Path) -> float:
    runs.mkdir(exist_ok=True)
    output = Path(tempfile.mkdtemp(dir=runs))
    whole = [*command, "--output", str(output), "--checkpoint-steps", "1", "--epochs", "1"]
    started = time.perf_counter()
    with subprocess.Popen(whole, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while not (output / CHECKPOINT_FILE).exists():
            if process.poll() is not None:
                raise RuntimeError(f"training ended before its first step: {process.stderr and process.stderr.read()}")
            time.sleep(0.002)
        seconds = time.perf_counter() - started
        process.terminate()
    return seconds


if __name__ == "__main__":
    main()
