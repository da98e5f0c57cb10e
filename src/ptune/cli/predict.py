"""ptune predict"""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from ptune.cli.options import BatchSize, ColumnOptions, Json, Place, Prediction, PredictionOptions
from ptune.cli.spelling import spell
from ptune.cli.terminal import Terminal
from ptune.data.targets import MULTI, REGRESSION, ProblemType
from ptune.errors import ConfigError, DataError

if TYPE_CHECKING:
    from ptune.inference.classifier import TextClassifier

_COLUMN_OPTIONS = {"text": "text_column", "text_pair": "text_pair_column"}


def predict(
    adapter: Place,
    /,
    *,
    text: str | None = None,
    text_pair: str | None = None,
    input: Annotated[Path | None, Parameter(name="--input")] = None,
    output: Path | None = None,
    text_column: str | None = None,
    text_pair_column: str | None = None,
    backbone: Place | None = None,
    batch_size: BatchSize = None,
    json: Json = False,
    device: Prediction = None,
) -> None:
    """Label texts, with the probability of every class.

    Give one text, or a file; files are streamed, so any size will do. An answer is
    {"label", "score", "scores": {label: probability}}; {"labels": [those over 0.5], "scores"} where several may
    apply; {"value"} of a regression. A file's answers come in its order, with the row's other columns kept (a column
    named as a part of the answer is kept as input_label and so on). CSV and TSV hold several labels as a|b.

    Examples:
      ptune predict reviews --text "What a film."
      ptune predict mrpc --text "He left." --text-pair "He went away." --json
      ptune predict my-name/reviews --text "What a film."
      ptune predict reviews --input new.csv --output labelled.csv
      ptune predict reviews --input new.jsonl --output labelled.jsonl --json
      ptune predict reviews --input new.csv > labelled.jsonl
      ptune predict reviews --input new.csv --output labelled.csv --precision int8

    Parameters
    ----------
    adapter
        Folder of an adapter, ptune's or PEFT's; or a Hub id, OWNER/NAME or OWNER/NAME@REVISION.
    text
        The text to label.
    text_pair
        The second text of a pair.
    input
        CSV, TSV, JSON Lines, Parquet, or .txt with a text in each line.
    output
        Where to write: .jsonl, .csv, .tsv or .parquet. Default: JSON Lines on stdout.
    text_column
        Column of the text. Default: as in training, or guessed.
    text_pair_column
        Column of the second text. Default: as in training, or guessed.
    backbone
        The backbone, where the adapter's own note of it does not lead to one.
    """
    if (text is None) == (input is None):
        raise ConfigError("give either --text or --input, not both and not neither")
    if input is not None and text_pair is not None:
        raise ConfigError("--text-pair goes with --text; with --input use --text-pair-column")
    if text is None and output is not None:
        from ptune.data.writers import check_output

        check_output(output)
    if text is not None and output is not None:
        raise ConfigError("--output goes with --input")
    from ptune.inference.classifier import load

    terminal = Terminal(json)
    options = device or PredictionOptions()
    if input is not None:
        _peek(input)
    classifier = load(adapter, backbone, **options.model_dump())
    if text is not None:
        _predict_one(terminal, classifier, text, text_pair)
    else:
        assert input is not None  # else the text is there
        wanted = ColumnOptions(text=text_column, text_pair=text_pair_column)
        try:
            _predict_file(terminal, classifier, input, output, wanted, batch_size)
        except DataError as err:  # here the columns have options of their own
            raise DataError(spell(str(err), (), _COLUMN_OPTIONS)) from err


def _peek(path: Path) -> None:
    """Fail on an unreadable file before the backbone is loaded."""
    from ptune.data.readers import read_rows

    next(iter(read_rows(path)), None)


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
    path: Path,
    output: Path | None,
    wanted: ColumnOptions,
    batch_size: int | None,
) -> None:
    from ptune.data.writers import open_writer, print_json_lines

    started, tally = time.perf_counter(), _Tally(classifier.model.problem_type)
    rows = map(tally.add, classifier.stream_file(path, wanted.text, wanted.text_pair, batch_size))
    if output is None:
        print_json_lines(rows, sys.stdout)
    else:
        labels = () if classifier.model.problem_type == REGRESSION else classifier.labels
        open_writer(output)(rows, output, labels, partial(classifier.blank_row, path))
    seconds = time.perf_counter() - started
    print(f"ptune: {tally.rows} rows in {seconds:.1f} s: {tally}", file=sys.stderr)
    if output is not None:
        found = {"rows": tally.rows, **tally.answer(), "output": str(output), "seconds": round(seconds, 3)}
        terminal.answer(found)


class _Tally:
    """What was answered, over all rows."""

    def __init__(self, problem_type: ProblemType) -> None:
        self.problem_type = problem_type
        self.rows = 0
        self.labels = Counter[str]()
        self.sum, self.least, self.most = 0.0, math.inf, -math.inf  # of a regression

    def add(self, row: dict[str, Any]) -> dict[str, Any]:
        """Count a row, and give it back."""
        self.rows += 1
        if self.problem_type == REGRESSION:
            value = row["value"]
            self.sum, self.least, self.most = self.sum + value, min(self.least, value), max(self.most, value)
        else:
            self.labels.update(row["labels"] if self.problem_type == MULTI else [row["label"]])
        return row

    def answer(self) -> dict[str, Any]:
        """For the JSON answer."""
        if self.problem_type != REGRESSION:
            return {"labels": dict(self.labels)}
        return {"mean": self.sum / self.rows, "min": self.least, "max": self.most} if self.rows else {}

    def __str__(self) -> str:
        if self.problem_type != REGRESSION:
            return ", ".join(f"{label} {count}" for label, count in self.labels.most_common(8))
        return ", ".join(f"{name} {value:.4g}" for name, value in self.answer().items())
