"""Prediction speed: a file of text pairs labelled into another file, PEFT against ptune, interleaved in one process.

    python benchmarks/predict_speed.py [--models minilm gpt2 ...] [--data DATA] [--rows 5000]
                                       [--precision fp32 int8] [--adapter ADAPTER]

    peft                     PEFT's P-tuning as in its guide: JSON Lines read, tokenized and padded to their longest by
                             batches of 32 in the file's order, probabilities written as JSON Lines
    ptune p-tuning, deep     `TextClassifier.stream_file`, its answers written as `ptune predict --output` does
    ..., bfloat16            with --bfloat16: the same on a bfloat16 backbone, the default where the CPU multiplies it
    ..., fp32, bf16, int8    the same with the backbone computed by OpenVINO, for each --precision
    ptune, no prompt         of decoders, the same without any prompt: `over no prompt` says what time the prompt adds

`ratio` is to `peft`. The best of the rounds counts. Texts are random words in the lengths of lengths.json, or the
training rows of --data, over and over until there are --rows of them. With --adapter, one that was trained on --data
is measured instead of fresh ones, and `accuracy` is its share of right answers on the validation and test rows.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import cycle, islice
from pathlib import Path

import torch
from common import (
    CLASSES,
    Cell,
    drawn_pairs,
    in_bfloat16,
    interleave,
    load_model,
    parse,
    peft_model,
    report,
    speed_options,
    speeds,
)

import ptune
from ptune.data.writers import open_writer
from ptune.inference.classifier import TextClassifier
from ptune.model.backbone import Backbone
from ptune.model.entry import Entry
from ptune.model.tokenizer import load_tokenizer

BATCH = 32  # PEFT's; ptune's are its own
PEER, BARE = "peft", "ptune, no prompt"
METHODS = {"ptune p-tuning": "p-tuning", "ptune deep": "deep"}


def main() -> None:
    options = read_options()
    report("predict_speed", options, measure(options))


def read_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = speed_options(__doc__)
    parser.set_defaults(models=["minilm", "gpt2"])
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--precision", nargs="+", default=[], help="fp32, bf16, int8: also by OpenVINO in these")
    parser.add_argument("--bfloat16", action="store_true", help="ptune on a bfloat16 backbone as well")
    parser.add_argument("--adapter", help="trained on --data, for the one model of --models")
    return parse(parser, arguments, {"models": ["minilm"], "rows": 320, "repeats": 2})


def measure(options: argparse.Namespace) -> Cell:
    """A table for each model."""
    warnings.simplefilter("ignore")
    logging.getLogger("ptune").setLevel(logging.ERROR)  # the adapters have learned nothing, and need not
    with tempfile.TemporaryDirectory() as folder:
        return {name: _table(name, Path(folder), options) for name in options.models}


def _table(name: str, folder: Path, options: argparse.Namespace) -> Cell:
    backbone = load_model(name, folder, options)
    texts = folder / "texts.jsonl"
    with texts.open("w", encoding="utf-8") as file:
        for first, second in islice(cycle(_pairs(options.data, backbone)), options.rows):
            file.write(json.dumps({"text": first, "text_pair": second}) + "\n")
    runners: dict[str, Callable[[], float]] = {PEER: partial(run_peft, PeftFile(backbone), texts, folder, options.rows)}
    classifiers = _classifiers(backbone, folder / name, options.adapter, options.precision)
    if options.bfloat16:
        half = load_model(name, folder, in_bfloat16(options))
        halves = _classifiers(half, folder / f"{name}-bfloat16", options.adapter, ())
        classifiers |= {f"{title}, bfloat16": classifier for title, classifier in halves.items()}
    for title, classifier in classifiers.items():
        runners[title] = partial(run_ptune, classifier, texts, folder, options.rows)
    if backbone.family.decoder:
        model = NoPrompt(backbone, ptune.PromptConfig(method="p-tuning"), _LABELS)
        runners[BARE] = partial(run_ptune, TextClassifier.around(model), texts, folder, options.rows)
    table = speeds(interleave(runners, options.repeats, warm=options.rows > 1000), PEER)
    if options.adapter:
        for title, classifier in classifiers.items():
            table[title]["accuracy"] = _accuracy(classifier, options.data)
    if BARE in table:
        own, bare = min(table["ptune p-tuning"]["ms_per_row"]), min(table[BARE]["ms_per_row"])
        table["ptune p-tuning"]["over no prompt"] = round(own / bare, 3)
    return table


_LABELS = [str(number) for number in range(CLASSES)]


def _pairs(source: str | None, backbone: Backbone) -> list[tuple[str, str]]:
    if source is None:
        return drawn_pairs(backbone, 4096)
    rows = ptune.load_data(source).train
    return list(zip(rows.texts, rows.pairs or rows.texts, strict=True))


class NoPrompt(ptune.PromptClassifier):
    """The backbone and a head alone: a prompt of no virtual tokens."""

    entry = Entry("input")

    def prompt(self) -> torch.Tensor:
        return torch.empty(0, self.backbone.embedding_width)


def _classifiers(
    backbone: Backbone, folder: Path, trained: str | None, precisions: Sequence[str]
) -> dict[str, TextClassifier]:
    """By title: each adapter, or the trained one alone, on PyTorch's backbone and in every precision."""
    if trained:
        adapters = {"ptune": Path(trained)}
    else:
        adapters = {title: _adapter(backbone, method, folder / method) for title, method in METHODS.items()}
    classifiers = {}
    for title, adapter in adapters.items():
        classifiers[title] = ptune.load(adapter, backbone)
        for precision in precisions:
            classifiers[f"{title}, {precision}"] = ptune.load(adapter, backbone, precision=precision)
    return classifiers


def _adapter(backbone: Backbone, method: str, folder: Path) -> Path:
    """One that was trained for a moment."""
    data = folder / "data"
    data.mkdir(parents=True)
    for split in ("train", "validation"):
        lines = [{"text": split, "text_pair": str(number), "label": _LABELS[number % CLASSES]} for number in range(128)]
        (data / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    rows = ptune.load_data(str(data))
    model = ptune.PromptClassifier.from_backbone(backbone, ptune.PromptConfig(method=method), labels=rows.labels)
    ptune.train(model, rows, ptune.TrainConfig(epochs=1), output=folder / "adapter")
    return folder / "adapter"


def _accuracy(classifier: TextClassifier, source: str) -> float:
    """In percent, over the validation and test rows together."""
    data = ptune.load_data(source, labels=classifier.labels)
    right = []
    for name in ("validation", "test"):
        right.append(classifier.split_logits(data.split(name)).argmax(dim=1) == data.targets(name))
    return round(100 * torch.cat(right).float().mean().item(), 2)


def run_ptune(classifier: TextClassifier, texts: Path, folder: Path, rows: int) -> float:
    """Seconds a row of `TextClassifier.stream_file` and of writing its answers."""
    output = folder / "ptune.jsonl"
    started = time.perf_counter()
    answers = classifier.stream_file(texts)
    open_writer(output)(answers, output, classifier.labels, partial(classifier.blank_row, texts))
    return (time.perf_counter() - started) / rows


def run_peft(model: PeftFile, texts: Path, folder: Path, rows: int) -> float:
    """Seconds a row of the guide's model over a file."""
    started = time.perf_counter()
    with (folder / "peft.jsonl").open("w", encoding="utf-8") as file:
        for row in model.answers(texts):
            file.write(json.dumps(row) + "\n")
    return (time.perf_counter() - started) / rows


class PeftFile:
    """The guide's model, over a file."""

    def __init__(self, backbone: Backbone) -> None:
        self.model = peft_model(backbone, CLASSES).eval().to(backbone.device)
        self.tokenizer = load_tokenizer(backbone.location)
        self.device = backbone.device

    @torch.no_grad()
    def answers(self, texts: Path) -> Iterator[dict[str, object]]:
        """The file's rows with their probabilities."""
        with texts.open(encoding="utf-8") as file:
            rows = map(json.loads, file)
            while batch := list(islice(rows, BATCH)):
                pairs = [row["text"] for row in batch], [row["text_pair"] for row in batch]
                inputs = self.tokenizer(*pairs, truncation=True, max_length=492, padding=True, return_tensors="pt")
                scores = self.model(**inputs.to(self.device)).logits.float().softmax(dim=1).tolist()
                for row, own in zip(batch, scores, strict=True):
                    label = _LABELS[max(range(CLASSES), key=own.__getitem__)]
                    yield {**row, "label": label, "score": max(own), "scores": dict(zip(_LABELS, own, strict=True))}


if __name__ == "__main__":
    main()
