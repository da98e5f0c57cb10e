"""Metrics for Prometheus: those of Text Embeddings Inference under its names, and ptune's own.

Labels are bounded: a path is the route's template, and an adapter is counted by its name only if it is one of the first
that were asked.
"""

from __future__ import annotations

import asyncio
import os
import re
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from ptune.serving.service import Answer, Service

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_TOKENS = (16, 64, 256, 512, 1024, 2048, 4096, 8192, 16_384)
OTHER = "other"
# Text Embeddings Inference has counters without the suffix that prometheus_client gives to all of them.
_TE_COUNTER = re.compile(rb"^((?:# HELP |# TYPE )?te_request_(?:count|success|failure))_total", re.MULTILINE)


# Name, what it is, and how the values of several workers, which have the same catalogue, are joined.
_GAUGES: tuple[tuple[str, str, Literal["livesum", "livemax", "livemin"]], ...] = (
    ("te_queue_size", "Rows that wait.", "livesum"),
    ("ptune_queue_tokens", "Tokens that wait.", "livesum"),
    ("ptune_adapters", "Adapters in the catalogue.", "livemax"),
    ("ptune_adapters_broken", "Adapters whose files cannot be served.", "livemax"),
    ("ptune_adapters_loaded", "Adapters in memory, with several workers of the one that has most.", "livemax"),
    ("ptune_adapters_bytes", "Memory of the adapters' weights in bytes.", "livesum"),
    ("ptune_adapter_loads", "Adapters that were read since the start.", "livesum"),
    ("ptune_adapter_evictions", "Adapters that were dropped to stay within the budget.", "livesum"),
    ("ptune_ready", "1 if the server is ready, with all of its workers.", "livemin"),
)
# Text Embeddings Inference's label of a request that failed, by status. All others are its `validation`.
_TEI_ERRORS = {
    413: "batch_size",
    424: "inference",
    429: "overloaded",
    500: "inference",
    503: "unhealthy",
    504: "timeout",
}


class Metrics:
    """The metrics of a server.

    Args:
        most_adapters: adapters that are counted by name.
    """

    def __init__(self, most_adapters: int) -> None:
        self.registry = CollectorRegistry()
        self._most_adapters = most_adapters
        self._groups: set[str] = set()
        self.requests = Counter(
            "ptune_requests_total",
            "Requests by route, adapter and status.",
            ("route", "adapter", "status"),
            registry=self.registry,
        )
        self.duration = Histogram(
            "ptune_request_seconds", "Time of a request.", ("route",), buckets=_SECONDS, registry=self.registry
        )
        self.rows = Counter("ptune_rows_total", "Rows by adapter.", ("adapter",), registry=self.registry)
        self.tokens = Counter("ptune_tokens_total", "Tokens by adapter.", ("adapter",), registry=self.registry)
        self.te_count = Counter("te_request_count", "Requests.", ("method",), registry=self.registry)
        self.te_success = Counter("te_request_success", "Requests answered.", ("method",), registry=self.registry)
        self.te_failure = Counter("te_request_failure", "Requests refused.", ("err",), registry=self.registry)
        self.te_duration = self._histogram("te_request_duration", "Time of a request in seconds.", _SECONDS)
        self.te_queue = self._histogram("te_request_queue_duration", "Time in the queue in seconds.", _SECONDS)
        self.te_inference = self._histogram("te_request_inference_duration", "Time of the model in seconds.", _SECONDS)
        self.te_batch_size = self._histogram("te_batch_next_size", "Rows of a batch.", _SIZES)
        self.te_batch_tokens = self._histogram("te_batch_next_tokens", "Tokens of a batch.", _TOKENS)
        self._gauges = {
            name: Gauge(name, text, registry=self.registry, multiprocess_mode=mode) for name, text, mode in _GAUGES
        }

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, buckets=buckets, registry=self.registry)

    def group(self, adapter: str | None) -> str:
        """Return the label of an adapter: its name, or `other` if enough adapters have a label."""
        if adapter is None:
            return ""
        if adapter in self._groups:
            return adapter
        if len(self._groups) < self._most_adapters:
            self._groups.add(adapter)
            return adapter
        return OTHER

    def answered(self, answer: Answer) -> None:
        """Count the rows of an adapter that were answered."""
        group = self.group(answer.adapter.name)
        self.rows.labels(group).inc(len(answer.tokens))
        self.tokens.labels(group).inc(sum(answer.tokens))

    def request(self, route: str, method: str, adapter: str | None, status: int, seconds: float) -> None:
        """Count a request.

        Args:
            route: the template of its path.
            method: single or batch, as Text Embeddings Inference has it; empty for those that ask no adapter.
            adapter: the name of the adapter that was found, if one was.
            status: of the answer.
            seconds: how long it took.
        """
        self.requests.labels(route, self.group(adapter), str(status)).inc()
        self.duration.labels(route).observe(seconds)
        if method:
            self.te_count.labels(method).inc()
            if status < 400:
                self.te_success.labels(method).inc()
                self.te_duration.observe(seconds)
            else:
                self.te_failure.labels(_TEI_ERRORS.get(status, "validation")).inc()

    def batch(self, rows: int, tokens: int) -> None:
        """Count a batch."""
        self.te_batch_size.observe(rows)
        self.te_batch_tokens.observe(tokens)

    def note(self, service: Service) -> None:
        """Take over the state of the service: what waits, and what is in memory."""
        bank, catalogue = service.bank, service.catalogue
        values = {
            "te_queue_size": service.batcher.rows,
            "ptune_queue_tokens": service.batcher.tokens,
            "ptune_adapters": len(catalogue.entries),
            "ptune_adapters_broken": len(catalogue.broken),
            "ptune_adapters_loaded": len(bank),
            "ptune_adapters_bytes": bank.bytes,
            "ptune_adapter_loads": bank.loads,
            "ptune_adapter_evictions": bank.evictions,
            "ptune_ready": int(service.takes_requests),
        }
        for name, value in values.items():
            self._gauges[name].set(value)

    async def keep_noting(self, service: Service) -> None:
        """Note the state every second, until it is cancelled. Another worker may be the one that is asked for it."""
        while True:
            self.note(service)
            await asyncio.sleep(1)

    def text(self, service: Service) -> bytes:
        """Return all metrics in Prometheus' text format. With several workers, those of all of them."""
        self.note(service)
        if not has_workers():
            return _plain_counts(generate_latest(self.registry))
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return _plain_counts(generate_latest(together))


def has_workers() -> bool:
    """Return whether several worker processes share their metrics."""
    return "PROMETHEUS_MULTIPROC_DIR" in os.environ


def _plain_counts(text: bytes) -> bytes:
    """Return Prometheus' text with the counters of Text Embeddings Inference under their own names."""
    return _TE_COUNTER.sub(rb"\1", text)
