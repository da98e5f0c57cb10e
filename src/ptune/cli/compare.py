"""ptune compare"""

from __future__ import annotations

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
from ptune.cli.recorded import check_same_run, data_options, load_recorded
from ptune.cli.terminal import Terminal
from ptune.errors import ConfigError
from ptune.places import as_place

if TYPE_CHECKING:
    from ptune.adapter.layout import Record
    from ptune.analysis.compare import Comparison
    from ptune.data.splits import TextData


def compare(
    *runs: Annotated[
        Place, Parameter(help="Adapters to compare: folders or Hub ids. The others are compared with the first.")
    ],
    data: Place | None = None,
    split: str = "validation",
    data_revision: str | None = None,
    backbone: Place | None = None,
    html: Target | None = None,
    rows: Annotated[int, Parameter(validator=validators.Number(gte=0))] = 10,
    labels: Labels = None,
    problem_type: ProblemOfPeft = None,
    batch_size: BatchSize = None,
    json: Json = False,
    columns: Columns = None,
    device: Device = None,
) -> None:
    """Compare adapters on the same rows: metrics, whether they differ by more than chance, and rows on which only some
    are right.

    Differences are measured against the first run. Each has a 95 % interval by the paired bootstrap. A star marks an
    interval that does not contain 0. McNemar's test gives the probability that two equally good models differ this
    much.

    Examples:
      ptune compare reviews reviews-2
      ptune compare reviews reviews-2 --data reviews-test.csv --html comparison.html
      ptune compare reviews reviews-2 --data folder/ --split test --json

    Parameters
    ----------
    data
        Labelled data: a folder, a file, a URL or a Hub id. Default: the validation rows of the first run.
    split
        The split of a folder or a Hub data set. A single file is read as a whole.
    data_revision
        Branch, tag or commit of a Hub data set.
    backbone
        The backbone of all runs. Default: the one recorded in each adapter.
    html
        File for the comparison as a page.
    rows
        Number of rows to print on which the runs disagree. The page and --json have all.
    """
    from ptune.adapter.folder import read_adapter
    from ptune.analysis.compare import compare, unique_names
    from ptune.inference.classifier import load

    if len(runs) < 2:
        raise ConfigError("a comparison needs at least two runs: ptune compare RUN RUN")
    terminal = Terminal(json)
    read = [read_adapter(run) for run in runs]
    # With labels recorded in each run there is nothing to name, and the first says so.
    all_named = not any(file.nameless for file in read)
    asked = (labels, problem_type)
    files = [read_with_task(file, backbone, *(asked if file.nameless or all_named else (None, None))) for file in read]
    if html is not None:
        from ptune.pages.writing import check_page

        check_page(html)
    if data is None:
        for run, file in zip(runs, files, strict=True):
            if split == "validation" and file.record.training.get("folds"):
                raise ConfigError(
                    f"'{run}' was trained on all rows and measured by cross-validation, so it has seen the validation "
                    "rows; name rows that no run has seen with --data"
                )
        found = _recorded_data([as_place(run) for run in runs], files[0].record, split)
    else:
        source = {**(columns or ColumnOptions()).model_dump(), "revision": data_revision}
        found = read_labelled(files[0], data, split, source, named=labels is not None)
    classifiers = [load(file, backbone, **(device or DeviceOptions()).model_dump()) for file in files]
    comparison = compare(classifiers, found, split, names=unique_names(runs), batch_size=batch_size)
    _print(terminal, comparison, rows)
    answer: dict[str, Any] = comparison.to_dict()
    if html is not None:
        from ptune.pages.compare import compare_page
        from ptune.pages.writing import write_page

        write_page(html, compare_page(comparison))
        terminal.say(f"page: {html}")
        answer["html"] = str(html)
    terminal.answer(answer)


def _recorded_data(runs: list[Target], record: Record, split: str) -> TextData:
    """Return the data of the first run, read as in training, so that the same rows are held back.

    Raises:
        ConfigError: the first run does not say on which data it was trained, or what it says is another run's.
        ConfigError: rows of the training rows were held back, and another run held back others.
    """
    options = [data_options(run) for run in runs]
    if options[0] is None:
        raise ConfigError(
            f"there is no options.json in '{runs[0]}' that says where its data are; name the rows to compare on with "
            "--data"
        )
    data = load_recorded(runs[0], options[0])
    check_same_run(runs[0], record, data, options[0]["seed"])
    if data.held_back and split == "validation":
        for run, other in zip(runs[1:], options[1:], strict=True):
            if other != options[0]:
                raise ConfigError(
                    f"'{runs[0]}' and '{run}' may have held back different rows for validation, so that each has seen "
                    "some of the other's; name rows that neither has seen with --data"
                )
    return data


def _print(terminal: Terminal, comparison: Comparison, most: int) -> None:
    from ptune.pages.compare import describe_answer, describe_tests, metric_rows

    terminal.say(f"{comparison.rows:,} rows of {comparison.data}")
    terminal.table(metric_rows(comparison))
    for line in describe_tests(comparison):
        terminal.say(line)
    shown = comparison.disagreements[:most]
    if shown:
        terminal.say(f"rows on which they disagree: {len(shown)} of {len(comparison.disagreements):,}")
    for row in shown:
        given = ", ".join(
            f"{name} {describe_answer(answer)}{'' if right else ' (wrong)'}"
            for name, answer, right in zip(comparison.names, row.answers, row.right, strict=True)
        )
        terminal.say(f"  row {row.row}, {describe_answer(row.truth)}: {' | '.join(row.texts)}")
        terminal.say(f"    {given}")
