"""Compute the logits of encoded rows: make batches, run them, and make them smaller if the device lacks memory.

Validation during training, evaluation, prediction and calls that mix several classifiers all use `compute_logits`.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ptune.data.batch import collate, filled_batches, ordered_batches, pack
from ptune.data.encode import Encoded
from ptune.errors import AdapterError, ConfigError, check_whole_number
from ptune.model.backbone import Backbone
from ptune.model.classifier import PromptClassifier
from ptune.model.ensemble import Model, combine, members_of
from ptune.model.folded import Folded
from ptune.model.memory import memory_errors, ways_out
from ptune.model.mixed import Group, group_of, start_logits
from ptune.model.pending import Pending
from ptune.model.vectors import PooledVectors

# Tokens per forward pass, padding included: few enough for a CPU's cache, and enough to keep a GPU busy.
CPU_TOKENS, GPU_TOKENS = 1536, 16_384


Classifier = PromptClassifier | PooledVectors | Folded
OnRows = Callable[[int], None]


@dataclass(frozen=True)
class Outcome:
    """The result of `compute_logits`.

    Attributes:
        logits: for each classifier [N_i, C_i], on the CPU, in the order in which its rows were requested.
        most_tokens: bound on the tokens per forward pass, set if the device ran out of memory; pass it to the next
            call.
    """

    logits: list[Tensor]
    most_tokens: int | None


def run_logits(
    model: Model,
    encoded: Sequence[Encoded],
    pad_id: int,
    batch_size: int | None = None,
    on_rows: OnRows | None = None,
) -> Tensor:
    """Return the logits [N, C] of encoded rows, on the CPU, in the rows' order. An ensemble's members are combined.

    Arguments and errors are those of `compute_logits`.
    """
    return run_model(model, encoded, pad_id, batch_size, on_rows=on_rows)[0]


def run_model(
    model: Model,
    encoded: Sequence[Encoded],
    pad_id: int,
    batch_size: int | None = None,
    most_tokens: int | None = None,
    on_rows: OnRows | None = None,
) -> tuple[Tensor, int | None]:
    """Return the logits [N, C] of encoded rows, and the bound on tokens to use for the next call.

    Arguments and errors are those of `compute_logits` and `check_finite`.
    """
    members = members_of(model)
    wanted = [(row, member) for row in range(len(encoded)) for member in range(len(members))]
    of_each = None if on_rows is None else lambda done: on_rows(done // len(members))
    outcome = compute_logits(members, encoded, wanted, pad_id, batch_size, most_tokens, of_each)
    logits = combine(torch.stack(outcome.logits), model.problem_type)
    return check_finite(logits, model.backbone), outcome.most_tokens


def check_finite(logits: Tensor, backbone: Backbone) -> Tensor:
    """Return logits [N, C] that are all finite.

    Raises:
        AdapterError: some are not, so that the answers would mean nothing.
    """
    broken = int((~logits.isfinite().all(dim=1)).sum())
    if broken:
        half = backbone.dtype == torch.float16
        hint = "`dtype='float32'` has a wider range; otherwise train it again" if half else "train it again"
        raise AdapterError(
            f"the model gives infinite numbers or NaN for {broken} of {len(logits)} texts: the adapter's weights are "
            f"damaged or too large for backbone '{backbone.name}' in {backbone.dtype_name}; {hint}"
        )
    return logits


@torch.no_grad()
def compute_logits(
    classifiers: Sequence[Classifier],
    encoded: Sequence[Encoded],
    wanted: Sequence[tuple[int, int]],
    pad_id: int,
    batch_size: int | None = None,
    most_tokens: int | None = None,
    on_rows: OnRows | None = None,
) -> Outcome:
    """Compute the logits of rows, each with one classifier or with several.

    Rows are sorted by length inside each group of classifiers that can share a forward pass (`model.mixed.Group`).
    If the device runs out of memory, the batches are halved and the computation starts again.

    Args:
        classifiers: on the same backbone. Prompt lengths, methods, poolings, heads and classes may differ.
        encoded: the rows.
        wanted: pairs of a row's index and a classifier's index, without duplicates.
        pad_id: id of the padding token. Any token will do, as padding is masked.
        batch_size: rows per forward pass. None: as many as suit the device, or fewer if it lacks memory for them.
        most_tokens: bound on the tokens per forward pass, from an earlier call. None: what suits the device.
        on_rows: called after each batch with the number of pairs that are done.

    Raises:
        ConfigError: the device lacks memory for `batch_size` rows, or for a single row.
        ConfigError: `batch_size` is not a whole number of 1 or more.
    """
    check_whole_number("batch_size", batch_size, 1)
    if not wanted:
        return Outcome([torch.empty(0, len(classifier.labels)) for classifier in classifiers], most_tokens)
    for classifier in classifiers:
        classifier.eval()
    device = classifiers[0].backbone.device
    job = _Job(classifiers, encoded, wanted, pad_id)
    while True:
        tokens = most_tokens or (CPU_TOKENS if device.type == "cpu" else GPU_TOKENS)
        try:
            return Outcome(job.run(batch_size, tokens, on_rows), most_tokens)
        except _NoMemoryError as error:
            rows, longest = error.rows, error.longest
        if batch_size or rows == 1 or classifiers[0].backbone.shards is not None:  # other processes are in that pass
            raise _no_memory(device, rows, longest)
        most_tokens = rows * longest // 2  # always shrinks: a batch of several rows was within the bound
        if device.type == "cuda":
            torch.cuda.empty_cache()


class _NoMemoryError(Exception):
    """The device has no memory for a batch.

    Args:
        rows: number of rows in the batch.
        longest: tokens of its longest row.
    """

    def __init__(self, rows: int, longest: int) -> None:
        super().__init__()
        self.rows = rows
        self.longest = longest


def _no_memory(device: torch.device, rows: int, longest: int) -> ConfigError:
    """Return the error for a user whose device has no memory for a batch."""
    batch, remedy = f"a batch of {rows} rows", "a smaller `batch_size`"
    if rows == 1:
        batch, remedy = f"a row of {longest} tokens", "a smaller `max_length` in training"
    remedies = ways_out(device, remedy, "`dtype='bfloat16'`")
    return ConfigError(f"{device} has no memory for {batch}; {remedies}")


class _Job:
    """The work of one call of `compute_logits`: pairs of a row and a classifier, computed in batches."""

    def __init__(
        self,
        classifiers: Sequence[Classifier],
        encoded: Sequence[Encoded],
        wanted: Sequence[tuple[int, int]],
        pad_id: int,
    ) -> None:
        self.classifiers = classifiers
        self.packed = pack(encoded)
        self.lengths = [len(row) for row in encoded]
        self.wanted = wanted
        self.pad_id = pad_id
        self.backbone = classifiers[0].backbone

    def run(self, batch_size: int | None, tokens: int, on_rows: OnRows | None = None) -> list[Tensor]:
        """Return the logits [N_i, C_i] of each classifier's rows, on the CPU.

        Args:
            batch_size: rows per forward pass; None: see `tokens`.
            tokens: most tokens per forward pass; ignored if `batch_size` is given.
            on_rows: see `compute_logits`.

        Raises:
            _NoMemoryError: the device has no memory for a batch.
        """
        batch: list[tuple[int, int]] = [self.wanted[0]]
        results: dict[int, list[Tensor]] = defaultdict(list)
        running: deque[Pending[dict[int, Tensor]]] = deque()
        batches, done = [], 0

        def collect_oldest() -> None:
            nonlocal done
            for number, logits in running.popleft().result().items():
                results[number].append(logits.float())
                done += len(logits)
            if on_rows is not None:
                on_rows(done)

        try:
            with memory_errors():
                prompts = [classifier.prompt().contiguous() for classifier in self.classifiers]
                for batch in self._batches(prompts, batch_size, tokens):
                    if len(running) == self.backbone.under_way:
                        collect_oldest()
                    running.append(self._start(batch, prompts))
                    batches.append(batch)
                while running:
                    collect_oldest()
                return self._in_order(batches, results)
        except torch.OutOfMemoryError:
            raise _NoMemoryError(len(batch), max(self.lengths[row] for row, _ in batch)) from None

    def _batches(
        self, prompts: Sequence[Tensor], batch_size: int | None, tokens: int
    ) -> Iterator[list[tuple[int, int]]]:
        """Yield batches whose rows can share a forward pass. The rows of each classifier are next to each other."""
        groups: dict[Group, list[tuple[int, int]]] = defaultdict(list)
        keys = [group_of(classifier, prompt) for classifier, prompt in zip(self.classifiers, prompts, strict=True)]
        for pair in self.wanted:
            groups[keys[pair[1]]].append(pair)
        for pairs in groups.values():
            lengths = [self.lengths[row] for row, _ in pairs]
            batches = filled_batches(lengths, tokens) if batch_size is None else ordered_batches(lengths, batch_size)
            for batch in batches:
                yield sorted((pairs[index] for index in batch), key=lambda pair: pair[1])

    def _start(self, batch: Sequence[tuple[int, int]], prompts: Sequence[Tensor]) -> Pending[dict[int, Tensor]]:
        """Start the forward pass of a batch and return a handle to its logits by classifier."""
        rows = [row for row, _ in batch]
        inputs = collate(self.packed, rows, self.pad_id, self.backbone.length_step).to(self.backbone.device)
        return start_logits(self.classifiers, prompts, [number for _, number in batch], inputs)

    def _in_order(self, batches: Sequence[Sequence[tuple[int, int]]], results: dict[int, list[Tensor]]) -> list[Tensor]:
        """Return each classifier's logits in the order in which its rows were requested."""
        positions: dict[tuple[int, int], int] = {}
        counts = [0] * len(self.classifiers)
        for row, number in self.wanted:
            positions[row, number] = counts[number]
            counts[number] += 1
        order: dict[int, list[int]] = defaultdict(list)
        for batch in batches:
            for pair in batch:
                order[pair[1]].append(positions[pair])
        logits = []
        for number, classifier in enumerate(self.classifiers):
            computed = torch.cat(results[number]).cpu() if number in results else torch.empty(0, len(classifier.labels))
            ordered = torch.empty_like(computed)
            ordered[order[number]] = computed
            logits.append(ordered)
        return logits
