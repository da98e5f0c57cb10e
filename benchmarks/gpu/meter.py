"""Speed, memory and kernels of several ways to train, run in turn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from common import Cell
from profiling import profile_steps
from train_speed import BATCH

GUIDE, HALF = "PEFT, guide", "PEFT, bfloat16"
PROFILED_STEPS = 3


@dataclass
class Contender:
    """What is measured: a way to train, on how many steps it likes.

    make: given a number of steps, returns what takes them and says the seconds a row.
    weights: bytes of the model's parameters. operations: floating-point operations a row, where they are known.
    """

    name: str
    make: Callable[[int], Callable[[], float]]
    weights: int
    operations: float | None = None


class Meter:
    """Runs contenders in turn and keeps their figures in `results`; one that fails is noted there and left out."""

    def __init__(self, device: torch.device, steps: int, results: dict[str, Any]) -> None:
        self.device = device
        self.steps = steps
        self.results = results
        self.running: dict[str, tuple[Contender, Callable[[], float]]] = {}
        self.seconds: dict[str, list[float]] = {}
        self.over: dict[str, int] = {}  # bytes beyond the model's own, at the peak

    def add(self, make: Callable[[], Contender]) -> None:
        """Build a contender and run it once, unmeasured."""
        contender = None
        try:
            contender = make()
            run = contender.make(self.steps)
            self.over[contender.name] = self._peak(run)[1]
        except Exception as err:  # whatever it is must not cost the others their measurement
            name = contender.name if contender else getattr(make, "__name__", str(make))
            self.results["errors"][name] = f"{type(err).__name__}: {err}"[:1000]
            return
        self.running[contender.name] = (contender, run)
        self.seconds[contender.name] = []

    def round(self) -> None:
        """Run each once more, and bring the table up to date."""
        for name, (contender, run) in self.running.items():
            value, over = self._peak(run)
            self.seconds[name].append(value)
            self.over[name] = max(self.over[name], over)
            self.results["table"][name] = self._figures(contender)
        _compare(self.results["table"])

    def profile(self) -> None:
        """Profile a few steps of each."""
        for name, (contender, _) in self.running.items():
            try:
                run = contender.make(min(self.steps, PROFILED_STEPS))
                run()
                self.results["profiles"][name] = profile_steps(run, self.device, min(self.steps, PROFILED_STEPS))
            except Exception as err:
                self.results["errors"][f"profile of {name}"] = f"{type(err).__name__}: {err}"[:1000]

    def _peak(self, run: Callable[[], float]) -> tuple[float, int]:
        """Return what a run says, and the bytes that it took at most."""
        if self.device.type != "cuda":
            return run(), 0
        before = torch.cuda.memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        value = run()
        return value, torch.cuda.max_memory_allocated(self.device) - before

    def _figures(self, contender: Contender) -> Cell:
        values = self.seconds[contender.name]
        figures: Cell = {
            "rows_per_second": round(1 / min(values), 1),
            "ms_per_step": round(1000 * BATCH * min(values), 2),
            "ms_per_row": [round(1000 * value, 4) for value in values],
        }
        if contender.operations is not None:
            rate = contender.operations / min(values) / 1e12
            figures |= {"tflops": round(rate, 2), "peak_share": round(rate / self.results["peak_tflops"], 3)}
        if self.device.type == "cuda":
            figures["peak_mb"] = round((contender.weights + self.over[contender.name]) / 2**20)
        return figures


def _compare(table: dict[str, Cell]) -> None:
    """How many times the speed of the guide's recipe, and of PEFT in bfloat16."""
    for figures in table.values():
        for key, peer in (("ratio", GUIDE), ("ratio_bfloat16", HALF)):
            if peer in table:
                figures[key] = round(figures["rows_per_second"] / table[peer]["rows_per_second"], 2)
