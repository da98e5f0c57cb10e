"""Predict files on a Ray cluster: Ray Data reads them in blocks, and workers write a Parquet file for each block."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ptune import errors
from ptune.data.columns import kept_names
from ptune.data.files import DataFile
from ptune.data.readers import Row
from ptune.data.targets import REGRESSION, ProblemType
from ptune.data.writers import Source, parquet_schema, write_parquet
from ptune.errors import PtuneError
from ptune.inference.answers import PREDICTION_KEYS
from ptune.inference.tally import Tally
from ptune.scale.cluster import cause_of, cluster, plan_workers
from ptune.scale.predict_files import BLOCK_ROWS, TALLY_KEY, Shards, read_blocks

if TYPE_CHECKING:
    import pyarrow

    from ptune.inference.classifier import TextClassifier
    from ptune.inference.file_rows import OnEmpty

# The first rows, by which the types of the columns are chosen as the local command does.
SAMPLE_ROWS = 1024
Batch = dict[str, Any]


@dataclass(frozen=True)
class PredictJob:
    """What all workers of a prediction share.

    load: loads the classifier, once in each worker.
    files: the files to predict.
    shards: where the predictions go.
    text, text_pair: columns of the texts. None: as in training, or guessed.
    batch_size: rows per forward pass. None: as many as suit the device.
    on_empty: what becomes of rows without text; see `TextClassifier.stream_file`.
    block_rows: rows of a block.
    finished: the names of shards that are there already.
    """

    load: Callable[[], TextClassifier]
    files: list[DataFile]
    shards: Shards
    text: str | None = None
    text_pair: str | None = None
    batch_size: int | None = None
    on_empty: OnEmpty = "null"
    block_rows: int = BLOCK_ROWS
    finished: frozenset[str] = frozenset()


def predict_on_ray(
    job: PredictJob, on_rows: Callable[[int], None], address: str | None = None, workers: int | None = None
) -> Tally:
    """Predict the rows of all files that have no shard yet, and return the counts of all shards.

    A worker that is lost is replaced, and its block is computed again. All machines of the cluster have to see the
    files and the folder of the shards.

    Args:
        job: what to predict.
        on_rows: called with the number of rows so far.
        address: of an existing cluster; see `cluster`.
        workers: how many workers load the classifier. Default: one per GPU, or one per CPU without GPUs.

    Raises:
        ConfigError: Ray is not installed, there is no cluster at the address, or it is too small.
        PtuneError: what goes wrong in a worker, such as a `DataError` with the file and the row.
    """
    with cluster(address) as ray:
        from ray.data import ActorPoolStrategy, DataContext, from_items

        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # errors are raised here
        context = DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        context.target_max_block_size = 1  # each block of rows is one of Ray's blocks, as many workers wait for them
        plan = plan_workers(ray, workers)
        tally = job.shards.tally()
        numbers = [{"file": number} for number in range(len(job.files))]
        blocks = from_items(numbers, override_num_blocks=len(numbers)).map_batches(
            _read, fn_args=(job,), batch_size=1, num_cpus=0, concurrency=min(plan.count, len(numbers))
        )
        done = blocks.map_batches(
            Predictor,
            fn_constructor_args=(job,),
            batch_size=1,
            compute=ActorPoolStrategy(size=plan.count),
            **plan.options,
        )
        try:
            for row in done.iter_rows():
                _raise_error(row["error"])
                counts = Tally.from_json(row["tally"])
                tally = counts if tally is None else tally + counts
                on_rows(tally.rows)
        except ray.exceptions.RayError as err:
            raise cause_of(err) from None
    assert tally is not None  # every file has a block
    return tally


# Errors come back as values. Ray would wrap them in errors of its own, which lose the cause on their way.


def _error_text(err: PtuneError) -> str:
    """Return an error as JSON."""
    return json.dumps([type(err).__name__, str(err)])


def _raise_error(text: str) -> None:
    """Raise an error that a worker has returned as JSON; an empty text is none."""
    if text:
        name, message = json.loads(text)
        raise getattr(errors, name, PtuneError)(message)


def _read(batch: Batch, job: PredictJob) -> Iterator[Batch]:
    """Yield the blocks of a file that have no shard yet, one at a time, or the error that ends it."""
    number = int(batch["file"][0])

    def held(block: int, rows: list[Row], error: str = "") -> Batch:
        cell = np.empty(1, dtype=object)  # otherwise NumPy would make an array of the rows
        cell[0] = rows
        return {"file": np.array([number]), "block": np.array([block]), "rows": cell, "error": np.array([error])}

    # Ray may run this again after a failure and counts what it has seen, so the blocks have to be the same each time.
    # Therefore what is left out is what was there when the command began.
    try:
        for block, rows in enumerate(read_blocks(job.files[number], job.block_rows)):
            if job.shards.path(number, block).name not in job.finished:
                yield held(block, rows)
    except PtuneError as err:
        yield held(0, [], _error_text(err))


class Predictor:
    """A worker that writes the shards of blocks. It loads the classifier once, for its first block.

    Args:
        job: what to predict.
    """

    def __init__(self, job: PredictJob) -> None:
        logging.getLogger("ptune").setLevel(logging.ERROR)
        self.job = job

    @cached_property
    def classifier(self) -> TextClassifier:
        """The classifier."""
        return self.job.load()

    @property
    def problem_type(self) -> ProblemType:
        """What the adapter predicts."""
        return self.classifier.model.problem_type

    @property
    def labels(self) -> Sequence[str]:
        """Labels in index order; none in a regression."""
        return () if self.problem_type == REGRESSION else self.classifier.labels

    def __call__(self, batch: Batch) -> Batch:
        """Write the shard of a block [1], and return its counts as JSON [1], or the error [1] that prevents it."""
        counts, error = "", str(batch["error"][0])
        if not error:
            try:
                counts = self._write(batch)
            except PtuneError as err:
                error = _error_text(err)
        return {"tally": np.array([counts]), "error": np.array([error])}

    def _write(self, batch: Batch) -> str:
        """Write the shard of a block, and return its counts as JSON."""
        number, block, rows = int(batch["file"][0]), int(batch["block"][0]), batch["rows"][0]
        file, tally = self.job.files[number], Tally(self.problem_type)
        source = Source(file.where, block * self.job.block_rows)
        answered = [tally.add(row) for row in self._answered(file, rows, source.before)]
        path, counts = self.job.shards.path(number, block), tally.to_json()
        schema = self.schema.with_metadata({TALLY_KEY: counts})
        write_parquet(answered, path, self.labels, partial(self.classifier.blank_row, file), schema, source)
        return counts

    def _answered(self, file: DataFile, rows: list[Row], before: int) -> Iterator[Row]:
        job = self.job
        return self.classifier.stream_file(
            file, job.text, job.text_pair, job.batch_size, job.on_empty, rows=rows, before=before
        )

    @cached_property
    def schema(self) -> pyarrow.Schema:
        """Return the columns of all shards, with the types that suit the first rows."""
        keys = PREDICTION_KEYS[self.problem_type]
        first, *_ = self.job.files
        for file in self.job.files:
            rows = next(read_blocks(file, min(SAMPLE_ROWS, self.job.block_rows)))
            if rows:
                first = file
                break
        blank = self.classifier.blank_row(first)
        names = kept_names(rows[0] if rows else (), keys)
        prediction = {key: blank[key] for key in keys}
        shown = [{**{names[name]: value for name, value in row.items() if name in names}, **prediction} for row in rows]
        return parquet_schema(shown, self.job.shards.folder, self.labels, blank)
