"""Training speed: PEFT's P-tuning as in its guide against ptune, interleaved in one process, beside the floor.

    python benchmarks/train_speed.py [--models minilm roberta-base ...] [--data DATA] [--steps 6] [--repeats 3]

    peft                    the guide's method (20 virtual tokens, MLP of width 128) in a plain loop: batches of 32
                            random rows padded to their longest, dropout as the model's configuration has it, AdamW
    peft, Trainer           the same under transformers' Trainer, which the guide uses
    ptune p-tuning          the guide's method in ptune's training loop, the head where PEFT has it (pooling peft), or
                            where ptune has it with every other method
    ptune deep, N tokens    keys and values in every layer
    ..., bfloat16           with --bfloat16: the same with the frozen backbone in bfloat16
    ..., compiled           with --compile: the same through torch.compile, which compiles before the first round
    ..., checkpointing      with --checkpointing: the same with gradient checkpointing
    floor of ...            the matrix products of that method's step alone in the same number type, see floor.py

All else trains in the same number type, and all by batches of 32. Rows are as long as those of lengths.json, or come
from --data; each side sees as many as it steps over, chosen to stand for all by their lengths. `ratio` is to `peft`,
`floor` the share of the floor's speed. The best of the rounds counts.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from common import (
    CLASSES,
    Cell,
    clock,
    in_bfloat16,
    interleave,
    like_blocks,
    load_model,
    parse,
    peft_model,
    report,
    speed_options,
    speeds,
    spread_rows,
    training_rows,
)
from floor import floor_runner

import ptune
from ptune.data.encode import Encoded
from ptune.inference.classifier import TextClassifier
from ptune.model.backbone import Backbone
from ptune.model.tokenizer import load_tokenizer
from ptune.training.config import TrainConfig
from ptune.training.defaults import Task
from ptune.training.events import Listeners
from ptune.training.run import Run
from ptune.training.steps import Rows

BATCH = 32
TOKENS = 20
PEER = "peft"


def main() -> None:
    options = read_options()
    report("train_speed", options, measure(options))


def read_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = speed_options(__doc__)
    parser.add_argument("--steps", type=int, default=6, help="steps of one round")
    parser.add_argument("--bfloat16", action="store_true", help="ptune on a bfloat16 backbone as well")
    parser.add_argument("--compile", action="store_true", help="ptune through torch.compile as well")
    parser.add_argument("--checkpointing", action="store_true", help="ptune with gradient checkpointing as well")
    return parse(parser, arguments, {"models": ["minilm"], "steps": 3, "repeats": 2})


def measure(options: argparse.Namespace) -> Cell:
    """A table for each model."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        return {name: _table(name, Path(folder), options) for name in options.models}


def _table(name: str, folder: Path, options: argparse.Namespace) -> Cell:
    backbone = load_model(name, folder, options)
    backbones = {"": backbone}
    if options.bfloat16:
        backbones[", bfloat16"] = load_model(name, folder, in_bfloat16(options))
    rows, labels = training_rows(options.data, backbone)
    blocks = like_blocks(rows, options.steps, BATCH)
    alike, spread = [row for block in blocks for row in block], spread_rows(rows, options.steps * BATCH)
    peer = PeftTraining(backbone, [rows[row] for row in spread], [labels[row] for row in spread])
    runners: dict[str, Callable[[], float]] = {PEER: peer.plain_loop, "peft, Trainer": peer.trainer()}
    floors = {}
    for method, prompt in methods(backbone).items():
        own = Rows([rows[row] for row in alike], torch.tensor([labels[row] for row in alike]))
        runners |= {method + kind: ptune_runner(one, own, prompt) for kind, one in backbones.items()}
        lengths = [[len(rows[row]) for row in block] for block in blocks]
        for kind, one in backbones.items():
            floor = f"floor of {method}{kind}"
            floors[method + kind] = floor
            runners[floor] = floor_runner(one, prompt, lengths, one.device)
            if options.compile:
                runners[f"{method}{kind}, compiled"] = ptune_runner(one, own, prompt, compiled=True)
                floors[f"{method}{kind}, compiled"] = floor
            if options.checkpointing:
                runners[f"{method}{kind}, checkpointing"] = ptune_runner(one, own, prompt, checkpointing=True)
                floors[f"{method}{kind}, checkpointing"] = floor
    seconds = interleave(runners, options.repeats)
    table = speeds(seconds, PEER)
    for method, floor in floors.items():
        table[method]["floor"] = round(min(seconds[floor]) / min(seconds[method]), 2)
    return table


def methods(backbone: Backbone) -> dict[str, ptune.PromptConfig]:
    """What ptune trains, settled."""
    pooling = backbone.family.default_pooling
    shallow: dict[str, Any] = {"method": "p-tuning", "virtual_tokens": TOKENS, "encoder_hidden_size": 128}
    methods = {
        "ptune p-tuning, pooling peft": ptune.PromptConfig(**shallow, pooling="peft"),
        f"ptune p-tuning, pooling {pooling}": ptune.PromptConfig(**shallow, pooling=pooling),
        f"ptune deep, {TOKENS} tokens": ptune.PromptConfig(method="deep", virtual_tokens=TOKENS),
    }
    settled = {name: prompt.settle(backbone.family) for name, prompt in methods.items()}
    default = ptune.PromptConfig(method="deep").settle(backbone.family)
    return {**settled, f"ptune deep, {default.virtual_tokens} tokens": default}


class EnoughError(Exception):
    """All steps are taken."""


def ptune_runner(
    backbone: Backbone,
    rows: Rows,
    prompt: ptune.PromptConfig,
    compiled: bool = False,
    batch: int = BATCH,
    on_step: Callable[[int], None] | None = None,
    checkpointing: bool = False,
) -> Callable[[], float]:
    """Seconds a row of ptune's training loop, up to the last step of an epoch over the rows."""
    model = ptune.PromptClassifier.from_backbone(backbone, prompt, labels=[str(number) for number in range(CLASSES)])
    classifier = TextClassifier.around(model)
    task = Task(len(rows.encoded), len(rows.encoded), CLASSES, backbone.output_width)
    chosen = TrainConfig(epochs=1, batch_size=batch, compile=compiled, gradient_checkpointing=checkpointing)
    config = chosen.settle(prompt, task)

    def stop(done: int, total: int, *_: object) -> None:
        if on_step is not None:
            on_step(done)
        if done == total:
            raise EnoughError

    def run() -> float:
        with tempfile.TemporaryDirectory() as folder:
            training = Run(classifier, [model], rows, rows, config, Path(folder), Listeners(stop))
            started = clock(backbone.device)
            with suppress(EnoughError):
                training.go()
            return (clock(backbone.device) - started) / len(rows.encoded)

    return run


class PeftTraining:
    """The guide's model and its rows, with transformers' own way to make batches of them."""

    def __init__(self, backbone: Backbone, rows: Sequence[Encoded], labels: Sequence[int]) -> None:
        from transformers import DataCollatorWithPadding

        self.device = backbone.device
        self.model = peft_model(backbone, CLASSES).train().to(self.device)
        self.collate = DataCollatorWithPadding(load_tokenizer(backbone.location))
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.01)
        self.take(rows, labels)

    def take(self, rows: Sequence[Encoded], labels: Sequence[int]) -> None:
        """Train on these rows from here on."""
        self.rows = [
            {
                "input_ids": row.ids,
                "attention_mask": [1] * len(row),
                **({"token_type_ids": row.segments} if row.segments is not None else {}),
                "labels": label,
            }
            for row, label in zip(rows, labels, strict=True)
        ]

    def plain_loop(self) -> float:
        """Seconds a row of the loop as it is commonly written."""
        generator = torch.Generator().manual_seed(0)
        loader = torch.utils.data.DataLoader(
            self.rows,
            BATCH,
            shuffle=True,
            collate_fn=self.collate,
            generator=generator,  # type: ignore[arg-type]
        )
        started = clock(self.device)
        for batch in loader:
            self.model(**batch.to(self.device)).loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
        return (clock(self.device) - started) / len(self.rows)

    def trainer(self) -> Callable[[], float]:
        """Seconds a row of transformers' Trainer, from the first step to the last."""
        from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

        times: list[float] = []
        device = self.device

        class Clock(TrainerCallback):
            def on_train_begin(self, *_: Any, **__: Any) -> None:
                times[:] = [clock(device)]

            def on_step_end(self, *_: Any, **__: Any) -> None:
                times[1:] = [clock(device)]

        folder = tempfile.mkdtemp()
        arguments = TrainingArguments(
            folder,
            per_device_train_batch_size=BATCH,
            learning_rate=1e-3,
            weight_decay=0.01,
            num_train_epochs=1,
            logging_strategy="no",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=device.type == "cpu",
        )
        trainer = Trainer(self.model, arguments, self.collate, self.rows, callbacks=[Clock()])  # type: ignore[arg-type]
        trainer.remove_callback(PrinterCallback)

        def run() -> float:
            trainer.train()
            return (times[1] - times[0]) / len(self.rows)

        return run


if __name__ == "__main__":
    main()
