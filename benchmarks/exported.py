"""Do exported models answer as the original, where there is no torch?

    python benchmarks/exported.py [--rows 500] [--adapter FOLDER] [--python INTERPRETER] [--report]

An adapter is trained on 400 articles of BBC News, unless one is given, and exported to ONNX and OpenVINO, in float32
and in int8. Then the lines of each README.md run on pieces of the articles, in an environment that holds onnxruntime,
openvino, tokenizers and numpy, and no torch. It is made in a temporary folder unless its interpreter is given.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

import torch

import ptune
from ptune.cli.demo import BACKBONE, bbc_news
from ptune.data.splits import TextData, sample
from ptune.export.write import export_model

PACKAGES = ("onnxruntime", "openvino", "tokenizers", "numpy")
FORMATS = (("onnx", False), ("openvino", False), ("onnx", True), ("openvino", True))
BATCH = 50
TRAINED, VALIDATED = 400, 100  # rows
# Runs the lines of a README.md once for each batch of texts.
PROGRAM = """
import importlib.util, json, re, sys, time
from importlib.metadata import version
code = re.search("```python\\n(.*?)```", open("README.md", encoding="utf-8").read(), re.S)[1]
code = re.sub("^texts = .*$", "", code, flags=re.M).replace("print(", "answers.append((")
code = re.sub(r"(answers\\.append\\(.*)$", r"\\1)", code, flags=re.M)
logits, answers, seconds = [], [], 0.0
for texts in json.load(sys.stdin):
    names = {"texts": texts, "answers": answers}
    start = time.perf_counter()
    exec(code, names)
    seconds += time.perf_counter() - start
    logits += names["logits"].tolist()
print(json.dumps({
    "torch": importlib.util.find_spec("torch") is not None,
    "versions": {name: version(name) for name in sys.argv[1:]},
    "logits": logits, "labels": [answer[0] for answer in answers], "seconds": seconds,
}))
"""


def main() -> None:
    from common import facts, write_results

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--adapter", type=Path, help="an adapter of the demo's data; default: train one")
    parser.add_argument("--python", help="an interpreter that has the four packages, and no torch")
    parser.add_argument("--report", action="store_true", help="write the dated results file")
    options = parser.parse_args()
    data = bbc_news()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        adapter = options.adapter or trained(data, root / "adapter")
        classifier = ptune.load(adapter, device="cpu", dtype="float32")
        texts, labels = pieces(data, options.rows)
        original = classifier.logits(texts) / classifier.temperature
        answers = original.argmax(dim=1)
        python = options.python or environment(root / "without-torch")
        cells, versions = [], {}
        for to, int8 in FORMATS:
            exported = export_model(classifier, root / f"{to}{'-int8' * int8}", to, int8=int8)
            result = run(python, exported.folder, texts)
            if result["torch"]:
                sys.exit(f"{python} has torch; give an interpreter without it")
            logits, versions = torch.tensor(result["logits"]), result["versions"]
            numbers = torch.tensor([classifier.labels.index(label) for label in result["labels"]])
            cell = {
                "to": to,
                "int8": int8,
                "rows": len(texts),
                "same_answer": int((numbers == answers).sum()),
                "largest_difference": float((logits - original).abs().max()),
                "accuracy": round(100 * float((numbers == torch.tensor(labels)).float().mean()), 2),
                "accuracy_of_the_original": round(100 * float((answers == torch.tensor(labels)).float().mean()), 2),
                "megabytes": round(sum(path.stat().st_size for path in exported.folder.iterdir()) / 1e6, 1),
                "seconds": round(result["seconds"], 1),
            }
            print(json.dumps(cell), flush=True)
            cells.append(cell)
    if options.report:
        content = {"facts": facts(), "without_torch": versions, "data": "BBC News, pieces of articles", "cells": cells}
        write_results("exported", content)


def trained(data: TextData, folder: Path) -> Path:
    """The folder of an adapter that was trained on a part of what `ptune demo` trains on."""
    data = sample(sample(data, 0, TRAINED), 0, VALIDATED, "validation")
    model = ptune.PromptClassifier.for_data(BACKBONE, data)
    ptune.train(model, data, ptune.TrainConfig(epochs=1, seed=0), max_length=64, output=folder)
    return folder


def pieces(data: TextData, rows: int) -> tuple[list[str], list[int]]:
    """The beginnings of articles, of 3 to 122 words, validation first; and their labels."""
    texts = [*data.validation.texts, *data.train.texts][:rows]
    labels = [*data.validation.labels, *data.train.labels][:rows]
    return [" ".join(text.split()[: 3 + number * 7 % 120]) for number, text in enumerate(texts)], labels


def environment(folder: Path) -> str:
    """The interpreter of a new environment, with the versions that constraints.txt names."""
    venv.create(folder, with_pip=True)
    python = str(folder / "bin" / "python")
    constraints = Path(__file__).parent.parent / "constraints.txt"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--constraint", str(constraints), *PACKAGES], check=True)
    return python


def run(python: str, folder: Path, texts: list[str]) -> dict[str, Any]:
    """What the lines of a folder's README.md give, in batches."""
    batches = [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]
    done = subprocess.run(
        [python, "-c", PROGRAM, *PACKAGES], input=json.dumps(batches), capture_output=True, text=True, cwd=folder
    )
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout)


if __name__ == "__main__":
    main()
