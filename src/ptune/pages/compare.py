"""The page of a comparison."""

from __future__ import annotations

from ptune.analysis.compare import Comparison, Difference
from ptune.data.metric_table import metrics_of
from ptune.pages.document import document, heading, html, paragraph, plain, table

MOST_ROWS = 500  # disagreements on the page


def compare_page(comparison: Comparison) -> str:
    """Return a comparison as a page."""
    shown, total = comparison.disagreements[:MOST_ROWS], len(comparison.disagreements)
    body = [
        paragraph(f"{comparison.rows:,} rows of {comparison.data}"),
        heading("Metrics"),
        table(metric_rows(comparison)),
        paragraph("Differences are from the first run, with their 95 % intervals by the paired bootstrap.", "note"),
    ]
    body += [paragraph(line) for line in describe_tests(comparison)]
    body.append(heading("Rows on which they disagree"))
    if total > len(shown):
        body.append(paragraph(f"{len(shown)} of {total:,}", "note"))
    if not shown:
        return document(" and ".join(comparison.names), [*body, paragraph("none")])
    rows = [["row", "text", "truth", *comparison.names]]
    for row in shown:
        cells = [
            html(f'<span class="{"right" if right else "wrong"}">{plain(describe_answer(answer))}</span>')
            for answer, right in zip(row.answers, row.right, strict=True)
        ]
        texts = html("<br>".join(map(plain, row.texts)))
        rows.append([str(row.row), texts, describe_answer(row.truth), *cells])
    return document(" and ".join(comparison.names), [*body, table(rows, "words")])


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
