"""What the benchmarks share: the peer's model, the facts of the machine, files of cells and of results."""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("ptune", "torch", "transformers", "peft")
Cell = dict[str, Any]  # the figures of one run, a line of a file of cells


def facts() -> dict[str, Any]:
    """Versions, hardware, date and command: what a result means nothing without."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False, cwd=RESULTS
    ).stdout.strip()
    return {
        "date": date.today().isoformat(),
        "command": " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *map(_shown, sys.argv[1:])]),
        "commit": commit,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def write_results(name: str, content: dict[str, Any], folder: Path = RESULTS) -> Path:
    """A dated JSON file in benchmarks/results/."""
    path = folder / f"{name}-{content['facts']['date']}.json"
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({"results": path.name}))
    return path


def finished(path: Path) -> list[Cell]:
    """The cells that a JSON Lines file holds; none where there is no such file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def add_cell(path: Path, cell: Cell) -> None:
    """Append a cell to the file, and print it."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(cell) + "\n")
    print(json.dumps(cell), flush=True)


def accuracies(shares: Sequence[float]) -> Cell:
    """In percent, the mean of accuracies from 0 to 1, their standard deviation and the lowest."""
    values = [100 * share for share in shares]
    return {
        "accuracy": round(statistics.mean(values), 2),
        "spread": round(statistics.stdev(values), 2) if len(values) > 1 else 0.0,
        "lowest": round(min(values), 2),
    }


def peft_model(backbone: Any, classes: int, kind: str = "guide") -> torch.nn.Module:
    """PEFT's model: P_TUNING as the guide has it (20 virtual tokens, MLP of width 128), or PREFIX_TUNING ("prefix")."""
    import warnings

    from peft import PrefixTuningConfig, PromptEncoderConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    base = AutoModelForSequenceClassification.from_pretrained(
        backbone.location.path, num_labels=classes, **backbone.location.load_options()
    )
    configs = {
        "guide": PromptEncoderConfig(task_type="SEQ_CLS", num_virtual_tokens=20, encoder_hidden_size=128),
        "prefix": PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=20),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return get_peft_model(base, configs[kind])


def _shown(argument: str) -> str:
    """A path's last part: where the data lies on this machine is nobody's business."""
    return Path(argument).name if "/" in argument else argument


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
