"""The adapters whose weights are in memory, within a budget of bytes.

An adapter is loaded when it is first used. Beyond the budget, the one that was not used for the longest time goes. Rows
that are being computed keep their adapter until they are answered, so a request sees one version of it from beginning
to end.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from ptune.adapter.layout import TaskInfo
from ptune.adapter.own_memory import OwnMemory
from ptune.adapter.peft_task import with_task
from ptune.data.encode import TextEncoder
from ptune.data.targets import ProblemType
from ptune.errors import AdapterError
from ptune.inference.classifier import load
from ptune.model.backbone import Backbone
from ptune.model.ensemble import members_of
from ptune.model.folded import Folded
from ptune.serving.backbones import Backbones
from ptune.serving.catalogue import Entry, read_entry, stamp_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Loaded:
    """An adapter in memory, which never changes.

    Attributes:
        entry: what it was read from.
        members: its prompts and heads; several for an ensemble.
        labels: label names in index order.
        problem_type: what its logits mean.
        task: temperature, thresholds and columns.
        encoder: turns texts into token ids.
        pad_id: id of the padding token.
    """

    entry: Entry
    members: Sequence[Folded]
    labels: list[str]
    problem_type: ProblemType
    task: TaskInfo
    encoder: TextEncoder
    pad_id: int

    @property
    def name(self) -> str:
        return self.entry.name

    @property
    def backbone(self) -> Backbone:
        return self.members[0].backbone

    @property
    def bytes(self) -> int:
        """Memory of its weights."""
        return sum(member.bytes for member in self.members)


def settle(entry: Entry, backbones: Backbones) -> Entry:
    """Return an entry whose adapter goes with one of the backbones, with the labels that PEFT's files lack.

    Raises:
        AdapterError: it goes with none of them.
        ConfigError: its labels are not usable.
    """
    return replace(entry, file=with_task(entry.file, backbones.of(entry.file)))


def load_entry(entry: Entry, backbones: Backbones) -> Loaded:
    """Read the weights of an adapter. The files may have changed since; then what is there now is read, whole.

    Raises:
        AdapterError: the files cannot be used, or do not go with the backbone.
    """
    for _ in range(5):
        try:
            classifier = load(entry.file, backbones.of(entry.file))
        except AdapterError:
            if stamp_of(entry.file.folder) == entry.stamp:
                raise
            entry = settle(read_entry(entry.name, entry.file.folder), backbones)
            continue
        with OwnMemory():
            members = [Folded(member) for member in members_of(classifier.model)]
        if stamp_of(entry.file.folder) == entry.stamp:
            model = classifier.model
            return Loaded(
                entry,
                members,
                model.labels,
                model.problem_type,
                classifier.task,
                classifier.encoder,
                classifier.pad_id,
            )
        entry = settle(read_entry(entry.name, entry.file.folder), backbones)
    raise AdapterError(f"adapter '{entry.name}': its files keep changing; it is read when they have stopped")


class Bank:
    """Loaded adapters by name, the one that was used last at the end. All methods belong to the event loop.

    Args:
        backbones: give the backbone of each adapter.
        budget: bytes for the weights of all adapters.
    """

    def __init__(self, backbones: Backbones, budget: int) -> None:
        self.backbones = backbones
        self.budget = budget
        self.bytes = 0
        self.loads = 0
        self.evictions = 0
        self._loaded: OrderedDict[str, Loaded] = OrderedDict()
        self._loading: dict[tuple[str, object], asyncio.Future[Loaded]] = {}
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="ptune-read")

    def __len__(self) -> int:
        """Return the number of adapters in memory."""
        return len(self._loaded)

    def __contains__(self, name: str) -> bool:
        return name in self._loaded

    def find(self, entry: Entry) -> Loaded | None:
        """Return an adapter of the catalogue if it is in memory. It then counts as used."""
        found = self._loaded.get(entry.name)
        if found is None or found.entry is not entry:
            return None
        self._loaded.move_to_end(entry.name)
        return found

    async def load(self, entry: Entry) -> Loaded:
        """Read an adapter without keeping it. Requests that come meanwhile wait for the same result."""
        key = (entry.name, entry.stamp)
        future = self._loading.get(key)
        if future is None:
            loop = asyncio.get_running_loop()
            future = loop.run_in_executor(self._reader, self.read, entry)
            self._loading[key] = future
            future.add_done_callback(lambda _: self._loading.pop(key, None))
        return await asyncio.shield(future)  # one that gives up does not take the result from the others

    def read(self, entry: Entry) -> Loaded:
        """Read an adapter, in any thread.

        Raises:
            AdapterError: it cannot be loaded, or is larger than the budget.
        """
        loaded = load_entry(entry if entry.file.record.labels else settle(entry, self.backbones), self.backbones)
        if loaded.bytes > self.budget:
            raise AdapterError(
                f"adapter '{entry.name}' takes {loaded.bytes} bytes, but `adapter_memory` is {self.budget} bytes; "
                "give the server more"
            )
        return loaded

    def keep(self, loaded: Loaded) -> None:
        """Keep an adapter in place of the one of its name, and drop others if the budget is exceeded.

        A request that comes when the files have just been read, and nobody has kept the result yet, reads them again.
        What it read is then not needed.
        """
        known = self._loaded.get(loaded.name)
        if known is not None and known.entry is loaded.entry:
            return
        self.drop(loaded.name)
        self._loaded[loaded.name] = loaded
        self.bytes += loaded.bytes
        self.loads += 1
        while self.bytes > self.budget and len(self._loaded) > 1:
            self.drop(next(iter(self._loaded)))
            self.evictions += 1

    def drop(self, name: str) -> None:
        """Let go of an adapter. Rows that are being computed with it still hold it."""
        dropped = self._loaded.pop(name, None)
        if dropped is not None:
            self.bytes -= dropped.bytes

    def close(self) -> None:
        """End the thread that reads files."""
        self._reader.shutdown(cancel_futures=True)
