"""Encoded rows in, logits out: batches, passes under way, and what happens where a device lacks memory.

Training's validation, evaluation and prediction run through `compute_logits`; so does whatever mixes many classifiers.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ptune.data.batch import collate, filled_batches, ordered_batches, pack
from ptune.data.encode import Encoded
from ptune.errors import ConfigError
from ptune.model.classifier import PromptClassifier
from ptune.model.ensemble import Model, PromptEnsemble, combine
from ptune.model.memory import memory_errors, ways_out
from ptune.model.mixed import Group, group_of, start_logits
from ptune.model.pending import Pending

# Tokens of a forward pass, padding included: what fits in a processor's cache, or keeps a GPU busy.
CPU_TOKENS, GPU_TOKENS = 1536, 16_384


@dataclass(frozen=True)
class Outcome:
    """What `compute_logits` gives.

    logits: of each classifier [N_i, C_i], on the CPU, in the order in which its rows were asked for.
    most_tokens: of a forward pass, where the device had no memory for more; give it to the next call.
    """

    logits: list[Tensor]
    most_tokens: int | None


def run_logits(model: Model, encoded: Sequence[Encoded], pad_id: int, batch_size: int | None = None) -> Tensor:
    """Return the logits [N, C] of encoded rows, on the CPU, in the rows' order; an ensemble's members are combined.

    Raises:
        ConfigError: the device has no memory for so many rows, or for a single one.
    """
    return run_model(model, encoded, pad_id, batch_size)[0]


def run_model(
    model: Model,
    encoded: Sequence[Encoded],
    pad_id: int,
    batch_size: int | None = None,
    most_tokens: int | None = None,
) -> tuple[Tensor, int | None]:
    """Return the logits [N, C] of encoded rows and the bound on tokens that they were computed under.

    Arguments and errors are those of `compute_logits`.
    """
    members = [*model.members] if isinstance(model, PromptEnsemble) else [model]
    wanted = [(row, member) for row in range(len(encoded)) for member in range(len(members))]
    outcome = compute_logits(members, encoded, wanted, pad_id, batch_size, most_tokens)  # type: ignore[arg-type]
    return combine(torch.stack(outcome.logits), model.problem_type), outcome.most_tokens


@torch.no_grad()
def compute_logits(
    classifiers: Sequence[PromptClassifier],
    encoded: Sequence[Encoded],
    wanted: Sequence[tuple[int, int]],
    pad_id: int,
    batch_size: int | None = None,
    most_tokens: int | None = None,
) -> Outcome:
    """Compute the logits of rows, each under one classifier or under several.

    Rows are sorted by length inside each group of classifiers that can share a forward pass (`model.mixed.Group`).
    Where the device has no memory for a batch, batches are halved and all is computed again.

    Args:
        classifiers: over one backbone. Lengths, methods, poolings, heads and classes may differ.
        encoded: rows.
        wanted: pairs of a row's number and a classifier's number, none of them twice.
        pad_id: what rows are padded with; any token, as padding is masked.
        batch_size: rows of a forward pass. None: as many as suit the device, and fewer where it lacks memory for those.
        most_tokens: bound on the tokens of a forward pass, from an earlier call. None: what suits the device.

    Raises:
        ConfigError: the device has no memory for `batch_size` rows, or for a single one.
    """
    if not wanted:
        return Outcome([torch.empty(0, len(classifier.labels)) for classifier in classifiers], most_tokens)
    for classifier in classifiers:
        classifier.eval()
    device = classifiers[0].backbone.device
    job = _Job(classifiers, encoded, wanted, pad_id)
    while True:
        tokens = most_tokens or (CPU_TOKENS if device.type == "cpu" else GPU_TOKENS)
        try:
            return Outcome(job.run(batch_size, tokens), most_tokens)
        except _NoMemoryError as error:
            rows, longest = error.rows, error.longest
        if batch_size or rows == 1:
            raise _no_memory(device, rows, longest)
        most_tokens = rows * longest // 2  # less than before: a batch of several rows kept to that
        if device.type == "cuda":
            torch.cuda.empty_cache()


class _NoMemoryError(Exception):
    """The device has no memory for a batch of so many rows, the longest of so many tokens."""

    def __init__(self, rows: int, longest: int) -> None:
        super().__init__()
        self.rows = rows
        self.longest = longest


def _no_memory(device: torch.device, rows: int, longest: int) -> ConfigError:
    what, less = f"a batch of {rows} rows", "a smaller `batch_size`"
    if rows == 1:
        what, less = f"a row of {longest} tokens", "a smaller `max_length` in training"
    ways = ways_out(device, less, "`dtype='bfloat16'`")
    return ConfigError(f"{device} has no memory for {what}; {ways}")


class _Job:
    """The work of `compute_logits`: pairs of a row and a classifier, in batches."""

    def __init__(
        self,
        classifiers: Sequence[PromptClassifier],
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

    def run(self, batch_size: int | None, tokens: int) -> list[Tensor]:
        """Return the logits [N_i, C_i] of each classifier's rows, on the CPU.

        Raises:
            _NoMemoryError: in a batch under way.
        """
        batch: list[tuple[int, int]] = [self.wanted[0]]
        answers: dict[int, list[Tensor]] = defaultdict(list)
        under_way: deque[Pending[dict[int, Tensor]]] = deque()
        batches = []

        def take() -> None:
            for number, logits in under_way.popleft().result().items():
                answers[number].append(logits.float())

        try:
            with memory_errors():
                prompts = [classifier.prompt().contiguous() for classifier in self.classifiers]
                for batch in self._batches(prompts, batch_size, tokens):
                    if len(under_way) == self.backbone.under_way:
                        take()
                    under_way.append(self._start(batch, prompts))
                    batches.append(batch)
                while under_way:
                    take()
                return self._in_order(batches, answers)
        except torch.OutOfMemoryError:
            raise _NoMemoryError(len(batch), max(self.lengths[row] for row, _ in batch)) from None

    def _batches(
        self, prompts: Sequence[Tensor], batch_size: int | None, tokens: int
    ) -> Iterator[list[tuple[int, int]]]:
        """Yield batches whose rows share a forward pass, the rows of one classifier side by side."""
        groups: dict[Group, list[tuple[int, int]]] = defaultdict(list)
        keys = [group_of(classifier, prompt) for classifier, prompt in zip(self.classifiers, prompts, strict=True)]
        for pair in self.wanted:
            groups[keys[pair[1]]].append(pair)
        for pairs in groups.values():
            lengths = [self.lengths[row] for row, _ in pairs]
            batches = ordered_batches(lengths, batch_size) if batch_size else filled_batches(lengths, tokens)
            for batch in batches:
                yield sorted((pairs[place] for place in batch), key=lambda pair: pair[1])

    def _start(self, batch: Sequence[tuple[int, int]], prompts: Sequence[Tensor]) -> Pending[dict[int, Tensor]]:
        rows = [row for row, _ in batch]
        inputs = collate(self.packed, rows, self.pad_id, self.backbone.length_step).to(self.backbone.device)
        return start_logits(self.classifiers, prompts, [number for _, number in batch], inputs)

    def _in_order(self, batches: Sequence[Sequence[tuple[int, int]]], answers: dict[int, list[Tensor]]) -> list[Tensor]:
        """Return each classifier's logits in the order in which its rows were asked for."""
        places: dict[tuple[int, int], int] = {}
        counts = [0] * len(self.classifiers)
        for row, number in self.wanted:
            places[row, number] = counts[number]
            counts[number] += 1
        taken: dict[int, list[int]] = defaultdict(list)
        for batch in batches:
            for pair in batch:
                taken[pair[1]].append(places[pair])
        logits = []
        for number, classifier in enumerate(self.classifiers):
            found = torch.cat(answers[number]).cpu() if number in answers else torch.empty(0, len(classifier.labels))
            ordered = torch.empty_like(found)
            ordered[taken[number]] = found
            logits.append(ordered)
        return logits
