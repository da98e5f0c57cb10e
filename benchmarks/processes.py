"""Measure what several processes gain in training: `ptune train` alone and under torchrun, one thread in each process.

    python benchmarks/processes.py [--rows N] [--workers 1 2] [--write]

All train the same adapter over all-MiniLM-L6-v2 from rows with the lengths of lengths.json, with the same rows in each
step. `wall_seconds` is the whole command, with its start; `rows_per_second` is the training with its validation.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import MINILM, drawn_pairs, load_model, parse, report, speed_options


def write_rows(file: Path, pairs: list[tuple[str, str]]) -> None:
    """Write labelled pairs. The label says which text is longer, so there is something to learn."""
    with file.open("w", encoding="utf-8", newline="") as content:
        writer = csv.writer(content)
        writer.writerow(["sentence1", "sentence2", "label"])
        writer.writerows([text, pair, "first" if len(text) > len(pair) else "second"] for text, pair in pairs)


def train(workers: int, launcher: bool, data: Path, output: Path, batch: int) -> dict[str, float]:
    """Train once, and return its speed and how long the whole command took."""
    start = ["-m", "torch.distributed.run", "--nproc-per-node", str(workers)] if launcher else []
    command = [sys.executable, *start, "-m", "ptune", "train", "--backbone", MINILM, "--data", str(data)]
    command += [
        "--output",
        str(output),
        "--epochs",
        "1",
        "--batch-size",
        str(batch // workers),
        "--overwrite",
        "--json",
    ]
    command += ["--no-report", "--dtype", "float32", "--device", "cpu", "--lr", "0.003", "--objective", "labels"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    began = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    answer = json.loads(done.stdout.splitlines()[-1])
    return {
        "rows_per_second": answer["examples_per_second"],
        "wall_seconds": seconds,
        "loss": answer["metrics"]["loss"],
    }


def main(arguments: list[str] | None = None) -> None:
    parser = speed_options(__doc__)
    parser.add_argument("--rows", type=int, default=1500, help="rows, of which a tenth is held back for validation")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batch", type=int, default=32, help="rows of a step, over all processes")
    options = parse(parser, arguments, {"rows": 300, "repeats": 1})
    variants = {"ptune train": (1, False)}
    variants |= {f"torchrun, {count} process{'es' if count > 1 else ''}": (count, True) for count in options.workers}
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in variants}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "rows.csv"
        write_rows(data, drawn_pairs(load_model("minilm", Path(folder), options), options.rows))
        for _ in range(options.repeats):
            for name, (workers, launcher) in variants.items():
                runs[name].append(train(workers, launcher, data, Path(folder) / "adapter", options.batch))
    base = max(run["rows_per_second"] for run in runs["ptune train"])
    table = {}
    for name, (workers, _) in variants.items():
        speed = max(run["rows_per_second"] for run in runs[name])
        table[name] = {
            "rows_per_second": speed,
            "times": round(speed / base, 2),
            "efficiency": round(speed / base / workers, 2),
            "wall_seconds": round(min(run["wall_seconds"] for run in runs[name]), 1),
            "rounds": [run["rows_per_second"] for run in runs[name]],
            "validation_loss": round(runs[name][0]["loss"], 4),
        }
    report("processes", options, {"training": table})


if __name__ == "__main__":
    main()
