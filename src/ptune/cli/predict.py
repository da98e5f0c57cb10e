"""ptune predict"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from ptune.cli.options import BatchSize, ColumnOptions, Device, DeviceOptions, Json
from ptune.cli.terminal import Terminal
from ptune.errors import ConfigError

if TYPE_CHECKING:
    from ptune.predict import TextClassifier


def predict(
    adapter: str,
    /,
    *,
    text: str | None = None,
    text_pair: str | None = None,
    input: Annotated[Path | None, Parameter(name="--input")] = None,
    output: Path | None = None,
    text_column: str | None = None,
    text_pair_column: str | None = None,
    backbone: str | None = None,
    batch_size: BatchSize = 32,
    json: Json = False,
    device: Device = None,
) -> None:
    """Label texts, with the probability of every class.

    Give one text, or a file; files are streamed, so any size will do. An answer is
    {"label", "score", "scores": {label: probability}}; a file's answers come in its order, with the row's
    other columns kept (a column named label, score or scores is kept as input_label and so on).

    Examples:
      ptune predict reviews --text "What a film."
      ptune predict mrpc --text "He left." --text-pair "He went away." --json
      ptune predict reviews --input new.csv --output labelled.csv
      ptune predict reviews --input new.jsonl --output labelled.jsonl --json
      ptune predict reviews --input new.csv > labelled.jsonl

    Parameters
    ----------
    adapter
        Folder of an adapter, ptune's or PEFT's.
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
    from ptune.predict import load

    terminal = Terminal(json)
    options = device or DeviceOptions()
    if input is not None:
        _peek(input)
    classifier = load(adapter, backbone, device=options.device, dtype=options.dtype)
    if text is not None:
        _predict_one(terminal, classifier, text, text_pair)
    else:
        assert input is not None
        wanted = ColumnOptions(text=text_column, text_pair=text_pair_column)
        _predict_file(terminal, classifier, input, output, wanted, batch_size)


def _peek(path: Path) -> None:
    """Fail on an unreadable file before the backbone is loaded."""
    from ptune.data.files import read_rows

    next(iter(read_rows(path)), None)


def _predict_one(terminal: Terminal, classifier: TextClassifier, text: str, pair: str | None) -> None:
    prediction = classifier.predict(text if pair is None else (text, pair))[0]
    terminal.say(f"{prediction['label']}  {prediction['score']:.4f}")
    ranked = sorted(prediction["scores"].items(), key=lambda item: -item[1])
    terminal.table([(label, f"{100 * score:.2f} %") for label, score in ranked])
    terminal.answer(prediction)


def _predict_file(
    terminal: Terminal,
    classifier: TextClassifier,
    path: Path,
    output: Path | None,
    wanted: ColumnOptions,
    batch_size: int,
) -> None:
    from ptune.data.writers import open_writer, print_json_lines

    started, counts = time.perf_counter(), Counter[str]()

    def counted() -> Iterator[dict[str, Any]]:
        for row in classifier.stream_file(path, wanted.text, wanted.text_pair, batch_size):
            counts[row["label"]] += 1
            yield row

    if output is None:
        print_json_lines(counted(), sys.stdout)
    else:
        open_writer(output)(counted(), output, classifier.labels)
    seconds = time.perf_counter() - started
    total = sum(counts.values())
    shares = ", ".join(f"{label} {count}" for label, count in counts.most_common(8))
    print(f"ptune: {total} rows in {seconds:.1f} s: {shares}", file=sys.stderr)
    if output is not None:
        terminal.answer({"rows": total, "labels": dict(counts), "output": str(output), "seconds": round(seconds, 3)})
