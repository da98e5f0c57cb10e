"""Regression check: a short run of each benchmark beside the newest results file of its kind.

    python benchmarks/check.py [--only train_speed ...] [--tolerance 0.25]

Compares ratios, each of two figures of one run, so another or a busier machine hardly matters; times never. A ratio
may be worse by the tolerance, a quarter by default, as short runs scatter. Ends with 1 if one is worse than that.
"""

from __future__ import annotations

import argparse
import json
import sys

import memory
import predict_speed
import startup
import train_speed
from common import RESULTS, Cell, report

BENCHMARKS = {"train_speed": train_speed, "predict_speed": predict_speed, "memory": memory, "startup": startup}
SMALLER_IS_BETTER = ("startup",)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(BENCHMARKS), choices=BENCHMARKS)
    parser.add_argument("--tolerance", type=float, default=0.25, help="share by which a ratio may be worse")
    options = parser.parse_args()
    worse = []
    for name in options.only:
        short = BENCHMARKS[name].read_options(["--short"])
        tables = BENCHMARKS[name].measure(short)
        report(name, short, tables)
        worse += compare(tables, newest(name), options.tolerance, name in SMALLER_IS_BETTER)
    print("\n".join(worse) if worse else f"no ratio is worse by more than {options.tolerance:.0%}")
    sys.exit(1 if worse else 0)


def newest(name: str) -> Cell:
    """The tables of the newest results of a benchmark, of a day's those of a full run; none where there are none."""
    files = sorted(RESULTS.glob(f"{name}-*.json"), key=lambda path: (path.stem[-10:], "short" not in path.stem))
    contents = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    return next((content["tables"] for content in reversed(contents) if "tables" in content), {})


def compare(tables: Cell, recorded: Cell, tolerance: float, smaller_is_better: bool) -> list[str]:
    """What is worse than recorded, a sentence each. The floor is a fact of the machine, and not compared."""
    worse = []
    for title, table in tables.items():
        for line, figures in table.items():
            old = recorded.get(title, {}).get(line, {}).get("ratio")
            if old is None or line.startswith("floor"):
                continue
            new = figures["ratio"]
            if (new > old * (1 + tolerance)) if smaller_is_better else (new < old * (1 - tolerance)):
                worse.append(f"{title}, {line}: ratio {new}, recorded {old}")
    return worse


if __name__ == "__main__":
    main()
