"""A sweep and a bulk prediction on a local Ray cluster, beside the same work without one.

python benchmarks/scale.py sweep      20 trials, killed and resumed, beside 20 fresh processes one after another
python benchmarks/scale.py predict    200,000 rows with a worker killed midway, beside the local command

Both print a table of times, and what was compared; --write writes a dated file into benchmarks/results.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import pyarrow
import pyarrow.compute as compute
import pyarrow.csv as arrow_csv
import pyarrow.dataset as datasets
import pyarrow.parquet as parquet
import torch
import yaml
from common import MINILM, SHAPES, Cell, facts, place, write_results

import ptune
from ptune.adapter.folder import read_adapter, save_adapter
from ptune.adapter.layout import Record
from ptune.model.locate import locate
from ptune.model.tokenizer import load_tokenizer
from ptune.scale.predict_files import Shards
from ptune.scale.sweep_search import Search, best_trial
from ptune.scale.sweep_settings import read_settings
from ptune.scale.sweep_trials import Task, Trial, read_trials

PTUNE = [sys.executable, "-m", "ptune"]
# Not the seed: a command with another seed draws other rows, where a sweep keeps its rows.
SPACE = {
    "lr": {"log-uniform": [1e-4, 1e-1]},
    "virtual_tokens": {"choice": [4, 8, 16]},
    "weight_decay": {"log-uniform": [1e-3, 1e-1]},
}
# A backbone so small that reading, tokenizing and writing are a large part of the work.
SHAPES["small"] = {
    "model_type": "bert",
    "vocab_size": 30522,
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the part that is asked for."""
    options = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        result = options.part(options, Path(folder))
    print(json.dumps(result, indent=2))
    if options.write:
        asked = {name: value for name, value in vars(options).items() if name not in ("part", "write", "name", "data")}
        # A run over another backbone is another measurement, and has a file of its own.
        suffix = f"-{options.model}" if options.name == "predict" and options.model != "small" else ""
        write_results(f"scale-{options.name}{suffix}", {"facts": facts(), "options": asked, "tables": result})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(required=True, dest="name")
    sweep = parts.add_parser("sweep")
    sweep.set_defaults(part=measure_sweep)
    sweep.add_argument("--data", default="", help="labelled text; default: the news of ptune demo")
    sweep.add_argument("--trials", type=int, default=20)
    sweep.add_argument("--search", default="random", choices=("random", "tpe"))
    sweep.add_argument("--asha", action="store_true", help="stop trials of the sweep early")
    sweep.add_argument("--train-rows", type=int, default=160)
    sweep.add_argument("--model", default="minilm", help=f"minilm or a shape: {', '.join(SHAPES)}")
    sweep.add_argument("--validation-rows", type=int, default=160)
    sweep.add_argument("--epochs", type=int, default=2)
    sweep.add_argument("--max-length", type=int, default=32)
    predict = parts.add_parser("predict")
    predict.set_defaults(part=measure_predict)
    predict.add_argument("--rows", type=int, default=200_000)
    predict.add_argument("--files", type=int, default=4)
    predict.add_argument("--words", type=int, default=8, help="words of a text, on average")
    predict.add_argument("--model", default="small", help=f"minilm or a shape: {', '.join(SHAPES)}")
    for part in (sweep, predict):
        part.add_argument("--workers", type=int, default=2)
        part.add_argument("--write", action="store_true", help="write a dated file into benchmarks/results")
        part.add_argument("--note", help="a remark for that file")
    return parser


def measure_sweep(options: argparse.Namespace, folder: Path) -> Cell:
    """Return times and best values of a sweep that is killed and resumed, and of processes one after another."""
    base = {
        "backbone": _backbone(options.model, folder),
        "data": options.data or str(_news(folder)),
        "epochs": options.epochs,
        "max_train_rows": options.train_rows,
        "max_validation_rows": options.validation_rows,
        "max_length": options.max_length,
        "objective": "labels",
    }
    section = {"trials": options.trials, "search": options.search, "space": SPACE, "metric": "accuracy"}
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({**base, "sweep": {**section, "asha": options.asha}}), encoding="utf-8")
    seconds, trials = _sequential(base, section, folder)
    killed, resumed, kept, swept = _killed_and_resumed(path, folder / "swept", options)
    ways = {"fresh processes": (seconds, trials), "sweep, killed and resumed": (killed + resumed, swept)}
    table: Cell = {}
    for way, (took, done) in ways.items():
        best = best_trial(done, "accuracy")
        assert best is not None
        table[way] = {"seconds": round(took, 1), "trials": len(done), "best_accuracy": best.value, "with": best.values}
    table["sweep, killed and resumed"] |= {
        "seconds_until_killed": round(killed, 1),
        "finished_when_killed": kept,
        "times_as_fast": round(seconds / (killed + resumed), 2),
    }
    return table


def _sequential(base: Cell, section: Cell, folder: Path) -> tuple[float, list[Trial]]:
    """Search in the same way, with a process of `ptune train` for each trial."""
    task = Task(base["backbone"], {}, base, "accuracy", folder / "one_by_one")
    search = Search(read_settings(section, base), task)
    started = time.perf_counter()
    while (trial := search.next("this process")) is not None:
        output = trial.folder(task.output)
        given = {**base, **trial.values, "output": output}
        listed = [word for name, value in given.items() for word in ("--" + name.replace("_", "-"), str(value))]
        subprocess.run([*PTUNE, "train", *listed, "--no-report"], check=True, capture_output=True)
        metrics = dict(read_adapter(output).record.metrics)
        search.finish(dataclasses.replace(trial, state="finished", value=metrics["accuracy"], metrics=metrics))
    return time.perf_counter() - started, search.trials


def _killed_and_resumed(path: Path, output: Path, options: argparse.Namespace) -> tuple[float, float, int, list[Trial]]:
    """Return the seconds before and after the kill, the trials that were finished by then, and all trials."""
    command = [*PTUNE, "sweep", str(path), "--output", str(output), "--workers", str(options.workers)]
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        _wait(process, lambda: _done(output) >= options.trials // 2)
        process.send_signal(signal.SIGKILL)
    killed, kept = time.perf_counter() - started, _done(output)
    started = time.perf_counter()
    subprocess.run([*command, "--resume"], check=True, stdout=subprocess.DEVNULL)
    return killed, time.perf_counter() - started, kept, read_trials(output)


def _done(output: Path) -> int:
    return sum(trial.done for trial in read_trials(output))


def _news(folder: Path) -> Path:
    """Write the articles of `ptune demo` to a folder with two splits."""
    from ptune.cli.demo import bbc_news

    articles, target = bbc_news(), folder / "news"
    target.mkdir()
    for name, split in articles.splits.items():
        labels = [articles.labels[int(label)] for label in split.labels or []]
        parquet.write_table(pyarrow.table({"text": split.texts, "label": labels}), target / f"{name}.parquet")
    return target


def measure_predict(options: argparse.Namespace, folder: Path) -> Cell:
    """Return times of the local command and of a cluster that loses a worker midway, and what was compared."""
    adapter, source = _adapter(options.model, folder), folder / "in"
    source.mkdir()
    rows = _write_rows(source, options)
    whole = folder / "all.csv"
    arrow_csv.write_csv(rows, whole)
    started = time.perf_counter()
    local = [*PTUNE, "predict", str(adapter), "--input", str(whole), "--output", str(folder / "local.parquet")]
    subprocess.run(local, check=True, capture_output=True)
    local_seconds = time.perf_counter() - started
    output, victims = folder / "out", 0
    command = [*PTUNE, "predict", str(adapter), "--input", str(source), "--output", str(output), "--scale", "ray"]
    started = time.perf_counter()
    with subprocess.Popen([*command, "--workers", str(options.workers)]) as process:
        shards = Shards(output)
        _wait(process, lambda: len(shards.finished()) * 8192 >= options.rows // 2)
        workers = _workers_of(process.pid)
        workers[0].kill()
        victims = 1
    seconds = time.perf_counter() - started
    assert process.returncode == 0, process.returncode
    return {
        "local": {"seconds": round(local_seconds, 1), "rows_per_second": round(options.rows / local_seconds, 1)},
        "cluster": {
            "seconds": round(seconds, 1),
            "rows_per_second": round(options.rows / seconds, 1),
            "ratio": round(local_seconds / seconds, 3),
            "workers_killed": victims,
            **_compared(output, folder / "local.parquet"),
        },
    }


def _compared(output: Path, local: Path) -> Cell:
    """Return how the rows of the shards differ from those of the local command."""
    found = datasets.dataset(sorted(output.glob("*.parquet"))).to_table()
    expected = parquet.read_table(local)
    score = next(name for name in expected.column_names if name.startswith("score_"))
    same = found["id"] == expected["id"]
    difference = compute.max(compute.abs(compute.subtract(found[score], expected[score]))).as_py() if same else None
    return {
        "rows": found.num_rows,
        "different_rows": compute.count_distinct(found["id"]).as_py(),
        "in_order": same,
        "shards": len(list(output.glob("*.parquet"))),
        "largest_difference_of_a_score": difference,
    }


def _backbone(model: str, folder: Path) -> str:
    """Return what to load a model by. Random weights are written for a shape, because the commands read a file."""
    from transformers import AutoConfig, AutoModel

    path, random_weights = place(model, folder)
    if random_weights:
        torch.manual_seed(0)
        AutoModel.from_config(AutoConfig.from_pretrained(path)).save_pretrained(path)
    return path


def _adapter(model: str, folder: Path) -> Path:
    """Write an adapter with random weights."""
    backbone = ptune.load_backbone(_backbone(model, folder))
    classifier = ptune.PromptClassifier.from_backbone(backbone, labels=["no", "yes"])
    save_adapter(folder / "adapter", classifier, Record.of(classifier))
    return folder / "adapter"


def _write_rows(source: Path, options: argparse.Namespace) -> pyarrow.Table:
    """Write texts of random words to files of equal size, and return them all."""
    words = sorted(word for word in load_tokenizer(locate(MINILM)).get_vocab() if word.isalpha() and word.isascii())
    draw = random.Random(0)
    sizes = [draw.randint(1, 2 * options.words - 1) for _ in range(options.rows)]
    texts = [" ".join(draw.choices(words, k=size)) for size in sizes]
    rows = pyarrow.table({"id": list(range(options.rows)), "text": texts})
    size = -(-options.rows // options.files)
    for number in range(options.files):
        arrow_csv.write_csv(rows.slice(number * size, size), source / f"{number}.csv")
    return rows


def _workers_of(driver: int) -> list[psutil.Process]:
    return [
        process
        for process in psutil.Process(driver).children(recursive=True)
        if "Predictor" in " ".join([process.name(), *process.cmdline()])
    ]


def _wait(process: subprocess.Popen[bytes], condition: Callable[[], bool]) -> None:
    """Wait until a condition holds while a process runs."""
    while not condition():
        if process.poll() is not None:
            sys.exit(f"the command ended too early, with {process.returncode}; give more rows or trials")
        time.sleep(0.05)


if __name__ == "__main__":
    main()
