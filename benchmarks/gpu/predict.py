"""Part of benchmarks/gpu/run: prediction of a file, PEFT beside ptune with one adapter and with 256 in turn.

    PEFT, guide           the guide's model in float32, by batches of 32 in the file's order
    PEFT, bfloat16        the same on a bfloat16 backbone
    ptune p-tuning, deep  `TextClassifier.stream_file` on a bfloat16 backbone, one adapter over all rows
    ..., 256 adapters     as many adapters over one backbone, each of which answers its share of the rows in turn

Rows are pairs of random words, as long as those of lengths.json, and are tokenized as part of the measurement. PEFT
reads fewer of them, as it needs longer. The best of the rounds counts.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from common import CLASSES, clock, drawn_pairs, facts, speeds
from predict_speed import PeftFile, run_peft, run_ptune
from shapes import SHAPES, load_shape, save_shape, write_json

import ptune
from ptune.model.backbone import Backbone
from ptune.model.loading import pick_device
from ptune.model.locate import locate

GUIDE, HALF = "PEFT, guide", "PEFT, bfloat16"
ROWS, PEER_ROWS, ADAPTERS = 20_000, 2_000, 256
SHORT = 64, 32, 4
LABELS = [str(number) for number in range(CLASSES)]


def main() -> None:
    warnings.simplefilter("ignore")
    options = read_options()
    device = pick_device(options.device)
    rows, peer_rows, adapters = SHORT if options.short else (ROWS, PEER_ROWS, ADAPTERS)
    results: dict[str, Any] = {
        "facts": facts(),
        "model": options.model,
        "short": options.short,
        "rows": rows,
        "peer_rows": peer_rows,
        "adapters": adapters,
        "table": {},
        "errors": {},
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = save_shape(options.model, folder, options.short)
        backbone = load_shape(path, "bfloat16", device)
        pairs = drawn_pairs(backbone, rows)
        texts, peer_texts = folder / "texts.jsonl", folder / "peer.jsonl"
        write_pairs(texts, pairs)
        write_pairs(peer_texts, pairs[:peer_rows])
        makers: dict[str, Callable[[], Callable[[], float]]] = {
            GUIDE: lambda: partial(run_peft, peft_file(path, torch.float32, device), peer_texts, folder, peer_rows),
            HALF: lambda: partial(run_peft, peft_file(path, torch.bfloat16, device), peer_texts, folder, peer_rows),
            "ptune p-tuning": lambda: partial(run_ptune, classifier(backbone, "p-tuning"), texts, folder, rows),
            "ptune deep": lambda: partial(run_ptune, classifier(backbone, "deep"), texts, folder, rows),
            f"ptune deep, {adapters} adapters": lambda: partial(in_turn, many(backbone, adapters), pairs),
        }
        measure(makers, results, options)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="roberta-large", choices=SHAPES)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda")
    parser.add_argument("--short", action="store_true", help="a tiny model and few rows")
    parser.add_argument("--repeats", type=int, default=2, help="rounds, of which the best counts")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin nothing new after so long")
    parser.add_argument("--output", type=Path, required=True, help="JSON file for the results")
    return parser.parse_args()


def measure(
    makers: dict[str, Callable[[], Callable[[], float]]], results: dict[str, Any], options: argparse.Namespace
) -> None:
    """Measure one after the other, and write the results after each. The first round is the warm-up of the others."""
    until = time.monotonic() + options.seconds
    seconds: dict[str, list[float]] = {}
    for name, make in makers.items():
        if time.monotonic() > until:
            break
        try:
            run = make()
            seconds[name] = [run() for _ in range(options.repeats)]
        except Exception as err:  # whatever it is must not cost the others their measurement
            results["errors"][name] = f"{type(err).__name__}: {err}"[:1000]
            continue
        results["table"] = speeds(seconds, GUIDE if GUIDE in seconds else next(iter(seconds)))
        write_json(options.output, results)
    write_json(options.output, results)


def write_pairs(path: Path, pairs: list[tuple[str, str]]) -> None:
    """Write pairs of texts as JSON Lines."""
    lines = [json.dumps({"text": first, "text_pair": second}) + "\n" for first, second in pairs]
    path.write_text("".join(lines), encoding="utf-8")


def peft_file(path: Path, dtype: torch.dtype, device: torch.device) -> PeftFile:
    """The guide's model."""
    source: Any = SimpleNamespace(location=locate(str(path)), dtype=dtype, device=device)
    with torch.device(device):
        return PeftFile(source)


def classifier(backbone: Backbone, method: str, seed: int = 0) -> ptune.TextClassifier:
    """An adapter that has learned nothing, which takes as long as one that has."""
    config = ptune.PromptConfig(method=method)  # type: ignore[arg-type]
    model = ptune.PromptClassifier.from_backbone(backbone, config, labels=LABELS, seed=seed)
    return ptune.TextClassifier.around(model)


def many(backbone: Backbone, count: int) -> list[ptune.TextClassifier]:
    """So many adapters, which share backbone and tokenizer."""
    first = classifier(backbone, "deep")
    models = [
        ptune.PromptClassifier(backbone, ptune.PromptConfig(method="deep"), LABELS, seed=seed) for seed in range(count)
    ]
    return [ptune.TextClassifier(model, first.encoder, first.pad_id) for model in models]


def in_turn(classifiers: list[ptune.TextClassifier], pairs: list[tuple[str, str]]) -> float:
    """Seconds a row where each adapter answers its own share of the rows."""
    device = classifiers[0].model.backbone.device
    share = -(-len(pairs) // len(classifiers))
    started = clock(device)
    for number, one in enumerate(classifiers):
        one.predict(pairs[number * share : (number + 1) * share])
    return (clock(device) - started) / len(pairs)


if __name__ == "__main__":
    main()
