"""ptune report, and the report at the end of `ptune train`"""

from __future__ import annotations

import json as json_lines
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter, validators

from ptune.cli.options import (
    BatchSize,
    ColumnOptions,
    Columns,
    Device,
    DeviceOptions,
    Json,
    Labels,
    Place,
    ProblemOfPeft,
    Target,
)
from ptune.cli.peft_task import read_labelled, read_with_task
from ptune.cli.progress import rows_progress
from ptune.cli.recorded import check_same_run, data_options, load_recorded
from ptune.cli.terminal import Terminal
from ptune.errors import ConfigError
from ptune.places import as_place

if TYPE_CHECKING:
    from ptune.adapter.layout import Record
    from ptune.data.splits import TextData
    from ptune.report.contents import Report
    from ptune.training.train import TrainResult

logger = logging.getLogger(__name__)

# What the worth of virtual tokens may cost at the end of training: a share of its time, and seconds.
PROMPT_SHARE, PROMPT_SECONDS = 0.05, 10.0
CROSS_VALIDATION = "cross-validation"


def report(
    run: Annotated[Place, Parameter(help="The folder of a run, or another adapter: a folder or a Hub id.")],
    /,
    *,
    data: Place | None = None,
    split: str = "validation",
    data_revision: str | None = None,
    backbone: Place | None = None,
    output: Target | None = None,
    prompt_seconds: Annotated[float, Parameter(validator=validators.Number(gte=0))] = 10.0,
    labels: Labels = None,
    problem_type: ProblemOfPeft = None,
    batch_size: BatchSize = None,
    json: Json = False,
    columns: Columns = None,
    device: Device = None,
) -> None:
    """Show what a run has learned, what it gets wrong, and whether its probabilities can be trusted, as a page.

    The page is one file, which opens in any browser without a network: curves of the training, the confusion matrix
    and the pairs that are confused most, precision, recall and F1 of each label, reliability, accuracy on the most
    certain rows, the most confident mistakes and the least certain rows with their texts, lengths, what the prompt
    says, settings and versions.

    With pip install 'ptune[report]' the pictures are also written as PNG, into a folder beside the page that has its
    name.

    ptune train writes this report at its end, unless --no-report is given.

    Examples:
      ptune report reviews
      ptune report reviews --data reviews-test.csv --output test.html
      ptune report reviews --data folder/ --split test --output test.html --json

    Parameters
    ----------
    data
        Labelled data: a folder, a file, a URL or a Hub id. Default: the validation rows of the run.
    split
        The split of a folder or a Hub data set. A single file is read as a whole.
    data_revision
        Branch, tag or commit of a Hub data set.
    backbone
        The backbone. Default: the one recorded in the adapter.
    output
        File for the page. Default: report.html in the folder of the run.
    prompt_seconds
        Time limit in seconds for measuring how important each virtual token is; 0: do not measure it.
    """
    from ptune.inference.classifier import load
    from ptune.pages.writing import check_page
    from ptune.report.gather import gather_report
    from ptune.report.writing import REPORT_FILE

    terminal = Terminal(json)
    file = read_with_task(run, backbone, labels, problem_type)
    folder = as_place(run)
    if output is None and not folder.is_dir():
        raise ConfigError(
            f"'{run}' is on the Hub, so the report has no folder; name its file, such as `output='report.html'`"
        )
    page = output if output is not None else folder / REPORT_FILE
    check_page(page, "output")
    notices: list[str] = []
    if data is None:
        found, notices = _recorded_data(folder, file.record)
    else:
        source = {**(columns or ColumnOptions()).model_dump(), "revision": data_revision}
        found = read_labelled(file, data, split, source, named=labels is not None)
    classifier = load(file, backbone, **(device or DeviceOptions()).model_dump())
    rows = found.split(split)
    with rows_progress(lambda: len(rows), bar=True) as on_rows:
        logits = classifier.split_logits(rows, batch_size, on_rows)
    gathered = gather_report(
        classifier,
        found,
        split,
        history=_history(folder),
        name=folder.resolve().name if folder.is_dir() else str(run),
        notices=notices,
        logits=logits,
        prompt_seconds=prompt_seconds,
    )
    written = write(terminal, gathered, page)
    terminal.answer({**gathered.to_dict(), "files": written})


def write(terminal: Terminal, gathered: Report, page: Target) -> list[str]:
    """Write a report, say where it is, and return the names of its files."""
    from ptune.report.pictures import NEEDED
    from ptune.report.writing import pictures_folder, write_report

    written = write_report(gathered, page)
    if len(written) > 1:
        terminal.say(f"report: {page}; {len(written) - 1} pictures: {pictures_folder(page)}")
    else:
        terminal.say(f"report: {page} ({NEEDED})")
    return [str(path) for path in written]


def report_training(terminal: Terminal, result: TrainResult, data: TextData) -> Path | None:
    """Write the report of a run that has just ended, from what its validation has computed.

    A problem here is a warning: the adapter is there, whatever becomes of its report.

    Returns:
        The page; None if it could not be written.
    """
    from ptune.report.gather import gather_report
    from ptune.report.writing import REPORT_FILE

    page = Path(result.adapter) / REPORT_FILE
    try:
        split = "validation"
        if result.measured is not data.splits[split]:  # measured by cross-validation
            split = CROSS_VALIDATION
            data = replace(data, splits={**data.splits, split: result.measured})
        gathered = gather_report(
            result.classifier,
            data,
            split,
            logits=result.logits,
            history=result.history,
            prompt_seconds=min(PROMPT_SECONDS, PROMPT_SHARE * result.seconds),
        )
        write(terminal, gathered, page)
    except Exception as err:
        logger.warning("the report could not be written: %s: %s; the adapter is complete", type(err).__name__, err)
        return None
    return page


def _recorded_data(folder: Target, record: Record) -> tuple[TextData, list[str]]:
    """Return the data of a run, read as in its training, and what a reader has to know about them.

    Raises:
        ConfigError: the folder does not say on which data the run was trained, or what it says is another run's.
    """
    options = data_options(folder) if folder.is_dir() else None
    if options is None:
        raise ConfigError(
            f"there is no options.json in '{folder}' that says where its data are; name labelled rows with --data"
        )
    notices = []
    if record.training.get("folds"):
        notices.append(
            "The model was trained on all rows, these among them, so its figures are too good. The run itself was "
            "measured by cross-validation: see metrics.jsonl, or the report that training wrote."
        )
    data = load_recorded(folder, options)
    check_same_run(folder, record, data, options["seed"])
    return data, notices


def _history(folder: Target) -> list[dict[str, Any]]:
    """Return the lines of the metrics file of a run. A file that cannot be read is left out of the report."""
    from ptune.training.metrics_file import METRICS_FILE

    path = folder / METRICS_FILE
    try:
        lines = [json_lines.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError):
        lines = []
    good = all(isinstance(line, dict) and {"epoch", "loss", "train_loss"} <= line.keys() for line in lines)
    if path.exists() and not (lines and good):
        logger.warning("'%s' is not a metrics file of ptune; the report has no curves of the training", path)
    return lines if good else []
