"""Part of benchmarks/gpu/run: training at one shape, the guide's recipe and PEFT in bfloat16 beside ptune.

    PEFT, guide             the guide's recipe as written: float32, transformers' Trainer, P_TUNING with 20 tokens
    PEFT, bfloat16          the same on a bfloat16 backbone, in a plain loop
    ptune p-tuning, deep    ptune's training loop on a bfloat16 backbone, 20 tokens
    ..., masked             deep prompts with a mask in place of the kernel for rows of different lengths
    ..., compiled           through torch.compile, on a GPU with CUDA graphs

All by batches of 32, over rows as long as those of lengths.json. `peak_share` is the share of the rate at which the
device multiplies large bfloat16 matrices, measured here too: the floating-point operations that a step cannot do
without (see floor.py) in the time that it takes. The best of the rounds counts.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from common import facts, like_blocks, spread_rows, training_rows
from floor import sizes_of, step_products
from meter import GUIDE, HALF, Contender, Meter
from shapes import SHAPES, copied_gigabytes, load_shape, peak_tflops, save_shape, write_json
from train_speed import BATCH, TOKENS, PeftTraining, methods, ptune_runner

import ptune
from ptune.data.encode import Encoded
from ptune.model import attention
from ptune.model.backbone import Backbone
from ptune.model.loading import pick_device
from ptune.model.locate import locate
from ptune.training.steps import Rows

STEPS = {"minilm": 48, "roberta-large": 32, "qwen2-1.5b": 12}
SHORT_STEPS = 2


def main() -> None:
    warnings.simplefilter("ignore")
    options = read_options()
    device = pick_device(options.device)
    with tempfile.TemporaryDirectory() as folder:
        path = save_shape(options.model, Path(folder), options.short)
        if options.warm:
            warm_compiler(path, device, options)
        else:
            measure(path, device, options)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, choices=SHAPES)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda")
    parser.add_argument("--short", action="store_true", help="a tiny model and two steps")
    parser.add_argument("--repeats", type=int, default=3, help="rounds, of which the best counts")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin nothing new after so long")
    parser.add_argument("--compile", nargs="*", default=["deep", "p-tuning"], help="methods to compile as well")
    parser.add_argument("--warm", action="store_true", help="only compile, for the cache on disk; write nothing")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    return parser.parse_args()


def warm_compiler(path: Path, device: torch.device, options: argparse.Namespace) -> None:
    """Take the compiled steps once, so that the part that measures finds the kernels in the compiler's cache."""
    training = Training(path, device)
    for method in options.compile:
        training.compiled(method).make(steps_of(options))()


def steps_of(options: argparse.Namespace) -> int:
    """Steps of one round."""
    return SHORT_STEPS if options.short else STEPS[options.model]


def measure(path: Path, device: torch.device, options: argparse.Namespace) -> None:
    """Measure all contenders; what is known is written after each, so that none costs the others anything."""
    until = time.monotonic() + options.seconds
    size = 512 if options.short else 8192
    results = {
        "facts": facts(),
        "model": options.model,
        "short": options.short,
        "peak_tflops": float(f"{peak_tflops(device, size):.3g}"),
        "copy_gb_per_second": round(copied_gigabytes(device, size**2), 1),
        "table": {},
        "profiles": {},
        "errors": {},
    }
    training = Training(path, device)
    for group in training.groups(options.compile):
        meter = Meter(device, steps_of(options), results)
        for make in group:
            if time.monotonic() < until:
                meter.add(make)
                write_json(options.output, results)
        for _ in range(options.repeats):
            if time.monotonic() < until:
                meter.round()
        write_json(options.output, results)
        if time.monotonic() < until:
            meter.profile()
        write_json(options.output, results)


class Training:
    """The contenders at one shape."""

    def __init__(self, path: Path, device: torch.device) -> None:
        self.path = path
        self.device = device
        self.backbone: Backbone = load_shape(path, "bfloat16", device)
        self.rows, self.labels = training_rows(None, self.backbone)
        named = methods(self.backbone)
        self.prompts = {
            "p-tuning": named["ptune p-tuning, pooling peft"],
            "deep": named[f"ptune deep, {TOKENS} tokens"],
        }

    def groups(self, compiled: Sequence[str]) -> Iterator[list[Callable[[], Contender]]]:
        """What is measured in turn: all that needs no compiling, then what does, one after the other."""
        plain = [self.guide, self.half, lambda: self.ptune("p-tuning"), lambda: self.ptune("deep")]
        if self.device.type == "cuda" and self.backbone.trunk is not None:
            plain.append(self.masked)
        yield plain
        for method in compiled:
            yield [lambda method=method: self.compiled(method)]  # type: ignore[misc]

    def guide(self) -> Contender:
        """The guide's recipe."""
        return self._peft(GUIDE, torch.float32, lambda peer: peer.trainer())

    def half(self) -> Contender:
        """PEFT on a bfloat16 backbone."""
        return self._peft(HALF, torch.bfloat16, lambda peer: peer.plain_loop)

    def ptune(self, method: str, compiled: bool = False) -> Contender:
        """ptune on a bfloat16 backbone."""
        prompt = self.prompts[method]

        def make(steps: int) -> Callable[[], float]:
            return ptune_runner(self.backbone, self._alike(steps), prompt, compiled)

        weights = sum(parameter.nbytes for parameter in self.backbone.parameters())
        return Contender(f"ptune {method}", make, weights, self._operations(prompt))

    def masked(self) -> Contender:
        """Deep prompts, rows padded under a mask."""
        plain = self.ptune("deep")

        def make(steps: int) -> Callable[[], float]:
            run = plain.make(steps)

            def masked() -> float:
                with without_lengths():
                    return run()

            return masked

        return replace(plain, name="ptune deep, masked", make=make)

    def compiled(self, method: str) -> Contender:
        """ptune through torch.compile."""
        contender = self.ptune(method, compiled=True)
        return replace(contender, name=f"{contender.name}, compiled")

    def _peft(self, name: str, dtype: torch.dtype, start: Callable[[PeftTraining], Callable[[], float]]) -> Contender:
        source: Any = SimpleNamespace(location=locate(str(self.path)), dtype=dtype, device=self.device)
        with torch.device(self.device):
            peer = PeftTraining(source, *self._spread(BATCH))

        def make(steps: int) -> Callable[[], float]:
            own = copy.copy(peer)
            own.take(*self._spread(steps * BATCH))
            return start(own)

        return Contender(name, make, sum(parameter.nbytes for parameter in peer.model.parameters()))

    def _alike(self, steps: int) -> Rows:
        chosen = [row for block in like_blocks(self.rows, steps, BATCH) for row in block]
        return Rows([self.rows[row] for row in chosen], torch.tensor([self.labels[row] for row in chosen]))

    def _spread(self, count: int) -> tuple[list[Encoded], list[int]]:
        chosen = spread_rows(self.rows, count)
        return [self.rows[row] for row in chosen], [self.labels[row] for row in chosen]

    def _operations(self, prompt: ptune.PromptConfig, steps: int = 32) -> float:
        """Floating-point operations that a row cannot do without, on average."""
        sizes = sizes_of(self.backbone)
        blocks = like_blocks(self.rows, steps, BATCH)
        products = [
            product
            for block in blocks
            for product in step_products(sizes, prompt, [len(self.rows[row]) for row in block])
        ]
        return sum(2.0 * b * m * k * n for b, m, k, n in products) / (steps * BATCH)


@contextmanager
def without_lengths() -> Iterator[None]:
    """Within it, padded rows go to a kernel under a mask."""
    asked = attention.takes_lengths
    attention.takes_lengths = lambda _: False  # type: ignore[assignment]
    try:
        yield
    finally:
        attention.takes_lengths = asked


if __name__ == "__main__":
    main()
