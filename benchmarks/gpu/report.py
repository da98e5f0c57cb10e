"""The results of benchmarks/gpu/run: put into one file, and printed for people. Standard library alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from parts import Part, last_lines

TESTS = "gpu-tests.jsonl"  # a line for each test, from all processes that test
WIDTH = 100
MOST_FAILURES, KERNELS = 8, 2
# Columns of the tables: key of a figure, what is printed above it.
TRAINING = {
    "rows_per_second": "rows/s",
    "ratio": "x guide",
    "ratio_bfloat16": "x bf16",
    "ms_per_step": "ms/step",
    "peak_share": "of peak",
    "peak_mb": "MB",
    "idle": "idle",
}
PREDICTION = {"rows_per_second": "rows/s", "ratio": "x guide"}


def save(folder: Path, parts: Sequence[Part], about: dict[str, Any], commit: str) -> dict[str, Any]:
    """Write all results so far into one file, and what the parts have printed into another; returns the results.

    Args:
        about: what to note of the run itself. commit: that of the source, for where git does not know it.
    """
    contents = {part.name: read_part(part, folder) for part in parts}
    facts = next((content["facts"] for content in contents.values() if "facts" in content), {})
    for content in contents.values():
        content.pop("facts", None)
    if facts and not facts["commit"]:
        facts["commit"] = commit
    content = {
        "facts": {**facts, "command": " ".join(["benchmarks/gpu/run", *(Path(word).name for word in sys.argv[1:])])},
        **about,
        "tests": read_tests(folder / TESTS),
        "parts": contents,
    }
    path = folder / f"gpu-{date.today().isoformat()}.json"
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    with (folder / "gpu.log").open("w", encoding="utf-8") as log:
        for part in parts:
            log.write(f"=== {part.name}: {part.status}\n{last_lines(part, 400)}\n")
    return content


def read_part(part: Part, folder: Path) -> dict[str, Any]:
    """How a part ended, what it has written and, where it ended badly, its last words."""
    content: dict[str, Any] = {"status": part.status, "seconds": round(part.took, 1)}
    if part.status != "done":
        content["last_lines"] = last_lines(part, 15)
    file = folder / f"gpu-{part.name}.json"
    return content | (json.loads(file.read_text(encoding="utf-8")) if file.exists() else {})


def read_tests(path: Path) -> dict[str, Any]:
    """Counts, and of each test that failed or was left out its name and the reason."""
    if not path.exists():
        return {}
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    named = {
        outcome: {line["test"]: line["reason"] for line in lines if line["outcome"] == outcome}
        for outcome in ("failed", "skipped")
    }
    return {"passed": sum(line["outcome"] == "passed" for line in lines), **named}


def print_report(content: dict[str, Any]) -> None:
    """Print what came of each part."""
    facts = content["facts"]
    if "versions" in facts:
        versions = ", ".join(f"{name} {value}" for name, value in facts["versions"].items())
        print(f"\n{facts['gpu'] or facts['processor']}, {versions}, {content['seconds']} s")
    if content["tests"]:
        _print_tests(**content["tests"])
    for name, part in content["parts"].items():
        print(f"{name}: {part['status']}, {part['seconds']:.0f} s")
        if name.startswith("train"):
            _print_training(part)
        else:
            _print_table(part.get("table", {}), PREDICTION)
        for what, error in part.get("errors", {}).items():
            print(f"  {what}: {error}"[: 3 * WIDTH])
        if part["status"] != "done":
            print("\n".join(f"  | {line[:WIDTH]}" for line in part.get("last_lines", "").splitlines()[-3:]))


def _print_tests(passed: int, failed: dict[str, str], skipped: dict[str, str]) -> None:
    print(f"tests: {passed} passed, {len(failed)} failed, {len(skipped)} skipped")
    for name, reason in list(failed.items())[:MOST_FAILURES]:
        print(f"  {name[:WIDTH]}\n    {' '.join(reason.split())[:WIDTH]}")


def _print_training(part: dict[str, Any]) -> None:
    if "peak_tflops" in part:
        print(f"  large products {part['peak_tflops']} TFLOP/s, copies {part['copy_gb_per_second']} GB/s")
    profiles = part.get("profiles", {})
    table = {name: figures | _idle(profiles.get(name)) for name, figures in part.get("table", {}).items()}
    _print_table(table, TRAINING)
    for name, profile in profiles.items():
        if name.startswith("ptune") and profile:
            for kernel in profile["kernels"][:KERNELS]:
                figures = f"{kernel['share']:6.1%} {kernel['ms_per_step']:8.2f} ms"
                print(f"    {name[6:24]:18} {figures}  {kernel['name'][:50]}")


def _idle(profile: dict[str, Any] | None) -> dict[str, Any]:
    return {"idle": profile["idle_share"]} if profile else {}


def _print_table(table: dict[str, Any], columns: dict[str, str]) -> None:
    if not table:
        return
    width = max(map(len, table))
    print(f"  {'':{width}}" + "".join(f"{title:>10}" for title in columns.values()))
    for name, figures in table.items():
        print(f"  {name:{width}}" + "".join(f"{figures.get(key, '')!s:>10}" for key in columns))
