"""`ptune serve` under load for minutes, while adapters are replaced: every answer is checked. Linux, loopback.

    python benchmarks/soak.py [--minutes 10] [--adapters 1000] [--share 0.8] [--mixed 0.1]

The server gets --share of its capacity, spread evenly over all adapters, with random times between requests. Capacity
is the throughput of --connections connections right before. Each second the files of one adapter are replaced by
those of another version, as training into the same folder does it. Each answer is compared with the prediction that
`predict_mixed` gives offline for the same text:

    wrong      it is that of neither version, or that of the old one more than --grace seconds after the replacement, or
               that of the new one before it
    refused    it was 429: the server was busy, because the machine had other work
    lost       there was another status, or no answer

`memory` is that of the server: after warm-up, at the end, the highest, and growth per minute (least squares over the
second half of the run). One adapter in ten is of another kind: other methods, lengths, numbers of classes, several
labels, numbers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import statistics
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import Cell, load_model, parse, report, speed_options
from servers import AdapterWriter, ServerProcess, load, name_of
from serving import server_options, write_adapters

import ptune
from ptune.atomic import write_files
from ptune.data.texts import Text
from ptune.inference.mixed import predict_mixed
from ptune.model.backbone import Backbone
from ptune.serving.connection import Server
from ptune.serving.load import LoadConfig, made_up_texts, questions
from ptune.serving.loadtest import Answer, Tally, drive

TEXTS = 8  # every adapter and version is asked each of these offline
TOLERANCE = 1e-4  # of a probability: batches of other sizes round in other places


def main() -> None:
    options = read_options()
    tables = measure(options)
    report("soak", options, tables)
    if tables["soak"]["answers"]["wrong"] or tables["soak"]["answers"]["lost"]:
        raise SystemExit("there were wrong or lost answers")


def read_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = speed_options(__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--adapters", type=int, default=1000)
    parser.add_argument("--share", type=float, default=0.8, help="of capacity")
    parser.add_argument("--mixed", type=float, default=0.1, help="share of adapters of other kinds")
    parser.add_argument("--grace", type=float, default=5.0, help="seconds in which a replacement has to be seen")
    parser.add_argument("--connections", type=int, default=32, help="to find the capacity with")
    parser.add_argument("--words", type=int, default=20, help="of a text")
    parser.add_argument("--precision", help="of the server: bf16, int8")
    parser.set_defaults(server_dtype="float32")  # in bfloat16, batches of other sizes round visibly
    parser.add_argument("--folder", help="adapters of an earlier run, or where to keep them")
    return parse(parser, arguments, {"minutes": 0.2, "adapters": 40, "models": ["minilm"]})


def measure(options: argparse.Namespace) -> Cell:
    """Return the tables."""
    with tempfile.TemporaryDirectory() as scratch:
        return {"soak": _measure(options, Path(scratch))}


def _measure(options: argparse.Namespace, scratch: Path) -> Cell:
    kept = Path(options.folder or scratch / "first").absolute()
    backbone = load_model(options.models[0], scratch, options)
    write_adapters(backbone, kept, options.adapters, options.mixed)
    folder = scratch / "served"
    shutil.copytree(kept, folder)  # a copy, because adapters of it are replaced
    texts = made_up_texts(options.words, count=TEXTS)
    versions = Versions(backbone, folder, options, texts)
    names = [name_of(number) for number in range(options.adapters)]
    with ServerProcess([str(folder), *server_options(options)], scratch / "server.log").wait() as server:
        for start in range(0, len(names), 50):  # every adapter is loaded; random questions would leave some out
            body = json.dumps({"inputs": texts[0], "adapters": names[start : start + 50]}).encode()
            request = urllib.request.Request(
                f"{server.url}/predict-many", body, {"content-type": "application/json"}, method="POST"
            )
            urllib.request.urlopen(request, timeout=60).read()
        capacity = load(server.url, names, texts, duration=5, connections=options.connections).throughput
        config = LoadConfig(
            rate=options.share * capacity, duration=60 * options.minutes, warmup=5, connections=4000, seed=1
        )
        check, tally = Check(versions), Tally()
        memory = asyncio.run(_soak(server, config, names, texts, versions, check, tally))
    done = tally.report(config.rate)
    assert done.latency_ms is not None
    lost = sum(count for status, count in check.statuses.items() if status not in ("200", "429"))
    latency = done.latency_ms
    return {
        "load": {"capacity": capacity, "rate": round(options.share * capacity, 1), "seconds": done.seconds},
        "answers": {
            "checked": check.right + check.wrong,
            "wrong": check.wrong,
            "lost": lost + done.not_sent,
            "refused": check.statuses["429"],
            "replaced": len(versions.replaced),
            "by_new_versions": check.new,
            "old_seen_for_s_median": round(statistics.median(check.delays()), 2),
            "old_seen_for_s_most": round(max(check.delays()), 2),
        },
        "latency_ms": {
            "p50": latency.p50,
            "p99": latency.p99,
            "max": latency.max,
            "p99_over_p50": round(latency.p99 / latency.p50, 2),
        },
        "memory_mb": _memory(memory),
        "examples_of_wrong": {"list": check.examples},
    }


async def _soak(
    server: ServerProcess,
    config: LoadConfig,
    names: Sequence[str],
    texts: Sequence[Text],
    versions: Versions,
    check: Check,
    tally: Tally,
) -> list[tuple[float, float]]:
    """Drive the server, replace an adapter each second, and return the server's memory by seconds."""
    memory: list[tuple[float, float]] = []

    async def each_second() -> None:
        begun = time.perf_counter()
        for second in range(round(config.warmup + config.duration)):
            await asyncio.sleep(max(0.0, begun + second + 1 - time.perf_counter()))
            if second >= config.warmup:
                versions.replace()
            memory.append((time.perf_counter() - begun, server.memory()))

    await asyncio.gather(
        drive(Server.at(server.url), questions(config, names, texts), config, tally, check.add), each_second()
    )
    return memory


class Versions:
    """Two versions of adapters, and the answers that each should give.

    Args:
        backbone: theirs.
        folder: the first versions, which are served.
        options: of the command line.
        texts: that are asked.

    Attributes:
        expected: for each adapter its versions' answers, {label: score} for each text.
        replaced: when each adapter was replaced.
    """

    def __init__(self, backbone: Backbone, folder: Path, options: argparse.Namespace, texts: Sequence[Text]) -> None:
        self.folder = folder
        self.next = folder.parent / "next"
        self.texts = texts
        self.grace = options.grace
        self.replaced: dict[str, float] = {}
        numbers = list(range(options.adapters))
        writer = AdapterWriter(backbone, options.mixed)
        self.waiting = random.Random(0).sample(numbers, min(len(numbers), round(60 * options.minutes)))
        for number in self.waiting:
            writer.write(self.next / name_of(number), number, version=1)
        self.expected = {name_of(number): [_predict(backbone, folder / name_of(number), texts)] for number in numbers}
        for number in self.waiting:
            self.expected[name_of(number)].append(_predict(backbone, self.next / name_of(number), texts))

    def replace(self) -> None:
        """Put the second version of an adapter in the place of the first."""
        if not self.waiting:
            return
        name = name_of(self.waiting.pop())
        files = {file.name: file.read_bytes() for file in (self.next / name).iterdir()}
        write_files(self.folder / name, files)
        self.replaced[name] = time.perf_counter()


def _predict(backbone: Backbone, folder: Path, texts: Sequence[Text]) -> list[dict[str, float]]:
    """Return the scores of each label for each text."""
    classifier = ptune.load(folder, backbone)
    predictions = predict_mixed([(classifier, text) for text in texts])
    return [
        prediction["scores"] if "scores" in prediction else {classifier.labels[0]: prediction["value"]}
        for prediction in predictions
    ]


class Check:
    """Compares answers with what they should be."""

    def __init__(self, versions: Versions) -> None:
        self.versions = versions
        self.statuses: Counter[str] = Counter()
        self.right = self.wrong = self.new = 0
        self.examples: list[Any] = []
        self._first_new: dict[str, float] = {}
        self._last_old: dict[str, float] = {}

    def add(self, answer: Answer) -> None:
        """Compare an answer."""
        self.statuses[str(answer.status)] += 1
        if answer.status != 200:
            return
        (name,), (text,) = answer.question.adapters, answer.question.texts
        given = {one["label"]: one["score"] for one in json.loads(answer.content)}
        matching = [number for number, rows in enumerate(self.versions.expected[name]) if _same(given, rows[text])]
        replaced = self.versions.replaced.get(name)
        allowed = {0} if replaced is None else {0, 1} if answer.sent < replaced + self.versions.grace else {1}
        if not allowed & set(matching):
            self.wrong += 1
            if len(self.examples) < 5:
                since = None if replaced is None else round(answer.sent - replaced, 3)
                self.examples.append({"adapter": name, "given": given, "seconds_since": since, "is_version": matching})
            return
        self.right += 1
        if replaced is None:
            return
        if 1 in matching:
            self.new += 1
            self._first_new.setdefault(name, answer.done - replaced)
        else:
            self._last_old[name] = answer.sent - replaced

    def delays(self) -> list[float]:
        """Return the seconds after which the old version was last seen, of each adapter whose new one was seen."""
        return [max(0.0, self._last_old.get(name, 0.0)) for name in self._first_new] or [0.0]


def _same(given: dict[str, float], expected: dict[str, float]) -> bool:
    return given.keys() == expected.keys() and all(
        abs(given[label] - score) <= TOLERANCE * max(1.0, abs(score)) for label, score in expected.items()
    )


def _memory(samples: Sequence[tuple[float, float]]) -> Cell:
    """Return the memory after warm-up, at the end and at its highest, and its growth in the second half."""
    half = samples[len(samples) // 2 :]
    slope = statistics.linear_regression(*zip(*half, strict=True)).slope if len(half) > 1 else 0.0
    return {
        "after_warmup": round(samples[min(5, len(samples) - 1)][1], 1),
        "end": round(samples[-1][1], 1),
        "most": round(max(value for _, value in samples), 1),
        "growth_per_minute": round(60 * slope, 2),
    }


if __name__ == "__main__":
    main()
