"""ptune check"""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from ptune.cli.options import ColumnNames, DataOptions, Device, DeviceOptions, Json, Labels, Names, Place, Target
from ptune.cli.peft_task import read_with_task
from ptune.cli.spelling import option
from ptune.cli.terminal import Terminal
from ptune.data.targets import ProblemType
from ptune.errors import ConfigError

if TYPE_CHECKING:
    from ptune.analysis.check import DataCheck
    from ptune.data.splits import TextData


def check(
    data: Annotated[
        Place,
        Parameter(
            help="Labelled data: a folder with train, validation and test files, a file, a Hub id, or - for standard "
            "input.",
            allow_leading_hyphen=True,
        ),
    ],
    /,
    *,
    adapter: Place | None = None,
    backbone: Place | None = None,
    fix: Target | None = None,
    strict: Annotated[bool, Parameter(negative=())] = False,
    ignore: Annotated[list[str] | None, Parameter(negative=())] = None,
    problem_type: ProblemType | None = None,
    labels: Labels = None,
    data_revision: str | None = None,
    json: Json = False,
    columns: Names = None,
    device: Device = None,
) -> None:
    """Find what is wrong with labelled data, and name the rows.

    Texts: repeats and near-repeats, texts that are in two splits, empty and very long texts, texts without words,
    damaged characters, HTML, other languages than that of most rows.

    Labels: missing, different for the same text, spelled in two ways, with few rows, without training rows, very
    unequal in number. Columns and words that give the label away.

    With --backbone: texts that the backbone would cut. With --adapter also likely label errors and outlying
    texts. Training rows are judged by the rows most like them, because the adapter has seen their labels.

    Rows are numbered from 1 in their file, without the header.

    --fix writes a copy of the data in which everything is repaired that needs no decision. Rows without text or label,
    repeats, and training rows whose text is also a validation or test row are left out. Labels get their most frequent
    spelling, and characters that were read with the wrong encoding are repaired.

    Examples:
      ptune check reviews.csv
      ptune check folder/ --strict --ignore imbalance,near_repeats
      ptune check reviews.csv --fix repaired.csv
      ptune check reviews.csv --adapter reviews
      ptune check glue/mrpc --json

    Parameters
    ----------
    adapter
        An adapter that was trained on such data: a folder or a Hub id.
    backbone
        The backbone that will be trained, or that of the adapter. Default: the one recorded in the adapter.
    fix
        File for the repaired rows: .csv, .tsv, .jsonl or .parquet. For data with several splits a new folder.
    strict
        End with exit code 1 if anything is found.
    ignore
        Kinds of findings to leave out, separated by commas.
    problem_type
        What the labels mean. Default: guessed as in training.
    data_revision
        Branch, tag or commit of a Hub data set.
    """
    from ptune.analysis.check import check_data
    from ptune.data.check.fix import check_fixed_output
    from ptune.data.check.run import check_kinds
    from ptune.data.files import check_other_file
    from ptune.data.sources import find_tables

    terminal = Terminal(json)
    ignored = [kind.strip() for part in ignore or () for kind in part.split(",")]
    check_kinds(ignored)  # this and what follows first, because reading data and loading a backbone take longer
    if fix is not None:
        check_other_file(data, fix)
        check_fixed_output(fix, ("train",) if data == "-" else find_tables(data, None, data_revision).tables)
    classifier = None
    if labels is not None and adapter is None:
        raise ConfigError("--labels names the outputs of an adapter of PEFT; give the adapter with --adapter")
    if adapter is not None:
        from ptune.adapter.folder import read_adapter
        from ptune.inference.classifier import load

        file = read_adapter(adapter)
        # The option also says how to read the data, so it is no claim about an adapter that records its own.
        file = read_with_task(file, backbone, labels, problem_type if file.by_peft else None)
        classifier = load(file, backbone, **(device or DeviceOptions()).model_dump())
    found = check_data(
        data,
        **(columns or ColumnNames()).model_dump(),
        problem_type=problem_type,
        revision=data_revision,
        ignore=ignored,
        backbone=backbone,
        classifier=classifier,
    )
    _print(terminal, found)
    fixed: dict[str, Any] = {}
    if fix is not None:
        fixed = {"fixed": {"output": str(fix), "rows": found.fix(fix)}}
        _print_fixed(terminal, fixed["fixed"])
    terminal.answer({**found.to_dict(), **fixed})
    if strict and found.findings:
        sys.exit(1)


def say_findings(terminal: Terminal, data: TextData, options: DataOptions) -> None:
    """Print what is wrong with data that will be trained on, as far as it is found quickly and is rarely meant."""
    from ptune.data.check.rows import rows_of_data
    from ptune.data.check.run import NOT_IN_SHORT, check_rows

    findings = check_rows(rows_of_data(data), NOT_IN_SHORT)
    for finding in findings:
        terminal.say(f"check: {finding.message}")
    if findings:
        terminal.say(f"check: for the rows, {_command(data.source, options)}")


def _command(source: str, options: DataOptions) -> str:
    """Return the command that checks the same data."""
    if source == "-":
        return "save the data to a file and run ptune check"
    words = ["ptune", "check", source]
    for name in (*ColumnNames.model_fields, "problem_type", "data_revision"):
        value = getattr(options, name)
        if value is not None:
            words += [option(name), ",".join(value) if isinstance(value, list) else value]
    return shlex.join(words)


def _print(terminal: Terminal, found: DataCheck) -> None:
    from ptune.cli.options import SETTINGS
    from ptune.cli.spelling import spell
    from ptune.data.check.findings import describe_rows

    sizes = ", ".join(f"{split} {rows:,}" for split, rows in found.splits.items())
    terminal.say(f"{found.source}: {sizes} rows; {found.columns}; {found.problem_type}")
    for finding in found.findings:
        terminal.say()
        terminal.say(f"{finding.title}: {finding.message}")
        if finding.rows:
            terminal.say(f"  {describe_rows(finding.rows)}")
        repair = "; --fix does this" if finding.fixable else ""
        terminal.say(f"  {spell(finding.advice, SETTINGS)}{repair}")
    terminal.say()
    if not found.findings:
        terminal.say("nothing found")
        return
    rows = len({id(row) for finding in found.findings for row in finding.rows})
    number = len(found.findings)
    terminal.say(f"{number} {'finding' if number == 1 else 'findings'}, about {rows:,} rows")


def _print_fixed(terminal: Terminal, fixed: dict[str, Any]) -> None:
    from ptune.data.check.findings import KINDS

    done = ", ".join(f"{KINDS[kind]} {count:,}" for kind, count in fixed["rows"].items() if count)
    terminal.say(f"written to {fixed['output']}; rows repaired or left out: {done or 'none'}")
