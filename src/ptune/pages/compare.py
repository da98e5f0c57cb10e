"""The page of a comparison."""

from __future__ import annotations

from collections.abc import Sequence

from ptune.analysis.compare import Comparison, Difference, Disagreement
from ptune.data.metric_table import metrics_of
from ptune.data.targets import REGRESSION
from ptune.pages.document import document, panel, plain, row_list, table

MOST_ROWS = 500  # disagreements on the page
_STYLE = """
td small { display: block; color: var(--soft); font-size: .8rem; }
td:first-child { overflow-wrap: normal; }
th { white-space: normal; overflow-wrap: anywhere; }
.sentences p { margin: 0; } .sentences p + p { margin-top: .5rem; }
"""


def compare_page(comparison: Comparison) -> str:
    """Return a comparison as a page."""
    names, shown, total = comparison.names, comparison.disagreements[:MOST_ROWS], len(comparison.disagreements)
    *before, last = names
    how = (
        f"The small numbers are the differences from {names[0]}, with 95% intervals by the paired bootstrap. A star "
        "marks intervals without 0: the difference is more than chance."
    )
    metrics = panel("All rows", how, table(["", *names], _metric_cells(comparison)))
    tests = "".join(f"<p>{plain(line)}.</p>" for line in describe_tests(comparison))
    how = f"These are {len(shown)} of {total:,}." if total > len(shown) else ""
    if comparison.problem_type == REGRESSION:
        how = f"The runs see these rows most differently. Green is the number that is closest to the true one. {how}"
    title = f"{total:,} row{'' if total == 1 else 's'}"
    rows = panel(title, how, row_list([_row(names, row) for row in shown])) if shown else panel("None", "", "")
    return document(
        "compare",
        f"{', '.join(before)} and {last}",
        f"{comparison.rows:,} rows of {comparison.data}",
        [
            ("metrics", "Metrics", metrics),
            ("tests", "More than chance?", f'<div class="panel sentences">{tests}</div>' if tests else ""),
            ("rows", "Rows on which they disagree", rows),
        ],
        style=_STYLE,
    )


def _metric_cells(comparison: Comparison) -> list[list[str]]:
    """Return a line for each metric: its name, and its value for each run, with the difference from the first run."""
    titles = metrics_of(comparison.problem_type)
    lines = []
    for name in comparison.metrics[0]:
        if name not in titles:
            continue
        values = [f"{metrics[name]:.4f}" for metrics in comparison.metrics]
        changes = ["", *(_difference(differences.get(name)) for differences in comparison.differences)]
        cells = [
            f"{value}<small>{plain(change).replace('-', '−')}</small>"
            for value, change in zip(values, changes, strict=True)
        ]
        lines.append([plain(titles[name].title), *cells])
    return lines


def _row(names: Sequence[str], row: Disagreement) -> tuple[str, str, Sequence[str]]:
    said = f"<span>true <b>{plain(describe_answer(row.truth))}</b></span>"
    for name, answer, right in zip(names, row.answers, row.right, strict=True):
        kind, mark = ("right", "✓") if right else ("wrong", "✗")
        said += f'<span class="{kind}">{plain(name)} <b>{mark} {plain(describe_answer(answer))}</b></span>'
    return said, f"row {row.row:,}", row.texts


def metric_rows(comparison: Comparison) -> list[list[str]]:
    """Return the metrics as a table: a row for each, a column for each run, and one for each difference."""
    titles = metrics_of(comparison.problem_type)
    rows = [["", *comparison.names, *(f"{name} - {comparison.names[0]}" for name in comparison.names[1:])]]
    for name in comparison.metrics[0]:
        if name not in titles:
            continue
        values = [f"{metrics[name]:.4f}" for metrics in comparison.metrics]
        changes = [_difference(differences.get(name)) for differences in comparison.differences]
        rows.append([titles[name].title, *values, *changes])
    return rows


def describe_tests(comparison: Comparison) -> list[str]:
    """Return a sentence for each of McNemar's tests."""
    first, others = comparison.names[0], comparison.names[1:]
    return [
        f"{first} alone is right on {test.only_first:,} rows and {name} alone on {test.only_other:,}: "
        f"p = {test.p:.2g} (McNemar), {'more than chance' if test.p < 0.05 else 'may be chance'}"
        for name, test in zip(others, comparison.mcnemar, strict=False)
    ]


def describe_answer(answer: object) -> str:
    """Return a label, labels or a number in words."""
    if isinstance(answer, list):
        return ", ".join(map(str, answer)) or "no label"
    return f"{answer:.4g}" if isinstance(answer, float) else str(answer)


def _difference(difference: Difference | None) -> str:
    if difference is None:
        return ""
    mark = " *" if difference.clear else ""
    return f"{difference.value:+.4f} ({difference.low:+.4f} to {difference.high:+.4f}){mark}"
