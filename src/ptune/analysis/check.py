"""Check labelled text, with what a backbone and an adapter know about it if they are given."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from ptune.data.check.findings import Finding
from ptune.data.check.fix import repair, write_rows
from ptune.data.check.rows import Rows, read_rows
from ptune.data.check.run import check_kinds, check_rows, in_order
from ptune.data.columns import Columns
from ptune.data.targets import ProblemType
from ptune.places import Place, as_place

if TYPE_CHECKING:
    from ptune.inference.classifier import TextClassifier
    from ptune.model.backbone import Backbone


@dataclass(frozen=True)
class DataCheck:
    """What was found in labelled text.

    Attributes:
        source: the data, as the caller named them.
        columns: the columns of text, pair and label.
        problem_type: the kind of the labels.
        splits: the number of rows of each split.
        findings: what was found, one entry for each kind and cause.
        rows: all rows.
    """

    source: str
    columns: Columns
    problem_type: ProblemType
    splits: dict[str, int]
    findings: list[Finding]
    rows: Rows = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return everything in types of JSON."""
        return {
            "data": self.source,
            "columns": vars(self.columns),
            "problem_type": self.problem_type,
            "splits": self.splits,
            "findings": [finding.to_dict() for finding in self.findings],
        }

    def fix(self, path: str | Place) -> dict[str, int]:
        """Write a copy of the rows with every repair that needs no decision. Return how many rows each concerned.

        Rows without text or label are left out, as are repeats with the same label and training rows whose text is also
        a validation or test row. Labels get their most frequent spelling. Wrongly decoded characters are repaired.

        Args:
            path: a file that ends in .csv, .tsv, .jsonl or .parquet; for data with several splits a new or empty
                folder, which gets one .jsonl file for each.

        Raises:
            ConfigError: the path is not of the right kind, or the folder holds other files.
            DataError: the format cannot hold a value, rows cannot be parsed and would be lost, or no row of a split is
                left.
            OutputError: the file cannot be written.
        """
        rows, counts = repair(self.rows)
        write_rows(rows, as_place(path))
        return counts


def check_data(
    source: Any,
    *,
    text: str | None = None,
    text_pair: str | None = None,
    label: str | Sequence[str] | None = None,
    problem_type: ProblemType | None = None,
    label_separator: str | None = None,
    revision: str | None = None,
    ignore: Collection[str] = (),
    backbone: str | Backbone | None = None,
    classifier: TextClassifier | None = None,
) -> DataCheck:
    """Find what is wrong with labelled text.

    Rows of all splits are read, and compared with each other. The result names the rows by file and number.

    Args:
        source, text, text_pair, label, problem_type, label_separator, revision: see `load_data`.
        ignore: kinds of findings that are not looked for, such as `near_repeats`; `ptune.data.check.findings.KINDS`
            lists them.
        backbone: the backbone that will be trained, or its name; rows that it would cut are found too.
        classifier: a trained classifier, from `ptune.load`. Likely label errors, texts unlike all others, and rows that
            it cuts are found too. Needs the extra `check`.

    Raises:
        DataError: the data cannot be read.
        ConfigError: there is no such kind, or the classifier has other labels than the data.
        BackboneError: the backbone cannot be loaded.
    """
    check_kinds(ignore)
    trained = classifier.task.columns if classifier is not None else None
    if classifier is not None:
        problem_type = problem_type or classifier.model.problem_type
        label_separator = label_separator or classifier.task.label_separator
    read = partial(read_rows, source, text=text, text_pair=text_pair, label=label, trained=trained, revision=revision)
    rows = read(problem_type=problem_type, label_separator=label_separator)
    if classifier is not None and not rows.labelled and any(row.problem and not row.lacking for row in rows.all):
        from ptune.analysis.model_checks import check_same_task

        check_same_task(read(), classifier)  # raises an error if they are for something else
    findings = check_rows(rows, ignore)
    if classifier is not None or backbone is not None:
        from ptune.analysis.model_checks import check_lengths, check_with_classifier

        if "lengths" not in ignore:
            findings += check_lengths(rows, classifier if classifier is not None else backbone)
        if classifier is not None:
            findings += check_with_classifier(rows, classifier, ignore)
    return DataCheck(rows.source, rows.columns, rows.problem_type, rows.splits, in_order(findings), rows)
