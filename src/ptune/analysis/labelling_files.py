"""Write suggested rows to files that tools for labelling import: tables, Label Studio's tasks, Argilla's records."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any, Literal

from ptune.analysis.suggest import Suggestion
from ptune.atomic import written_file
from ptune.data.columns import kept_names
from ptune.data.targets import MULTI, REGRESSION, SINGLE, ProblemType
from ptune.data.writers import check_output, open_writer, to_json
from ptune.errors import ConfigError
from ptune.places import Place, as_place

Form = Literal["csv", "label-studio", "argilla"]
_NEW = ("row", "prediction", "margin")


def check_labelling_output(path: Place, form: Form) -> None:
    """Check that a file can be written, before any work is done.

    Raises:
        ConfigError: the file's ending does not suit the form.
        OutputError: the folder cannot be created or written into.
    """
    if form == "csv":
        if path.suffix.lower() == ".json":
            raise ConfigError(
                f"output '{path}': .json is for `to='label-studio'` and `to='argilla'`; add one of them, or write "
                ".csv, .tsv, .jsonl or .parquet",
                field="output",
                value=str(path),
                expected="a file that ends in .csv, .tsv, .jsonl or .parquet",
            )
        check_output(path)
        return
    if path.suffix.lower() != ".json":
        raise ConfigError(
            f"{form} imports .json, but the output is '{path}'; give `output='{path.with_suffix('.json')}'`",
            field="output",
            value=str(path),
            expected="a file that ends in .json",
        )
    check_output(path.with_suffix(".jsonl"))  # the same folder


def write_for_labelling(suggestions: Sequence[Suggestion], path: Place, form: Form, problem_type: ProblemType) -> None:
    """Write suggested rows to a file.

    Args:
        suggestions: from `ptune.suggest`.
        path: for `csv` a file that ends in .csv, .tsv, .jsonl or .parquet; otherwise one that ends in .json.
        form: `csv`, a table with all columns of the input and an empty column `label` unless the input has one;
            `label-studio`, tasks with the present answer as a prediction; or `argilla`, records with the present answer
            as a suggestion, for `argilla.Dataset.records.from_json`.
        problem_type: what the adapter predicts.

    Raises:
        ConfigError: the file's ending does not suit the form.
        DataError: the format cannot hold a value.
        OutputError: the file cannot be written.
    """
    path = as_place(path)
    check_labelling_output(path, form)
    if form == "csv":
        rows = [_table_row(suggestion, problem_type) for suggestion in suggestions]
        open_writer(path)(rows, path, (), lambda: rows[0])
        return
    make = label_studio_task if form == "label-studio" else argilla_record
    content = [make(suggestion, problem_type) for suggestion in suggestions]
    with written_file(path) as file:
        file.write(to_json(content, ensure_ascii=True, indent=2) + "\n")  # type: ignore[call-overload]


def label_studio_task(suggestion: Suggestion, problem_type: ProblemType) -> dict[str, Any]:
    """Return a task of Label Studio; see `label_studio_view` for the view that shows it."""
    if problem_type == REGRESSION:
        kind, value = "number", {"number": suggestion.prediction["value"]}
    else:
        kind, value = "choices", {"choices": _names(suggestion, problem_type)}
    result = {"from_name": "label", "to_name": "text", "type": kind, "value": value}
    prediction: dict[str, Any] = {"model_version": "ptune", "result": [result]}
    if problem_type == SINGLE:
        prediction["score"] = suggestion.prediction["score"]
    fields = _fields(suggestion)
    own: dict[str, Any] = {**fields, "row": suggestion.row, "margin": suggestion.margin}
    cells = {name: cell for name, cell in suggestion.cells.items() if name not in fields or cell != fields[name]}
    kept = {new: cells[name] for name, new in kept_names(cells, own).items()}
    return {"data": {**kept, **own}, "predictions": [prediction]}


def label_studio_view(labels: Sequence[str], problem_type: ProblemType, paired: bool) -> str:
    """Return the labelling configuration of a Label Studio project that shows the tasks."""
    texts = '  <Text name="text" value="$text"/>\n'
    if paired:
        texts += '  <Text name="text_pair" value="$text_pair"/>\n'
    if problem_type == REGRESSION:
        return f'<View>\n{texts}  <Number name="label" toName="text"/>\n</View>\n'
    choice = "multiple" if problem_type == MULTI else "single"
    choices = "".join(f'    <Choice value="{escape(label)}"/>\n' for label in labels)
    return f'<View>\n{texts}  <Choices name="label" toName="text" choice="{choice}">\n{choices}  </Choices>\n</View>\n'


def argilla_record(suggestion: Suggestion, problem_type: ProblemType) -> dict[str, Any]:
    """Return a record of Argilla for a dataset with fields `text` (and `text_pair`) and a question `label`."""
    answer: dict[str, Any] = {"agent": "ptune", "score": None}
    if problem_type == SINGLE:
        answer |= {"value": suggestion.prediction["label"], "score": suggestion.prediction["score"]}
    elif problem_type == MULTI:
        answer |= {"value": suggestion.prediction["labels"]}
    else:
        answer |= {"value": f"{suggestion.prediction['value']:.6g}"}
    metadata = {"row": suggestion.row}
    if suggestion.margin is not None:
        metadata["margin"] = suggestion.margin  # type: ignore[assignment]
    return {
        "id": str(suggestion.row),
        "fields": _fields(suggestion),
        "metadata": metadata,
        # A record for which no label applies has nothing to suggest.
        "suggestions": {"label": answer} if answer["value"] else {},
        "responses": {},
        "vectors": {},
    }


def _fields(suggestion: Suggestion) -> dict[str, str]:
    return dict(zip(("text", "text_pair"), suggestion.texts, strict=False))


def _names(suggestion: Suggestion, problem_type: ProblemType) -> list[str]:
    return suggestion.prediction["labels"] if problem_type == MULTI else [suggestion.prediction["label"]]


def _table_row(suggestion: Suggestion, problem_type: ProblemType) -> dict[str, Any]:
    cells = suggestion.cells or _fields(suggestion)
    kept = {new: cells[name] for name, new in kept_names(cells, _NEW).items()}
    prediction = suggestion.prediction
    answer = prediction["value"] if problem_type == REGRESSION else "|".join(_names(suggestion, problem_type))
    return {
        **kept,
        "label": kept.get("label", ""),
        "row": suggestion.row,
        "prediction": answer,
        "margin": suggestion.margin,
    }
