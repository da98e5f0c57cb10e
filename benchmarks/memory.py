"""Memory of training: PEFT's P-tuning as in its guide against ptune, each in a process of its own. Linux.

    python benchmarks/memory.py [--models minilm roberta-base ...] [--data DATA] [--steps 6]

The same rows, batch 32, as in train_speed.py. `loaded` is what the process takes with the model loaded, libraries
included; `peak` the most that it takes in training; `over` the difference, and `ratio` that of PEFT by one's own.
Resident memory on a CPU; on a GPU what torch has allocated there. The least of the rounds counts.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import torch
from common import Cell, load_model, parse, place, report, speed_options, spread_rows, training_rows
from train_speed import BATCH, PEER, PeftTraining, methods, ptune_runner

import ptune
from ptune.data.encode import Encoded
from ptune.model.loading import pick_device
from ptune.model.locate import locate
from ptune.training.steps import Rows


def main() -> None:
    options = read_options()
    if options.child:
        print(json.dumps(_child(options.models[0], options.child[0], Path(options.child[1]), options)))
    else:
        report("memory", options, measure(options))


def read_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = speed_options(__doc__)
    parser.set_defaults(repeats=1)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--child", nargs=2, metavar=("METHOD", "FOLDER"), help=argparse.SUPPRESS)
    return parse(parser, arguments, {"models": ["minilm"], "steps": 3, "repeats": 1})


def measure(options: argparse.Namespace) -> Cell:
    """A table for each model, in megabytes."""
    tables = {}
    for name in options.models:
        with tempfile.TemporaryDirectory() as folder:
            backbone = load_model(name, Path(folder), options)
            rows, labels = training_rows(options.data, backbone)
            chosen = spread_rows(rows, options.steps * BATCH)
            content = [(rows[row].ids, rows[row].segments, labels[row]) for row in chosen]
            (Path(folder) / "rows.json").write_text(json.dumps(content), encoding="utf-8")
            names = [PEER, *methods(backbone)]
            del backbone
            table = {method: _least(name, method, folder, options) for method in names}
        for figures in table.values():
            figures["ratio"] = round(table[PEER]["over"] / figures["over"], 2)
        tables[name] = table
    return tables


def _least(name: str, method: str, folder: str, options: argparse.Namespace) -> Cell:
    command = [sys.executable, __file__, "--models", name, "--dtype", options.dtype, "--device", options.device]
    command += ["--child", method, folder]
    figures = []
    for _ in range(options.repeats):
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        figures.append(json.loads(done.stdout.splitlines()[-1]))
    return min(figures, key=lambda own: own["over"])


def _child(name: str, method: str, folder: Path, options: argparse.Namespace) -> Cell:
    """Load the model, train, and say what it took."""
    warnings.simplefilter("ignore")
    content = json.loads((folder / "rows.json").read_text(encoding="utf-8"))
    encoded = [Encoded(ids, segments) for ids, segments, _ in content]
    labels = [label for *_, label in content]
    path, random_weights = place(name, folder)
    device = pick_device(options.device)
    if method == PEER:  # without a backbone of ptune's beside it
        source = SimpleNamespace(location=locate(path), dtype=getattr(torch, options.dtype), device=device)
        train = PeftTraining(source, encoded, labels).plain_loop
    else:
        backbone = ptune.load_backbone(path, dtype=options.dtype, device=options.device, random_weights=random_weights)
        train = ptune_runner(backbone, Rows(encoded, torch.tensor(labels)), methods(backbone)[method])
    loaded = _memory(device, start=True)
    train()
    peak = _memory(device, start=False)
    return {"loaded": round(loaded), "peak": round(peak), "over": round(peak - loaded)}


def _memory(device: torch.device, start: bool) -> float:
    """Megabytes: now, at the start, from where on the peak counts; else at the peak."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device) if start else torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) / 2**20
    if start:
        Path("/proc/self/clear_refs").write_text("5")  # the peak is what is there now
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    main()
