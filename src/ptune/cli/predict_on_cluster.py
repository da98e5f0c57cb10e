"""ptune predict --scale ray"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from ptune.cli.progress import rows_progress
from ptune.cli.recorded import absolute
from ptune.cli.terminal import Terminal, one_line
from ptune.data.files import STANDARD_INPUT, SUFFIXES
from ptune.errors import ConfigError
from ptune.places import Place

if TYPE_CHECKING:
    from ptune.cli.options import ClusterOptions, ColumnOptions
    from ptune.data.files import DataFile
    from ptune.inference.classifier import TextClassifier
    from ptune.inference.file_rows import OnEmpty

logger = logging.getLogger(__name__)


def predict_on_cluster(
    terminal: Terminal,
    load: Callable[[], TextClassifier],
    source: str,
    output: Place,
    columns: ColumnOptions,
    batch_size: int | None,
    on_empty: OnEmpty,
    cluster: ClusterOptions,
    workers: int | None,
    overwrite: bool,
) -> None:
    """Predict a file or a folder of files on a Ray cluster, and print what came of it.

    Raises:
        ConfigError: the output is no folder for predictions, or there is no cluster.
        DataError: the input cannot be read.
    """
    from ptune.data.readers import read_rows
    from ptune.scale.cluster import import_ray
    from ptune.scale.predict import PredictJob, predict_on_ray
    from ptune.scale.predict_files import Shards, list_files

    import_ray()  # before anything is read or written
    if source == STANDARD_INPUT:
        raise ConfigError("--scale ray reads files that all workers see; give --input a file or a folder")
    if PurePath(output.name).suffix.lower() in {*SUFFIXES} - {".parquet"}:
        raise ConfigError(f"output '{output}': with --scale ray this is a folder of Parquet files; give its name")
    source = absolute(source)  # workers run in another folder
    folder = output.resolve()
    _check_outside(source, folder)
    next(read_rows(list_files(source)[0]), None)  # because starting a cluster takes longer
    files, shards = list_files(source), Shards(folder)
    facts = {"text": columns.text, "text_pair": columns.text_pair, "on_empty": on_empty, **_facts(load, files)}
    shards.begin(facts, overwrite)
    finished = frozenset(path.name for path in shards.finished())
    if finished:
        terminal.say(f"{len(finished)} shards are there already")
    job = PredictJob(load, files, shards, columns.text, columns.text_pair, batch_size, on_empty, finished=finished)
    started = time.perf_counter()
    with rows_progress(lambda: None, bar=True) as on_row:
        tally = predict_on_ray(job, on_row, cluster.ray_address, workers)
    seconds = time.perf_counter() - started
    count, empty = len(shards.finished()), tally.rows - tally.known
    if empty:
        logger.warning("%d of %d rows have no text; their answers are null", empty, tally.rows)
    print(one_line(f"ptune: {tally.rows} rows in {seconds:.1f} s: {tally}; {count} shards"), file=sys.stderr)
    answer = {"rows": tally.rows, **tally.answer(), "output": str(output), "shards": count}
    terminal.answer({**answer, "seconds": round(seconds, 3)})


def _check_outside(source: str, output: Place) -> None:
    """Check that the output is not inside the input, because predictions would become input then.

    Raises:
        ConfigError: it is.
    """
    folder, target = source.rstrip("/"), str(output).rstrip("/")
    if target == folder or target.startswith(f"{folder}/"):
        raise ConfigError(f"output '{output}' is inside the input '{source}'; give another folder")


def _facts(load: Any, files: list[DataFile]) -> dict[str, Any]:
    """Return what all shards of a prediction share: adapter, backbone, and files."""
    from ptune.scale.predict_files import BLOCK_ROWS, facts_of

    adapter, backbone, threshold, options = load.args
    return {
        "adapter": str(adapter.folder),
        "weights": adapter.record.weights_sha256,
        "backbone": backbone,
        "threshold": threshold,
        "precision": options["precision"],
        "quantize": options["quantize"],
        "dtype": options["dtype"],
        "block_rows": BLOCK_ROWS,
        "input": facts_of(files),
    }
