"""ptune loadtest"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from itertools import chain
from typing import Annotated, Any

from cyclopts import Parameter

from ptune.cli.options import Json, Source
from ptune.cli.spelling import spell
from ptune.cli.terminal import Terminal
from ptune.errors import ConfigError, DataError
from ptune.serving.connection import Server
from ptune.serving.load import ALL, LoadConfig, choose_adapters, made_up_texts, questions, read_texts
from ptune.serving.loadtest import LoadReport, Tally, drive, served_adapters

_COLUMN_OPTIONS = {"text": "text_column", "text_pair": "text_pair_column"}
_SETTINGS = frozenset(LoadConfig.model_fields) | {"adapters"}
# Above this many milliseconds at the 99th percentile, requests were sent so late that the rate was not the one asked
# for.
_LATE = 50


def loadtest(
    url: str,
    /,
    *,
    adapters: Annotated[list[str] | None, Parameter(negative=())] = None,
    texts: Source | None = None,
    text_column: str | None = None,
    text_pair_column: str | None = None,
    json: Json = False,
    load: Annotated[LoadConfig | None, Parameter(name="*", group="Load")] = None,
) -> None:
    """Send load to a running server, and print its throughput and the latency of its answers.

    With --rate, requests are sent at that rate even if the server is slower, and the latency counts from the moment at
    which each was due. Without it, every connection sends its next request as soon as it has an answer: this finds the
    highest throughput.

    If the server asks for an API key, put it into the environment as PTUNE_KEY.

    Examples:
      ptune loadtest http://127.0.0.1:8080
      ptune loadtest http://127.0.0.1:8080 --rate 100 --duration 60
      ptune loadtest http://127.0.0.1:8080 --adapters reviews,spam --texts new.csv
      ptune loadtest http://127.0.0.1:8080 --distribution zipf --connections 32 --json
      ptune loadtest http://127.0.0.1:8080 --route predict-many --adapters-per-request 50

    Parameters
    ----------
    url
        Address of the server, such as http://127.0.0.1:8080.
    adapters
        Adapters to ask: all, default (the one that answers where a request names none), or names: a,b,c. Default: all.
    texts
        File of texts in a format that `ptune predict` reads. Default: made-up texts.
    text_column
        Column of the text in the file. Default: guessed.
    text_pair_column
        Column of the second text in the file. Default: guessed.
    """
    terminal = Terminal(json)
    config = load or LoadConfig()
    if texts is None and (text_column or text_pair_column):
        raise ConfigError("--text-column and --text-pair-column name columns of a file; give it with --texts")
    server = Server.at(url, os.environ.get("PTUNE_KEY") or None)
    try:
        rows = (
            made_up_texts(config.words, config.seed)
            if texts is None
            else read_texts(texts, text_column, text_pair_column)
        )
    except DataError as err:
        raise DataError(spell(str(err), (), _COLUMN_OPTIONS)) from err
    tally = Tally()
    try:
        wanted = [name for value in adapters or ["all"] for name in value.split(",") if name]
        listed = asyncio.run(served_adapters(server))
        names = choose_adapters(wanted, [one["name"] for one in listed])
        if wanted == [ALL]:
            names = _suited(terminal, names, listed, pairs=isinstance(rows[0], tuple))
        asked = questions(config, names, rows)
        first = next(asked)  # raises what is wrong with the settings before anything is sent
        terminal.say(_plan(config, names, url))
        asyncio.run(drive(server, chain([first], asked), config, tally))
    except ConfigError as err:
        raise ConfigError(spell(str(err), _SETTINGS)) from err
    except KeyboardInterrupt:
        _print(terminal, tally.report(config.rate))
        raise
    report = tally.report(config.rate)
    _print(terminal, report)
    if "200" not in report.statuses:
        raise SystemExit(1)


def _suited(terminal: Terminal, names: list[str], listed: Sequence[dict[str, Any]], pairs: bool) -> list[str]:
    """Return the adapters that take single texts, or those that take pairs, and say which are left out.

    Raises:
        ConfigError: none is left.
    """
    others = {one["name"] for one in listed if one.get("pairs") not in (None, pairs)}
    kept = [name for name in names if name not in others]
    asked, other = ("pairs", "single texts") if pairs else ("single texts", "pairs")
    if not kept:
        raise ConfigError(
            f"all adapters of the server take {other}, and the texts are {asked}; give others with --texts"
        )
    if len(kept) < len(names):
        terminal.say(f"left out: {len(names) - len(kept):,} adapters that take {other}, because the texts are {asked}")
    return kept


def _plan(config: LoadConfig, names: list[str], url: str) -> str:
    """Return one sentence about what is about to be sent."""
    pace = f"{config.rate:g} requests per second" if config.rate else f"{config.most_connections} connections"
    asked = (
        "the default adapter" if names == [""] else f"{len(names):,} adapters" if len(names) > 1 else f"'{names[0]}'"
    )
    warmup = f" after {config.warmup:g} s of warm-up" if config.warmup else ""
    return f"{pace} for {config.duration:g} s{warmup}, asking {asked} at {url}"


def _print(terminal: Terminal, report: LoadReport) -> None:
    """Print a report for people, or as JSON."""
    statuses = ", ".join(f"{status}: {count:,}" for status, count in report.statuses.items()) or "none"
    terminal.say(f"answers      {statuses}")
    if report.not_sent:
        terminal.say(
            f"not sent     {report.not_sent:,} requests found no free connection; give more with --connections"
        )
    offered = "" if report.rate is None else f" of {report.requests / max(report.seconds, 1e-3):,.1f} offered"
    terminal.say(f"throughput   {report.throughput:,.1f} requests per second{offered}")
    if report.rows_per_second != report.throughput:
        terminal.say(f"rows         {report.rows_per_second:,.1f} pairs of a text and an adapter per second")
    rows = [
        (name, *(f"{value:,.1f}" for value in (row.mean, row.p50, row.p90, row.p95, row.p99, row.max)))
        for name, row in (("answered", report.latency_ms), ("refused (429)", report.refused_ms))
        if row is not None
    ]
    if rows:
        terminal.say("latency in ms")
        terminal.table([("", "mean", "p50", "p90", "p95", "p99", "max"), *rows])
    if report.lateness_ms is not None and report.lateness_ms.p99 > _LATE:
        terminal.say(
            f"warning: requests were sent up to {report.lateness_ms.p99:,.0f} ms late (p99): this machine cannot send "
            "so many; use a lower --rate or another machine"
        )
    for status, content in report.errors.items():
        terminal.say(f"answer {status}   {content}")
    if report.statuses.get("401") or report.statuses.get("403"):
        terminal.say("warning: requests were refused for lack of an API key; put one into the environment as PTUNE_KEY")
    terminal.answer(report.to_dict())
