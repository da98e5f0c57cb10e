"""Memory, each measurement in a process of its own. Linux.

    python benchmarks/memory.py [--models minilm roberta-base ...] [--data DATA] [--steps 6] [--checkpointing]
    python benchmarks/memory.py --adapters 200 [--models minilm ...]
    python benchmarks/memory.py --growth 2000 --dtype bfloat16 [--models minilm ...]

The first form is about training: PEFT's P-tuning as in its guide against ptune.

The same rows, batch 32, as in train_speed.py. `loaded` is what the process takes with the model loaded, libraries
included; `peak` the most that it takes in training; `over` the difference, and `ratio` that of PEFT by one's own.
Resident memory on a CPU; on a GPU what torch has allocated there. The least of the rounds counts.

The second form is about many adapters over one backbone on the CPU, in PyTorch and in int8. `first` is what the first
adapter takes with all that the others share: tokenizer, compiled graph, and what a first prediction leaves behind.
`others` is what the others take, each having predicted once, `files` the size of their files, and `times` the one
divided by the other. `left` is what is still taken when they are gone. All in megabytes.

The third form takes so many steps of 8 rows with the default settings. Batches are of the lengths that rows have.
`early` is the resident memory after a tenth of the steps, `end` that after the last, and `growth` what it grows by in
1,000 steps from then on (least squares).
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
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
from ptune.adapter.folder import save_adapter
from ptune.adapter.layout import Record
from ptune.data.encode import Encoded
from ptune.model.loading import pick_device
from ptune.model.locate import locate
from ptune.training.steps import Rows

GROWTH_BATCH = 8
CHECKPOINTING = ", checkpointing"


def main() -> None:
    options = read_options()
    if options.load:
        print(json.dumps(_load_all(options.models[0], options.load[0], Path(options.load[1]), options.adapters)))
    elif options.growth:
        report("growth", options, measure_growth(options))
    elif options.adapters:
        report("adapters", options, measure_adapters(options))
    elif options.child:
        print(json.dumps(_child(options.models[0], options.child[0], Path(options.child[1]), options)))
    else:
        report("memory", options, measure(options))


def read_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = speed_options(__doc__)
    parser.set_defaults(repeats=1)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--bfloat16", action="store_true", help="ptune on a bfloat16 backbone as well")
    parser.add_argument("--checkpointing", action="store_true", help="ptune with gradient checkpointing as well")
    parser.add_argument("--adapters", type=int, default=0, help="measure so many adapters instead of training")
    parser.add_argument("--growth", type=int, default=0, help="measure the growth over so many steps instead")
    parser.add_argument("--load", nargs=2, metavar=("PRECISION", "FOLDER"), help=argparse.SUPPRESS)
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
            names = list(methods(backbone))
            names += [name + CHECKPOINTING for name in names] if options.checkpointing else []
            del backbone
            table = {method: _least(name, method, folder, options, options.dtype) for method in [PEER, *names]}
            if options.bfloat16:
                halves = {f"{method}, bfloat16": _least(name, method, folder, options, "bfloat16") for method in names}
                table |= halves
        for figures in table.values():
            figures["ratio"] = round(table[PEER]["over"] / figures["over"], 2)
        tables[name] = table
    return tables


def _least(name: str, method: str, folder: str, options: argparse.Namespace, dtype: str) -> Cell:
    command = [sys.executable, __file__, "--models", name, "--dtype", dtype, "--device", options.device]
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
        own = Rows(encoded, torch.tensor(labels))
        prompt = methods(backbone)[method.removesuffix(CHECKPOINTING)]
        train = ptune_runner(backbone, own, prompt, checkpointing=method.endswith(CHECKPOINTING))
    loaded = _memory(device, start=True)
    train()
    peak = _memory(device, start=False)
    return {"loaded": round(loaded), "peak": round(peak), "over": round(peak - loaded)}


def measure_adapters(options: argparse.Namespace) -> Cell:
    """A table for each model: many adapters over one backbone."""
    tables = {}
    for name in options.models:
        with tempfile.TemporaryDirectory() as folder:
            _save_adapters(name, Path(folder), options.adapters)
            command = [sys.executable, __file__, "--models", name, "--adapters", str(options.adapters), "--load"]
            table = {}
            for precision in ("float32", "int8"):
                done = subprocess.run([*command, precision, folder], stdout=subprocess.PIPE, text=True, check=True)
                table[f"ptune.load, {precision}"] = json.loads(done.stdout.splitlines()[-1])
        tables[name] = table
    return tables


def _save_adapters(name: str, folder: Path, count: int) -> None:
    """Write adapters with the default settings and random weights, one more than are counted."""
    path, random_weights = place(name, folder)
    backbone = ptune.load_backbone(path, dtype="float32", device="cpu", random_weights=random_weights)
    for number in range(count + 1):
        model = ptune.PromptClassifier(backbone, ptune.PromptConfig(), ["no", "yes"], seed=number)
        save_adapter(folder / f"adapter-{number}", model, Record.of(model, max_length=128))


def _load_all(name: str, precision: str, folder: Path, count: int) -> Cell:
    """Load adapters over one backbone, predict once with each, and let them go."""
    path, random_weights = place(name, folder)
    backbone = ptune.load_backbone(path, dtype="float32", device="cpu", random_weights=random_weights)
    setting = None if precision == "float32" else precision
    start = _resident()

    def load(number: int) -> ptune.TextClassifier:
        classifier = ptune.load(folder / f"adapter-{number}", backbone, precision=setting)
        classifier.predict("One text of a few words.")
        return classifier

    kept = load(0)
    first = _resident()
    others = [load(number) for number in range(1, count + 1)]
    loaded = _resident()
    files = sum(ptune.read_adapter(classifier.folder).bytes for classifier in others) / 2**20
    del others
    left = _resident()
    assert kept.predict("One text of a few words.")
    return {
        "adapters": count,
        "first": round(first - start, 1),
        "others": round(loaded - first, 1),
        "files": round(files, 1),
        "times": round((loaded - first) / files, 2),
        "left": round(left - first, 1),
    }


def measure_growth(options: argparse.Namespace) -> Cell:
    """A table for each model: memory over many steps, in megabytes."""
    tables = {}
    for name in options.models:
        with tempfile.TemporaryDirectory() as folder:
            backbone = load_model(name, Path(folder), options)
            rows, labels = training_rows(options.data, backbone)
            count = options.growth * GROWTH_BATCH
            chosen = [number % len(rows) for number in range(count)]
            own = Rows([rows[row] for row in chosen], torch.tensor([labels[row] for row in chosen]))
            prompt = ptune.PromptConfig().settle(backbone.family)
            taken: list[tuple[float, float]] = []

            def look(done: int, taken: list[tuple[float, float]] = taken) -> None:
                if done % 20 == 0:
                    taken.append((done, _resident()))

            ptune_runner(backbone, own, prompt, batch=GROWTH_BATCH, on_step=look)()
        late = taken[len(taken) // 10 :]
        growth = 1000 * statistics.linear_regression(*zip(*late, strict=True)).slope
        figures = {"steps": options.growth, "early": round(late[0][1], 1), "end": round(late[-1][1], 1)}
        tables[name] = {f"ptune, {options.dtype}": {**figures, "growth": round(growth, 2)}}
    return tables


def _resident() -> float:
    """Megabytes of memory that the process has now."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


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
