"""The server without HTTP: requests for adapters by name become answers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ptune.data.columns import check_pairs
from ptune.data.encode import Encoded
from ptune.data.targets import REGRESSION, SINGLE
from ptune.data.template import Side
from ptune.data.texts import Text, unzip
from ptune.errors import AdapterError, ConfigError, PtuneError, RequestError
from ptune.inference.answers import probabilities
from ptune.inference.engine import GPU_TOKENS
from ptune.serving.backbones import Backbones
from ptune.serving.bank import Bank, Loaded, settle
from ptune.serving.batcher import Batcher, Limits, too_late
from ptune.serving.catalogue import Catalogue, Changes, Entry, check_name, name_in_path
from ptune.serving.compute import Compute
from ptune.serving.encoding import Encoding, encoder_key
from ptune.serving.keys import Caller
from ptune.serving.settings import ServeSettings
from ptune.serving.uploads import Uploads

logger = logging.getLogger(__name__)

# Tokens that are computed at the same time on a CPU, and fewest of a batch. Larger batches are hardly faster there, and
# a request waits for the one in front of its own.
CPU_BATCH, LEAST_BATCH = 512, 128
# Batches that are computed at the same time on a CPU. Python starts the operations of one batch at a time.
MOST_THREADS = 4


@dataclass(frozen=True)
class Answer:
    """The answer of one adapter to the rows of a request.

    Attributes:
        adapter: which one.
        logits: [N, C].
        tokens: of each row.
        queue_seconds, inference_seconds: how long the request waited and was computed.
    """

    adapter: Loaded
    logits: Tensor
    tokens: list[int]
    queue_seconds: float
    inference_seconds: float

    def scores(self, function: str | None = None) -> Tensor:
        """Return the scores [N, C].

        Args:
            function: `none` gives the logits, `softmax` and `sigmoid` probabilities. None: as the adapter was trained;
                for a regression, the number.
        """
        kind = self.adapter.problem_type
        if function == "none" or (function is None and kind == REGRESSION):
            return self.logits
        if function == "sigmoid":
            return self.logits.sigmoid()
        return probabilities(self.logits, SINGLE if function == "softmax" else kind, self.adapter.task.temperature)


@dataclass
class _Request:
    """The texts of a request, and what is known of them so far.

    texts, pairs: the texts, and the second ones of pairs.
    side, most, truncate: see `Service.classify`.
    deadline: when it has to be answered, in the time of the event loop.
    rows: their tokens, for each way in which an adapter reads them.
    starts: where the rows of each way begin.
    tokens: over all adapters.
    """

    texts: list[str]
    pairs: list[str] | None
    side: Side
    most: int | None
    truncate: bool | None
    deadline: float
    rows: list[Encoded] = field(default_factory=list)
    starts: dict[Hashable, int] = field(default_factory=dict)
    tokens: int = 0


class Service:
    """Everything that a request needs, from the names of adapters to the threads that run the model.

    Args:
        settings: of the server.
        catalogue: the adapters.
        backbones: their backbones.
    """

    def __init__(self, settings: ServeSettings, catalogue: Catalogue, backbones: Backbones) -> None:
        self.settings = settings
        self.catalogue = catalogue
        self.backbones = backbones
        self.bank = Bank(backbones, settings.adapter_memory)
        first = backbones.all[0]
        threads, cores, tokens = first.under_way, 0, CPU_BATCH if first.device.type == "cpu" else GPU_TOKENS
        if first.device.type == "cpu" and first.under_way == 1:  # PyTorch's: batches share its threads
            cores = torch.get_num_threads()
            threads = 1 if any(backbone.keeps_state for backbone in backbones.all) else min(cores, MOST_THREADS)
            tokens = max(CPU_BATCH // threads, LEAST_BATCH)
        self.batch_tokens = settings.max_batch_tokens or tokens
        limits = Limits(self.batch_tokens, settings.max_batch_rows, settings.max_queue_rows, settings.max_wait)
        self.batcher = Batcher(Compute(self.batch_tokens, cores), limits, threads)
        self.encoding = Encoding()
        self.started = int(time.time())
        self.ready = False
        self.draining = False
        self.changing = asyncio.Lock()
        self._in_groups = asyncio.Lock()
        self.uploads = Uploads(catalogue, self.bank, self.changing, settings.max_upload)

    @property
    def takes_requests(self) -> bool:
        """True after the warm-up, until the server is about to stop."""
        return self.ready and not self.draining

    @property
    def default_adapter(self) -> str | None:
        """The adapter that answers where a request names none."""
        if self.settings.default_adapter is not None:
            return self.settings.default_adapter
        return next(iter(self.catalogue.entries)) if len(self.catalogue.entries) == 1 else None

    def let_in(self, path: str, caller: Caller) -> AbstractContextManager[None]:
        """Count a request to a path until it is answered.

        One for an adapter that does not exist, or that the caller may not use, is not counted: both get one answer.

        Raises:
            RequestError: the server is busy (429).
        """
        name = name_in_path(path)
        asks = name is None or (name in self.catalogue.entries and caller.may_use(name))
        return self.batcher.let_in() if asks else nullcontext()

    def labels(self, entry: Entry) -> list[str]:
        """Return the labels of an adapter, in index order."""
        return list(entry.file.record.labels or ())

    async def adapter(self, name: str | None) -> Loaded:
        """Return an adapter, loaded.

        Args:
            name: None: the default adapter.

        Raises:
            RequestError: see `entry`.
            AdapterError: it cannot be loaded.
        """
        entry = self.entry(name)
        found = self.bank.find(entry)
        if found is not None:
            return found
        try:
            loaded = await self.bank.load(entry)
        except AdapterError as err:
            if self.catalogue.entries.get(entry.name) is entry:
                self.catalogue.refuse(entry.name, entry.stamp, err)
            raise
        if self.catalogue.entries.get(entry.name) is entry:  # not removed or replaced meanwhile
            self.bank.keep(loaded)
            if loaded.entry is not entry or entry.name in self.catalogue.broken:  # newer files, or good ones again
                self.catalogue.put(loaded.entry)
        return loaded

    def is_usable(self, name: str) -> bool:
        """Return whether an adapter of the catalogue can be asked, as far as is known."""
        return name in self.bank or (name in self.catalogue.entries and name not in self.catalogue.broken)

    def entry(self, name: str | None) -> Entry:
        """Return what the catalogue says of an adapter.

        Args:
            name: None: the default adapter.

        Raises:
            RequestError: there is no such adapter (404), no default one (400), or it cannot be served (424).
        """
        name = name or self.default_adapter
        if name is None:
            raise RequestError(
                "name an adapter: in the path, as /adapters/NAME, or in the header X-Adapter; GET /adapters lists them",
                400,
                field="adapter",
            )
        return self.catalogue[check_name(name)]

    def check_rows(self, rows: int) -> None:
        """Check that a request has not too many rows.

        Raises:
            RequestError: it has (413).
        """
        if rows > self.settings.max_rows:
            raise RequestError(
                f"the request has {rows} rows; at most {self.settings.max_rows} are taken at a time",
                413,
                field="inputs",
            )

    async def classify(
        self,
        names: Sequence[str | None],
        texts: Sequence[Text],
        truncate: bool | None = None,
        side: Side = "right",
        most: int | None = None,
    ) -> list[Answer]:
        """Return the answers of adapters to the same texts, in the order of the names.

        A text is tokenized once for all adapters that read it in the same way. Adapters for which there is no memory
        together are asked in groups, and only one request at a time does this.

        Args:
            names: of adapters; None: the default one.
            texts: single texts or (text, text_pair), not both.
            truncate: whether texts that are too long are cut. None: as the settings say.
            side: the end at which they are cut.
            most: tokens that texts are cut to. None: as many as the adapter takes.

        Raises:
            RequestError: there is no such adapter, the request is too large, a text is too long, the queue is full, or
                the time is over.
            PtuneError: an adapter cannot be loaded or computed, or a text cannot be used.
        """
        rows = len(names) * len(texts)
        self.check_rows(rows)
        firsts, seconds_of = unzip(texts)
        for name in names:
            self.entry(name)
        self.batcher.check_room(rows)  # before any work is done for a request that will be refused
        deadline = asyncio.get_running_loop().time() + self.settings.timeout
        request = _Request(firsts, seconds_of, side, most, truncate, deadline)
        groups = self._groups(names)
        if len(groups) == 1:
            return await self._ask(groups[0], request)
        answers: list[Answer] = []
        try:
            async with asyncio.timeout_at(deadline):
                await self._in_groups.acquire()
        except TimeoutError:
            raise too_late() from None
        try:
            for group in groups:
                found = await self._ask(group, request)
                # What is left to do with an answer needs no weights, so they may go.
                answers += [replace(answer, adapter=replace(answer.adapter, members=())) for answer in found]
        finally:
            self._in_groups.release()
        return answers

    def _groups(self, names: Sequence[str | None]) -> list[list[str | None]]:
        """Return the names in groups whose adapters fit into the memory for adapters together."""
        groups: list[list[str | None]] = [[]]
        used = 0
        for name in names:
            size = 4 * self.entry(name).file.parameters
            if used + size > self.settings.adapter_memory and groups[-1]:
                groups.append([])
                used = 0
            groups[-1].append(name)
            used += size
        return groups

    async def _ask(self, names: Sequence[str | None], request: _Request) -> list[Answer]:
        """Return the answers of adapters; see `classify`."""
        try:
            async with asyncio.timeout_at(request.deadline):
                loaded = [await self.adapter(name) for name in names]
                places = await self._encode(loaded, request)
        except TimeoutError:
            raise too_late() from None
        encoded, count = request.rows, len(request.texts)
        self._check_lengths(encoded, loaded, request.truncate)
        pairs = [(place + row, number) for number, place in enumerate(places) for row in range(count)]
        ticket = await self.batcher.submit(loaded, encoded, pairs, request.deadline)
        queued, computed = ticket.started - ticket.submitted, ticket.finished - ticket.started
        answers = []
        for number, (adapter, place) in enumerate(zip(loaded, places, strict=True)):
            found = ticket.logits[number * count : (number + 1) * count]
            logits = torch.stack(found) if found else torch.empty(0, len(adapter.labels))  # type: ignore[arg-type]
            tokens = [len(row) for row in encoded[place : place + count]]
            answers.append(Answer(adapter, logits, tokens, queued, computed))
        return answers

    async def _encode(self, loaded: Sequence[Loaded], request: _Request) -> list[int]:
        """Add the rows for each way of reading the texts to the request. Return where those of each adapter begin."""
        places = []
        for adapter in loaded:
            if request.texts:  # no texts are neither single ones nor pairs
                check_pairs(request.pairs is not None, adapter.task.columns, f"adapter '{adapter.name}': ")
            encoder = adapter.encoder if request.most is None else adapter.encoder.shorter(request.most)
            key = encoder_key(encoder)
            if key not in request.starts:
                left = self.settings.max_tokens - request.tokens
                rows = await self.encoding.encode(encoder, request.texts, request.pairs, request.side, left)
                request.starts[key] = len(request.rows)
                request.rows += rows
            start = request.starts[key]
            request.tokens += sum(len(row) for row in request.rows[start : start + len(request.texts)])
            if request.tokens > self.settings.max_tokens:
                raise RequestError(
                    f"the request has more than {self.settings.max_tokens} tokens; send fewer texts at a time",
                    413,
                    field="inputs",
                )
            places.append(start)
        return places

    def _check_lengths(self, encoded: Sequence[Encoded], loaded: Sequence[Loaded], truncate: bool | None) -> None:
        if truncate is None:
            truncate = self.settings.truncate
        cut = sum(row.cut for row in encoded)
        if cut and not truncate:
            most = min(adapter.encoder.max_length for adapter in loaded)
            raise RequestError(
                f"`inputs` must have at most {most} tokens, and {cut} of {len(encoded)} have more; shorten them, or "
                "let them be cut with `truncate`",
                422,
                field="inputs",
            )

    async def follow(self) -> Changes:
        """Look at the files of the catalogue, and serve what is new. An adapter that is in use is loaded before it
        takes the place of the old one."""
        async with self.changing:
            changes = await asyncio.to_thread(self.catalogue.look)
            for entry in changes.new:
                await self._take(entry)
            for name in changes.gone:
                self.catalogue.drop(name)
                self.bank.drop(name)
        return changes

    async def _take(self, entry: Entry) -> None:
        """Serve a new adapter, or the new version of one."""
        try:
            if entry.name in self.bank:
                loaded = await self.bank.load(entry)
                self.bank.keep(loaded)
                entry = loaded.entry
            else:
                entry = settle(entry, self.backbones)
            self.catalogue.put(entry)
        except (AdapterError, ConfigError, OSError) as err:
            self.catalogue.refuse(entry.name, entry.stamp, err)

    async def warm_up(self) -> None:
        """Compute a few rows, so that the first request is as fast as all others.

        Prompts that enter in different ways take different paths through the backbone, and rows that share a prompt
        take another one than rows with prompts of their own. Each path is taken once: OpenVINO compiles it then.
        """
        started = time.perf_counter()
        kinds: dict[Hashable, list[str]] = defaultdict(list)
        for name, entry in self.catalogue.entries.items():
            prompt, pair = entry.file.record.prompt, entry.file.record.columns.get("text_pair")
            kind = (prompt.method, prompt.softmax, prompt.shift_text, prompt.pooling == "mean", pair is None)
            kinds[entry.file.record.backbone.name, kind].append(name)
        for names in kinds.values():
            await self._try(names[:2])
        self.ready = True
        logger.info("ready after %.1f s of warm-up", time.perf_counter() - started)

    async def _try(self, names: Sequence[str]) -> None:
        """Compute rows for adapters of one kind, alone and together."""
        entry = self.catalogue.entries.get(names[0])
        if entry is None:  # removed since the warm-up began
            return
        pair = entry.file.record.columns.get("text_pair")
        text: Text = "warm up" if pair is None else ("warm", "up")
        try:
            for group in dict.fromkeys((tuple(names[:1]), tuple(names))):
                for texts in ([text] * 8, [text]):
                    await self.classify(group, texts)
        except PtuneError as err:
            logger.warning("warm-up with adapter '%s': %s", names[0], err)
        except Exception:  # whatever it is, other adapters may be served
            logger.exception("warm-up with adapter '%s' failed", names[0])

    async def watch(self) -> None:
        """Follow the files of the catalogue, until it is cancelled."""
        while self.settings.watch_seconds:
            await asyncio.sleep(self.settings.watch_seconds)
            try:
                await self.follow()
            except (PtuneError, OSError) as err:
                logger.warning("scanning for new adapters failed: %s", err)
            except Exception:  # whatever it is, later looks may succeed
                logger.exception("looking for new adapters failed")

    async def close(self) -> None:
        """Answer what is under way and end all threads."""
        self.encoding.close()
        await self.batcher.close()
        self.bank.close()
