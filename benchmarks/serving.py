"""Speed and memory of `ptune serve`: many adapters over one backbone. Linux, loopback.

    python benchmarks/serving.py [--counts 1 10 100 1000] [--processes 4] [--seconds 5] [--repeats 3]

    N adapters      requests of one text each over as many connections as --connections, spread evenly over N adapters
                    of one server that holds all; `ratio` is to one adapter, the median of the rounds
    peft            PEFT in one process without HTTP: for each request `set_adapter`, then the forward pass of one row.
                    The adapters are prefixes of as many virtual tokens. At most --peft-adapters, because the time that
                    PEFT takes to add one grows with their number
    processes       one server for each of --processes adapters, requests spread evenly over them, beside one server
                    with as many adapters; memory of both
    one call        one text through 50 adapters: one call of /predict-many, 50 calls at the same time, and 50 calls one
                    after the other; milliseconds
    precision       rows per second of one adapter by the number of texts in a request, for each of --precisions: data
                    types of PyTorch (float32, bfloat16), or OpenVINO (bf16, int8). Four connections
    memory          of the server when the first adapter has answered, what each further one adds, and size of its files
    capacity        latency at 80 % of the throughput with all adapters; at three times the throughput, latency of
                    the accepted, share and latency of those refused (429); and how soon after it all is as before

All are measured in turn in every round; the best round counts for throughput. Adapters have the default settings and
random weights, texts are made up. The server chooses its data type itself, and PEFT computes in --dtype. The load comes
from the same machine, so it takes a part of its cores.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from common import Cell, load_model, parse, report, speed_options
from overload import measure_capacity
from peft_switching import PeftSwitching
from servers import AdapterWriter, ServerProcess, load, name_of

from ptune.adapter.folder import read_adapter
from ptune.data.texts import Text
from ptune.model.backbone import Backbone
from ptune.serving.connection import Connection, Server
from ptune.serving.load import LoadConfig, made_up_texts, questions
from ptune.serving.loadtest import Answer, Tally, drive

MANY = 50  # adapters that one text is asked of
TABLES = ("adapters", "one call", "capacity", "processes", "precision")
BATCHES = (1, 8, 32)  # texts in a request


def main() -> None:
    options = read_options()
    report("serving", options, measure(options))


def read_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = speed_options(__doc__)
    parser.add_argument("--tables", nargs="+", default=TABLES, choices=TABLES, help="besides that of memory")
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 10, 100, 1000], help="adapters asked in turn")
    parser.add_argument("--processes", type=int, default=4, help="servers with one adapter each")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--peft-adapters", type=int, default=100)
    parser.add_argument("--words", type=int, default=20, help="of a text")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--server-dtype", default="auto", help="of the server; --dtype is PEFT's")
    parser.add_argument("--precision", help="of the server: bf16, int8")
    parser.add_argument("--precisions", nargs="*", default=["float32", "bfloat16", "int8"], help="to compare")
    parser.add_argument("--folder", help="adapters of an earlier run, or where to keep them")
    short = {
        "counts": [1, 20],
        "processes": 2,
        "seconds": 1.0,
        "repeats": 1,
        "models": ["minilm"],
        "tables": TABLES[:-1],
    }
    return parse(parser, arguments, short)


def measure(options: argparse.Namespace) -> Cell:
    """Return the tables."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(options.folder or Path(scratch) / "adapters").absolute()
        backbone = load_model(options.models[0], Path(scratch), options)
        count = max(*options.counts, MANY, options.processes)
        write_adapters(backbone, folder, count)
        texts = made_up_texts(options.words)
        peft = PeftSwitching(backbone, min(max(options.counts), options.peft_adapters), texts)
        arguments = [str(folder), *server_options(options)]
        with ServerProcess(arguments, Path(scratch) / "server.log").wait() as server:
            names = [name_of(number) for number in range(count)]
            tables = {"memory": measure_memory(server, names, folder, texts, options)}  # loads all adapters
            if "adapters" in options.tables:
                tables["adapters"] = measure_adapters(server, peft, names, texts, options)
            if "one call" in options.tables:
                tables["one call"] = measure_many(server, names, texts, options)
            if "capacity" in options.tables:
                tables["capacity"] = measure_capacity(server, names, texts, options)
        if "processes" in options.tables:
            tables["processes"] = measure_processes(folder, Path(scratch), texts, options)
        if "precision" in options.tables:
            tables["precision"] = measure_precisions(folder, Path(scratch), texts, options)
        return tables


def write_adapters(backbone: Backbone, folder: Path, count: int, mixed: float = 0.0) -> None:
    """Write the adapters that are not there yet."""
    writer = AdapterWriter(backbone, mixed)
    for number in range(count):
        if not (folder / name_of(number)).exists():
            writer.write(folder / name_of(number), number)


def server_options(options: argparse.Namespace) -> list[str]:
    """Return the options of `ptune serve`."""
    chosen = ["--dtype", options.server_dtype, "--device", options.device, "--no-log-requests"]
    return chosen + (["--precision", options.precision] if options.precision else [])


def measure_memory(
    server: ServerProcess, names: Sequence[str], folder: Path, texts: Sequence[Text], options: argparse.Namespace
) -> Cell:
    """Return megabytes of the server: with one adapter, and what each further one adds."""
    settings = {"warmup": 0, "connections": options.connections}
    load(server.url, names[:1], texts, duration=2 * options.seconds, **settings)
    first = server.memory()
    answered: set[str] = set()

    def note(answer: Answer) -> None:
        answered.update(answer.question.adapters if answer.status == 200 else ())

    while len(answered) < len(names):
        load(server.url, [name for name in names if name not in answered], texts, note, duration=1, **settings)
    files = statistics.mean(read_adapter(folder / name).bytes for name in names) / 2**20
    each = (server.memory() - first) / (len(names) - 1)
    return {
        "server": {"adapters": 1, "mb": round(first)},
        "each further adapter": {"adapters": len(names), "mb": round(each, 3), "file_mb": round(files, 3)},
    }


def measure_adapters(
    server: ServerProcess, peft: PeftSwitching, names: Sequence[str], texts: Sequence[Text], options: argparse.Namespace
) -> Cell:
    """Return requests per second over 1, 10, ... adapters, and those of PEFT."""

    def serve(count: int) -> Cell:
        settings = {"warmup": 0.5, "duration": options.seconds, "connections": options.connections}
        done = load(server.url, names[:count], texts, **settings)
        assert set(done.statuses) <= {"200", "429"}, done.statuses  # nothing is refused unless the machine is busy
        assert done.latency_ms is not None
        return {"requests_per_second": done.throughput, "p50_ms": done.latency_ms.p50, "p99_ms": done.latency_ms.p99}

    runs: dict[str, Callable[[], Cell]] = {_counted(count): partial(serve, count) for count in options.counts}
    for count in {1, peft.count}:
        runs[f"peft, {_counted(count)}"] = partial(peft.run, count, options.seconds)
    rounds: list[dict[str, Cell]] = []
    for number in range(options.repeats):  # every other round the other way round, so that no run is always the last
        order = list(runs) if number % 2 == 0 else list(reversed(runs))
        cells = {title: runs[title]() for title in order}
        rounds.append({title: cells[title] for title in runs})
    base = _counted(options.counts[0])
    table = {}
    for title in runs:
        speeds = [cells[title]["requests_per_second"] for cells in rounds]
        ratios = [cells[title]["requests_per_second"] / cells[base]["requests_per_second"] for cells in rounds]
        best = max((cells[title] for cells in rounds), key=lambda cell: cell["requests_per_second"])
        table[title] = {**best, "ratio": round(statistics.median(ratios), 3), "rounds": speeds}
    return table


def _counted(count: int) -> str:
    return "1 adapter" if count == 1 else f"{count} adapters"


def measure_many(
    server: ServerProcess, names: Sequence[str], texts: Sequence[Text], options: argparse.Namespace
) -> Cell:
    """Return milliseconds for one text through 50 adapters, in one call and in 50."""
    asked = list(names[:MANY])
    target = Server.at(server.url)
    together = questions(LoadConfig(route="predict-many", adapters_per_request=MANY), asked, texts)
    single = questions(LoadConfig(), asked, texts)

    async def ask(connection: Connection, path: str, body: bytes) -> None:
        while (reply := await connection.post(path, body)).status == 429:  # where other work takes the cores
            await asyncio.sleep(0.01)
        assert reply.status == 200, reply

    async def one_call(connections: list[Connection]) -> None:
        question = next(together)
        await ask(connections[0], question.path, question.body)

    async def at_once(connections: list[Connection]) -> None:
        body = next(single).body
        pairs = zip(connections, asked, strict=True)
        await asyncio.gather(*(ask(connection, f"/adapters/{name}/predict", body) for connection, name in pairs))

    async def in_turn(connections: list[Connection]) -> None:
        body = next(single).body
        for name in asked:
            await ask(connections[0], f"/adapters/{name}/predict", body)

    runs = {"one call": one_call, f"{MANY} calls at once": at_once, f"{MANY} calls in turn": in_turn}

    async def rounds() -> dict[str, list[float]]:
        connections = [Connection(target) for _ in range(MANY)]
        times: dict[str, list[float]] = {title: [] for title in runs}
        for _ in range(1 + 5 * options.repeats):
            for title, run in runs.items():
                begun = time.perf_counter()
                await run(connections)
                times[title].append(time.perf_counter() - begun)
        for connection in connections:
            connection.close()
        return {title: values[1:] for title, values in times.items()}

    medians = {title: 1000 * statistics.median(values) for title, values in asyncio.run(rounds()).items()}
    return {
        title: {"ms": round(value, 2), "times_one_call": round(value / medians["one call"], 2)}
        for title, value in medians.items()
    }


def measure_processes(folder: Path, scratch: Path, texts: Sequence[Text], options: argparse.Namespace) -> Cell:
    """Return throughput and memory of one process for each adapter, beside one process for all."""
    names = [name_of(number) for number in range(options.processes)]
    common = server_options(options)
    threads = max(1, (os.cpu_count() or 1) // options.processes)
    everything = [f"{name}={folder / name}" for name in names]
    with ExitStack() as stack:
        one = stack.enter_context(ServerProcess([*everything, *common], scratch / "one.log"))
        several = [
            stack.enter_context(ServerProcess([place, *common], scratch / f"{number}.log", threads))
            for number, place in enumerate(everything)
        ]
        for server in (one, *several):
            server.wait()
        runs = {
            f"one process, {len(names)} adapters": lambda: asyncio.run(_spread([(one, names)], texts, options)),
            f"{len(names)} processes": lambda: asyncio.run(
                _spread([(server, [name]) for server, name in zip(several, names, strict=True)], texts, options)
            ),
        }
        rounds = [{title: run() for title, run in runs.items()} for _ in range(options.repeats)]
        memory = [one.memory(), sum(server.memory() for server in several)]
    return {
        title: {"requests_per_second": max(values[title] for values in rounds), "mb": round(megabytes)}
        for title, megabytes in zip(runs, memory, strict=True)
    }


def measure_precisions(folder: Path, scratch: Path, texts: Sequence[Text], options: argparse.Namespace) -> Cell:
    """Return rows per second by precision and texts in a request, and the memory of each server."""
    place = f"{name_of(0)}={folder / name_of(0)}"
    settings = {"warmup": 0.5, "duration": options.seconds, "connections": 4}
    with ExitStack() as stack:
        servers = {}
        for name in options.precisions:
            openvino = name in ("bf16", "int8", "fp32")
            kind = ["--dtype", "float32", "--precision", name] if openvino else ["--dtype", name]
            arguments = [place, "--no-log-requests", *kind]
            servers[name] = stack.enter_context(ServerProcess(arguments, scratch / f"{name}.log")).wait()
        rounds = [
            {
                (name, count): load(
                    server.url, [name_of(0)], texts, texts_per_request=count, **settings
                ).rows_per_second
                for count in BATCHES
                for name, server in servers.items()
            }
            for _ in range(options.repeats)
        ]
        return {
            name: {
                **{f"rows_per_second_{count}": max(cells[name, count] for cells in rounds) for count in BATCHES},
                "mb": round(server.memory()),
            }
            for name, server in servers.items()
        }


async def _spread(
    servers: Sequence[tuple[ServerProcess, Sequence[str]]], texts: Sequence[Text], options: argparse.Namespace
) -> float:
    """Return requests per second over servers that are asked at the same time."""
    config = LoadConfig(warmup=0.5, duration=options.seconds, connections=max(1, options.connections // len(servers)))
    tallies = [Tally() for _ in servers]
    await asyncio.gather(
        *(
            drive(Server.at(server.url), questions(config, names, texts), config, tally)
            for (server, names), tally in zip(servers, tallies, strict=True)
        )
    )
    return round(sum(tally.report(None).throughput for tally in tallies), 2)


if __name__ == "__main__":
    main()
