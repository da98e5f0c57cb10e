"""What the threads of the model do: the logits of a batch whose rows belong to many requests and many adapters."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock

import torch
from torch import Tensor

from ptune.data.encode import Encoded
from ptune.errors import AdapterError, PtuneError
from ptune.inference.engine import check_finite
from ptune.inference.mixed import mixed_logits
from ptune.model.backbone import Backbone
from ptune.serving.bank import Loaded
from ptune.serving.batcher import Part

logger = logging.getLogger(__name__)


class Compute:
    """Computes parts of tickets. It is called in the model's threads.

    Args:
        most_tokens: bound on the tokens of a forward pass; None: what suits the device.
        cores: that the batches under way share; 0: they do not share, because the backbone divides its work itself.
    """

    def __init__(self, most_tokens: int | None = None, cores: int = 0) -> None:
        self._bounds: dict[int, int | None] = {}
        self._most_tokens = most_tokens
        self._cores = cores
        self._running = 0
        self._lock = Lock()

    def __call__(self, parts: Sequence[Part]) -> list[list[Tensor] | PtuneError]:
        """Return the logits of each part's pairs, or what went wrong with it.

        An error belongs to the parts that cause it: where a batch fails, its parts are computed one by one.
        """
        try:
            with self._sharing():
                return self._compute(parts)
        except Exception as err:
            if len(parts) == 1:
                return [self._explain(err)]
            return [result for part in parts for result in self([part])]

    @contextmanager
    def _sharing(self) -> Iterator[None]:
        """Give a batch its share of the cores: all of them, if no other one is under way when it starts.

        Two batches on a core each are faster than one batch on two cores after another: no core waits for the other at
        the end of each operation.
        """
        with self._lock:
            self._running += 1
            running = self._running
        if self._cores:
            torch.set_num_threads(max(1, self._cores // running))  # of this thread
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1

    def _explain(self, err: Exception) -> PtuneError:
        if isinstance(err, PtuneError):
            return err
        logger.error("a batch failed", exc_info=err)
        return AdapterError(f"the model cannot compute these rows: {type(err).__name__}")

    def _compute(self, parts: Sequence[Part]) -> list[list[Tensor] | PtuneError]:
        batches: dict[int, _Batch] = {}
        places: list[
            list[tuple[_Batch, int, int]]
        ] = []  # for each pair: its batch, its adapter there, its number there
        for ticket, start, end in parts:
            place = []
            for row, adapter in ticket.pairs[start:end]:
                loaded = ticket.loaded[adapter]
                batch = batches.get(id(loaded.backbone))
                if batch is None:
                    batch = batches[id(loaded.backbone)] = _Batch(loaded.backbone)
                place.append((batch, *batch.add(loaded, ticket.encoded[row])))
            places.append(place)
        for key, batch in batches.items():
            bound = self._bounds.get(key, self._most_tokens)
            self._bounds[key] = batch.run(bound)
        results: list[list[Tensor] | PtuneError] = []
        for place in places:
            try:
                results.append([batch.result(adapter, number) for batch, adapter, number in place])
            except PtuneError as err:
                results.append(err)
        return results


class _Batch:
    """Rows of adapters over one backbone. A row that is asked of several adapters is there once."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self.loaded: list[Loaded] = []
        self.encoded: list[Encoded] = []
        self.wanted: list[tuple[int, int]] = []
        self._adapters: dict[int, int] = {}
        self._rows: dict[int, int] = {}
        self._logits: list[Tensor] = []
        self._finite = True
        self._numbers: list[dict[int, int]] = []  # for each adapter, the number of each row among its own

    def add(self, loaded: Loaded, encoded: Encoded) -> tuple[int, int]:
        """Add a row for an adapter, and return the adapter's number and the row's number among its own."""
        adapter = self._adapters.setdefault(id(loaded), len(self.loaded))
        if adapter == len(self.loaded):
            self.loaded.append(loaded)
            self._numbers.append({})
        row = self._rows.setdefault(id(encoded), len(self.encoded))
        if row == len(self.encoded):
            self.encoded.append(encoded)
        numbers = self._numbers[adapter]
        if row not in numbers:
            numbers[row] = len(numbers)
            self.wanted.append((row, adapter))
        return adapter, numbers[row]

    def run(self, most_tokens: int | None) -> int | None:
        """Compute all rows and return the bound on tokens for the next batch."""
        pad_id = self.loaded[0].pad_id  # padding is masked, so that of one tokenizer does for all
        logits, bound = mixed_logits(self.loaded, self.encoded, self.wanted, pad_id, most_tokens=most_tokens)
        self._logits = list(logits)
        self._finite = bool(torch.cat([x.flatten() for x in logits]).isfinite().all())
        return bound

    def result(self, adapter: int, number: int) -> Tensor:
        """Return the logits [C] of a row.

        Raises:
            AdapterError: they are not finite. Other rows of the adapter may be.
        """
        logits = self._logits[adapter][number]
        if not self._finite:
            loaded = self.loaded[adapter]
            try:
                check_finite(logits[None], loaded.backbone)
            except AdapterError as err:
                raise AdapterError(f"adapter '{loaded.name}': {err}") from None
        return logits
