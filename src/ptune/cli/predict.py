"""ptune predict"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from ptune.cli.options import (
    Adapter,
    BatchSize,
    Cluster,
    ClusterOptions,
    ColumnOptions,
    Json,
    Labels,
    Place,
    Prediction,
    PredictionOptions,
    ProblemOfPeft,
    Target,
    Threshold,
    Workers,
)
from ptune.cli.peft_task import read_with_task
from ptune.cli.predict_on_cluster import predict_on_cluster
from ptune.cli.progress import rows_progress
from ptune.cli.recorded import absolute
from ptune.cli.spelling import spell
from ptune.cli.terminal import Terminal, one_line
from ptune.data.targets import MULTI, REGRESSION
from ptune.errors import ConfigError, DataError
from ptune.inference.tally import Tally

if TYPE_CHECKING:
    from ptune.adapter.folder import AdapterFile
    from ptune.data.files import DataFile
    from ptune.inference.classifier import TextClassifier

Format = Literal["csv", "tsv", "jsonl", "json", "parquet", "txt", "xlsx"]
OnEmpty = Literal["null", "skip", "error"]
_COLUMN_OPTIONS = {"text": "text_column", "text_pair": "text_pair_column"}


def predict(
    adapter: Adapter,
    /,
    *,
    text: str | None = None,
    text_pair: str | None = None,
    input: Annotated[Place | None, Parameter(name="--input", allow_leading_hyphen=True)] = None,  # for "-"
    input_format: Format | None = None,
    on_empty: OnEmpty = "null",
    output: Target | None = None,
    text_column: str | None = None,
    text_pair_column: str | None = None,
    backbone: Place | None = None,
    batch_size: BatchSize = None,
    threshold: Threshold = None,
    labels: Labels = None,
    problem_type: ProblemOfPeft = None,
    overwrite: Annotated[bool, Parameter(negative=(), group="Cluster")] = False,
    workers: Workers = None,
    json: Json = False,
    device: Prediction = None,
    cluster: Cluster = None,
) -> None:
    """Predict labels with their probabilities, or numbers, for one text or a file of texts.

    Files can be of any size: rows are read and written as they are processed, in the order of the input. All columns
    are kept. A column whose name is also a key of the prediction is renamed, for example from label to input_label.

    The keys of a prediction depend on what the adapter predicts.

    One label per row: label, its probability as score, and the probabilities of all labels as scores.

    Several labels per row: labels, which lists those above their thresholds, and scores. In CSV and TSV files
    the labels are joined, as in a|b.

    Regression: value.

    On a cluster (--scale ray), the input may be a folder, and the output is a folder of Parquet files. If it is
    interrupted, the same command continues where it stopped.

    Examples:
      ptune predict reviews --text "What a film."
      ptune predict reviews --text "-5 degrees, and it was worth it."
      ptune predict mrpc --text "He left." --text-pair "He went away." --json
      ptune predict my-name/reviews --text "What a film."
      ptune predict reviews --input new.csv --output labelled.csv
      ptune predict reviews --input new.jsonl --output labelled.jsonl --json
      ptune predict reviews --input new.csv > labelled.jsonl
      cat new.csv | ptune predict reviews --input - --input-format csv > labelled.jsonl
      ptune predict reviews --input new.csv --output labelled.csv --precision int8
      ptune predict reviews --input new/ --output labelled/ --scale ray

    Parameters
    ----------
    text
        The text to classify.
    text_pair
        The second text, if the adapter was trained on pairs.
    input
        A file of texts: CSV, TSV, JSON Lines, JSON, Parquet, Excel, or .txt with one text per line. It may be
        compressed. Also a URL, such as s3://..., or - for standard input.
    input_format
        Format of the input, if its name does not show it. Default for a pipe: guessed from its first line.
    on_empty
        What to do with rows without text: null writes them with empty predictions, skip leaves them out, error stops.
    output
        File for the predictions: .jsonl, .csv, .tsv or .parquet. Default: JSON Lines on stdout.
    text_column
        Column of the text in the input. Default: as in training, or guessed.
    text_pair_column
        Column of the second text in the input. Default: as in training, or guessed.
    backbone
        The backbone. Default: the one recorded in the adapter.
    overwrite
        Replace predictions that are in the output folder already, with --scale ray.
    """
    cluster = cluster or ClusterOptions()
    if cluster.scale == "local" and (workers is not None or overwrite or cluster.ray_address is not None):
        raise ConfigError("--workers, --overwrite and --ray-address are for --scale ray; add it, or leave them out")
    if text is None and input is None:
        raise ConfigError("there is nothing to predict: give --text, or a file by --input")
    if text is not None and input is not None:
        raise ConfigError("give either --text or --input, and not both")
    if input is not None and text_pair is not None:
        raise ConfigError("--text-pair can only be used with --text; with --input use --text-pair-column")
    if cluster.scale == "ray":
        if input is None or output is None:
            raise ConfigError("--scale ray predicts files: give --input and --output, a folder for the predictions")
        options = device or PredictionOptions()
        place = None if backbone is None else absolute(backbone)  # workers run in another folder
        adapter_file = read_with_task(absolute(adapter), place, labels, problem_type)
        load_later = partial(_load, adapter_file, place, threshold, options.model_dump())
        columns = ColumnOptions(text=text_column, text_pair=text_pair_column)
        with _own_column_names():
            predict_on_cluster(
                Terminal(json), load_later, input, output, columns, batch_size, on_empty, cluster, workers, overwrite
            )
        return
    if text is None and output is not None:
        from ptune.data.writers import check_output

        check_output(output)
    if text is not None and output is not None:
        raise ConfigError("--output can only be used with --input; leave it out to print the prediction")
    terminal = Terminal(json)
    options = device or PredictionOptions()
    for option, value in (("--text", text), ("--text-pair", text_pair)):
        if value is not None and not value.strip():
            raise ConfigError(f"{option} is empty; give the text to classify")
    file = None if input is None else _open_input(input, input_format)
    if file is not None and output is not None:
        from ptune.data.files import check_other_file

        check_other_file(file, output)
    adapter_file = read_with_task(adapter, backbone, labels, problem_type)
    classifier = _load(adapter_file, backbone, threshold, options.model_dump())
    if text is not None:
        _predict_one(terminal, classifier, text, text_pair)
    else:
        assert file is not None  # checked above
        columns = ColumnOptions(text=text_column, text_pair=text_pair_column)
        with _own_column_names():
            _predict_file(terminal, classifier, file, output, columns, batch_size, on_empty)


def _load(file: AdapterFile, backbone: str | None, threshold: float | None, options: dict[str, Any]) -> TextClassifier:
    """Load a classifier with the options of the command."""
    from ptune.inference.classifier import load

    classifier = load(file, backbone, **options)
    return classifier if threshold is None else classifier.with_threshold(threshold)


@contextmanager
def _own_column_names() -> Iterator[None]:
    """Spell the options of columns in errors as this command has them."""
    try:
        yield
    except DataError as err:
        raise DataError(spell(str(err), (), _COLUMN_OPTIONS)) from err


def _open_input(name: str, input_format: Format | None) -> DataFile:
    """Return the input after its first row has been read, because loading a backbone takes longer."""
    from ptune.data.files import as_file
    from ptune.data.readers import read_rows

    file = as_file(name, None if input_format is None else f".{input_format}")
    next(iter(read_rows(file)), None)
    return file


def _predict_one(terminal: Terminal, classifier: TextClassifier, text: str, pair: str | None) -> None:
    prediction = classifier.predict(text if pair is None else (text, pair))[0]
    problem_type = classifier.model.problem_type
    if problem_type == REGRESSION:
        terminal.say(f"{classifier.labels[0]}  {prediction['value']:.6g}")
    elif problem_type == MULTI:
        terminal.say(", ".join(prediction["labels"]) or "no label")
    else:
        terminal.say(f"{prediction['label']}  {prediction['score']:.4f}")
    if problem_type != REGRESSION:
        ranked = sorted(prediction["scores"].items(), key=lambda item: -item[1])
        terminal.table([(label, f"{100 * score:.2f} %") for label, score in ranked])
    terminal.answer(prediction)


def _predict_file(
    terminal: Terminal,
    classifier: TextClassifier,
    file: DataFile,
    output: Target | None,
    columns: ColumnOptions,
    batch_size: int | None,
    on_empty: OnEmpty,
) -> None:
    from ptune.data.writers import open_writer, print_json_lines

    started, tally = time.perf_counter(), Tally(classifier.model.problem_type)
    shown_rows = output is None and sys.stdout.isatty()
    with rows_progress(partial(_count_rows, file), bar=not shown_rows) as on_row:
        rows = _counted(classifier.stream_file(file, columns.text, columns.text_pair, batch_size, on_empty), on_row)
        rows = map(tally.add, rows)
        if output is None:
            print_json_lines(rows, sys.stdout)
        else:
            labels = () if classifier.model.problem_type == REGRESSION else classifier.labels
            open_writer(output)(rows, output, labels, partial(classifier.blank_row, file))
    seconds = time.perf_counter() - started
    found = f": {tally}" if tally.rows else ""
    print(one_line(f"ptune: {tally.rows} rows in {seconds:.1f} s{found}"), file=sys.stderr)
    if output is not None:
        terminal.answer({"rows": tally.rows, **tally.answer(), "output": str(output), "seconds": round(seconds, 3)})


def _counted(rows: Iterable[dict[str, Any]], on_row: Callable[[int], None]) -> Iterator[dict[str, Any]]:
    """Yield rows unchanged, and report their number."""
    for number, row in enumerate(rows, 1):
        on_row(number)
        yield row


def _count_rows(file: DataFile) -> int | None:
    """Return the number of rows of a file; None if it would have to be downloaded again, or cannot be read."""
    from ptune.data.readers import read_rows

    if not isinstance(file.place, Path):
        return None
    try:
        return sum(1 for _ in read_rows(file))
    except DataError:
        return None  # the error is raised where the rows are predicted
