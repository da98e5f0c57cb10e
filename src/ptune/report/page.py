"""A report as one HTML file, which needs nothing from elsewhere."""

from __future__ import annotations

from importlib import resources

from ptune.data.metric_table import metrics_of, shown
from ptune.data.targets import MULTI, REGRESSION, SINGLE
from ptune.evaluation.chance import interval
from ptune.pages.document import plain
from ptune.report import sections
from ptune.report.contents import Report

# Nothing may be loaded or sent, whatever the texts of the data hold.
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'"
)
_ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Crect width='16' "
    "height='16' rx='4' fill='%233457d5'/%3E%3Cpath d='M4 4.5h8M4 8h5M4 11.5h6.5' stroke='%23fff' "
    "stroke-width='1.8' stroke-linecap='round'/%3E%3C/svg%3E"
)


def report_page(report: Report) -> str:
    """Return a report as a page."""
    all_sections = [
        ("training", "Training", sections.training(report)),
        ("errors", "What it gets wrong", sections.errors(report)),
        ("labels", "Labels", sections.labels(report)),
        ("trust", "Can it be trusted", sections.trust(report)),
        ("rows", "Rows to look at", sections.telling_rows(report)),
        ("texts", "Texts and prompt", sections.grid(*sections.lengths(report), *sections.prompt_panels(report.prompt))),
        ("facts", "How it was made", sections.facts(report)),
    ]
    there = [(place, title, body) for place, title, body in all_sections if body]
    links = "".join(f'<a href="#{place}">{plain(title)}</a>' for place, title, _ in there)
    body = "".join(f'<section id="{place}"><h2>{plain(title)}</h2>{body}</section>\n' for place, title, body in there)
    notices = "".join(f'<p class="notice">{plain(notice)}</p>' for notice in report.notices)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f'<title>{plain(report.name)}: ptune report</title>\n<link rel="icon" href="{_ICON}">\n'
        f"<style>{_file('page.css')}</style>\n</head>\n<body>\n"
        f'<header><p class="brand">ptune report</p><h1>{plain(report.name)}</h1>'
        f'<p class="about">{plain(_about(report))}</p><nav aria-label="Sections">{links}</nav></header>\n'
        f"<main>\n{notices}{_tiles(report)}\n{body}</main>\n"
        "<footer>Everything on this page is in this file.</footer>\n"
        f"<script>{_file('page.js')}</script>\n</body>\n</html>\n"
    )


def _file(name: str) -> str:
    return (resources.files("ptune.report") / name).read_text(encoding="utf-8")


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
