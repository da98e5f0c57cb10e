"""ptune suggest"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter, validators

from ptune.cli.options import (
    Adapter,
    BatchSize,
    Device,
    DeviceOptions,
    Json,
    Labels,
    Place,
    ProblemOfPeft,
    Target,
)
from ptune.cli.peft_task import read_with_task
from ptune.cli.progress import rows_progress
from ptune.cli.spelling import spell
from ptune.cli.terminal import Terminal
from ptune.errors import ConfigError, DataError

if TYPE_CHECKING:
    from ptune.analysis.suggest import Suggestion

_SHOWN = 10  # rows that are printed
_WIDTH = 80  # characters of a text that are printed
_COLUMN_OPTIONS = {"text": "text_column", "text_pair": "text_pair_column"}


def suggest(
    adapter: Adapter,
    /,
    *,
    input: Annotated[Place, Parameter(name="--input", allow_leading_hyphen=True)],  # for "-"
    count: Annotated[int, Parameter(name=["-n", "--count"], validator=validators.Number(gte=1))] = 100,
    output: Target | None = None,
    to: Literal["csv", "label-studio", "argilla"] = "csv",
    text_column: str | None = None,
    text_pair_column: str | None = None,
    backbone: Place | None = None,
    batch_size: BatchSize = None,
    labels: Labels = None,
    problem_type: ProblemOfPeft = None,
    json: Json = False,
    device: Device = None,
) -> None:
    """Choose the rows of a file that are most worth labelling next.

    They are rows that the model is unsure of and that differ from each other. Repeats and rows without text are left
    out.

    --to label-studio writes tasks to import into Label Studio, --to argilla records for Argilla's records.from_json.
    Both have the present answers as suggestions. --to csv writes a table with an empty column for the label.

    Examples:
      ptune suggest reviews --input new.csv -n 3
      ptune suggest reviews --input new.csv -n 100 --output next.csv
      ptune suggest reviews --input new.csv --to label-studio --output tasks.json
      ptune suggest reviews --input new.csv --to argilla --output records.json

    Parameters
    ----------
    input
        A file of texts: CSV, TSV, JSON Lines, JSON, Parquet, Excel, or .txt with one text per line. Also a URL, or -
        for standard input.
    count
        Number of rows to suggest.
    output
        File for the rows: .csv, .tsv, .jsonl or .parquet; .json for Label Studio and Argilla. Default: print some.
    to
        Format of the output file.
    text_column
        Column of the text in the input. Default: as in training, or guessed.
    text_pair_column
        Column of the second text in the input. Default: as in training, or guessed.
    backbone
        The backbone. Default: the one recorded in the adapter.
    """
    from ptune.analysis.labelling_files import check_labelling_output, label_studio_view, write_for_labelling
    from ptune.analysis.suggest import suggest
    from ptune.data.files import as_file, check_other_file
    from ptune.inference.classifier import load

    terminal = Terminal(json)
    if output is not None:
        check_labelling_output(output, to)
    elif to != "csv":
        raise ConfigError(f"--to {to} needs the name of a file: --output FILE.json")
    source = as_file(input)
    source.check()  # first, because loading a backbone takes longer
    if output is not None:
        check_other_file(source, output)
    file = read_with_task(adapter, backbone, labels, problem_type)
    classifier = load(file, backbone, **(device or DeviceOptions()).model_dump())
    choose = partial(suggest, classifier, source, count, text=text_column, text_pair=text_pair_column)
    try:
        with rows_progress(lambda: None, bar=True) as on_rows:
            found = choose(batch_size=batch_size, on_rows=on_rows)
    except DataError as err:  # this command has other names for the options of columns
        raise DataError(spell(str(err), (), _COLUMN_OPTIONS)) from err
    _print(terminal, found)
    answer = {"rows": len(found), "suggestions": [suggestion.to_dict() for suggestion in found]}
    if output is not None:
        write_for_labelling(found, output, to, classifier.model.problem_type)
        terminal.say(f"{len(found):,} rows written to {output}")
        answer["output"] = str(output)
        if to == "label-studio":
            paired = any(len(suggestion.texts) > 1 for suggestion in found)
            view = label_studio_view(classifier.labels, classifier.model.problem_type, paired)
            terminal.say("labelling configuration of the project:")
            for line in view.splitlines():
                terminal.say(line)
            answer["view"] = view
    terminal.answer(answer)


def _print(terminal: Terminal, found: list[Suggestion]) -> None:
    for suggestion in found[:_SHOWN]:
        prediction = suggestion.prediction
        if "value" in prediction:
            answer = f"{prediction['value']:.4g}"
        elif "labels" in prediction:
            answer = ", ".join(prediction["labels"]) or "no label"
        else:
            answer = f"{prediction['label']} {prediction['score']:.2f}"
        text = " | ".join(suggestion.texts)
        terminal.say(f"row {suggestion.row}  {answer}  {text[:_WIDTH]}{'…' if len(text) > _WIDTH else ''}")
    if len(found) > _SHOWN:
        terminal.say(f"and {len(found) - _SHOWN:,} more")
