"""What a device does in training steps: its kernels by time, and how much of the time it does nothing."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

TOP = 15
WIDTH = 90  # characters kept of a kernel's name
# What the device itself does, in the trace's own words; on a CPU, whose threads are not traced, torch's operators.
KINDS = {"cuda": ("kernel", "gpu_memcpy", "gpu_memset"), "cpu": ("cpu_op",)}

Span = tuple[str, float, float]  # name, start and end in microseconds


def profile_steps(run: Callable[[], object], device: torch.device, steps: int) -> dict[str, Any]:
    """Profile so many training steps, which `run` takes; figures are of one step on average."""
    cpu, cuda = ProfilerActivity.CPU, ProfilerActivity.CUDA
    with profile(activities=[cpu, cuda] if device.type == "cuda" else [cpu]) as recorded:
        run()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        recorded.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    kinds = KINDS.get(device.type, KINDS["cpu"])
    spans = [
        (event["name"], float(event["ts"]), float(event["ts"]) + float(event["dur"]))
        for event in events
        if event.get("ph") == "X" and event.get("cat") in kinds
    ]
    return summarise(spans, steps) if spans else {}


def summarise(spans: Sequence[Span], steps: int) -> dict[str, Any]:
    """Return what a step takes, the share of it in which nothing runs, and the kernels that take most of it."""
    times: dict[str, float] = defaultdict(float)
    calls: dict[str, int] = defaultdict(int)
    for name, start, end in spans:
        times[name[:WIDTH]] += end - start
        calls[name[:WIDTH]] += 1
    whole = max(end for *_, end in spans) - min(start for _, start, _ in spans)
    top = sorted(times, key=lambda name: -times[name])[:TOP]
    return {
        "ms_per_step": round(whole / steps / 1000, 3),
        "idle_share": round(1 - _busy(spans) / whole, 3) if whole else 0.0,
        "kernels_per_step": round(len(spans) / steps),
        "kernels": [
            {
                "name": name,
                "ms_per_step": round(times[name] / steps / 1000, 4),
                "share": round(times[name] / sum(times.values()), 3),
                "calls_per_step": round(calls[name] / steps, 1),
            }
            for name in top
        ],
    }


def _busy(spans: Sequence[Span]) -> float:
    """Return the time in which at least one span runs."""
    busy, until = 0.0, float("-inf")
    for _, start, end in sorted(spans, key=lambda span: span[1]):
        busy += max(0.0, end - max(start, until))
        until = max(until, end)
    return busy
