"""A report as one HTML file, which needs nothing from elsewhere."""

from __future__ import annotations

from ptune.data.metric_table import metrics_of, shown
from ptune.data.targets import MULTI, REGRESSION, SINGLE
from ptune.evaluation.chance import interval
from ptune.pages.document import document, grid, plain, resource
from ptune.report import sections
from ptune.report.contents import Report


def report_page(report: Report) -> str:
    """Return a report as a page."""
    all_sections = [
        ("training", "Training", sections.training(report)),
        ("errors", "What it gets wrong", sections.errors(report)),
        ("labels", "Labels", sections.labels(report)),
        ("trust", "Can it be trusted", sections.trust(report)),
        ("rows", "Rows to look at", sections.telling_rows(report)),
        ("texts", "Texts and prompt", grid(*sections.lengths(report), *sections.prompt_panels(report.prompt))),
        ("facts", "How it was made", sections.facts(report)),
    ]
    notices = "".join(f'<p class="notice">{plain(notice)}</p>' for notice in report.notices)
    return document(
        "report",
        report.name,
        _about(report),
        all_sections,
        top=f"{notices}{_tiles(report)}",
        style=resource("ptune.report", "charts.css"),
        script=resource("ptune.report", "page.js"),
    )


def _about(report: Report) -> str:
    kinds = {
        SINGLE: f"{len(report.labels)} labels, one per row",
        MULTI: f"{len(report.labels)} labels, any number per row",
        REGRESSION: f"a number: {report.labels[0]}",
    }
    return f"{kinds[report.problem_type]} · measured on {report.rows:,} rows of {report.data}"


def _tiles(report: Report) -> str:
    table, metrics = metrics_of(report.problem_type), report.metrics
    names = list(dict.fromkeys([*([report.best_metric] if report.best_metric in metrics else []),
                                *shown(report.problem_type)]))  # fmt: skip
    tiles = []
    for name in names:
        note = ""
        if name == "accuracy" and report.problem_type == SINGLE:
            low, high = interval(metrics[name], report.rows)
            note = f"95% interval {low:.3f} to {high:.3f}"
            if report.majority is not None:
                note += f"; majority class {report.majority:.3f}"
        tiles.append((table[name].title if name in table else name, f"{metrics[name]:.4f}", note))
    if report.calibration is not None:
        before = f"{report.calibration.error_before:.4f} before the temperature"
        note = before if report.problem_type == SINGLE and report.calibration.temperature != 1 else ""
        tiles.append(("calibration error", f"{report.calibration.error_after:.4f}", note))
    tiles.append(("loss", f"{metrics['loss']:.4f}", ""))
    if report.best_epoch is not None:
        tiles.append(("epoch kept", f"{report.best_epoch} of {len(report.history)}", ""))
    return (
        '<dl class="tiles">'
        + "".join(
            f'<div class="panel tile"><dt>{plain(title)}</dt><dd>{plain(value)}'
            f"{f'<small>{plain(note)}</small>' if note else ''}</dd></div>"
            for title, value, note in tiles
        )
        + "</dl>"
    )
