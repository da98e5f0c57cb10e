"""The frame of a page, and its tables: plain HTML with its style inside, light and dark, printable."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ptune.errors import printable

# Cells that begin with this are HTML already.
HTML = "\0"

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --good: 34 150 84; --bad: 200 60 60; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .75rem; text-align: right; vertical-align: top; }
th:first-child, td:first-child, .words td, .words th { text-align: left; }
.right { color: rgb(var(--good)); } .wrong { color: rgb(var(--bad)); }
.note { opacity: .75; } .text { line-height: 2; }
mark { color: inherit; border-radius: .2rem; padding: .1rem .15rem; }
@media print { body { margin: 0; max-width: none; } }
"""


def document(title: str, body: Sequence[str]) -> str:
    """Return a whole page.

    Args:
        title: plain text.
        body: HTML, put together from the other functions of this module.
    """
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{plain(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{plain(title)}</h1>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def plain(text: object) -> str:
    """Return text as HTML. Characters that would control something are shown as escapes."""
    return escape(printable(str(text)))


def heading(text: str) -> str:
    """Return a heading of a section."""
    return f"<h2>{plain(text)}</h2>"


def paragraph(text: str, kind: str = "") -> str:
    """Return a paragraph of plain text."""
    return f'<p class="{kind}">{plain(text)}</p>' if kind else f"<p>{plain(text)}</p>"


def html(content: str) -> str:
    """Return HTML as a cell of a table."""
    return HTML + content


def table(rows: Sequence[Sequence[str]], kind: str = "") -> str:
    """Return a table whose first row is its head. It scrolls where the page is narrow.

    Args:
        rows: cells of plain text, or of HTML by `html`.
        kind: "words" aligns all columns on the left.
    """
    head, *body = rows
    lines = ["<tr>" + "".join(f"<th>{_cell(cell)}</th>" for cell in head) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{_cell(cell)}</td>" for cell in row) + "</tr>" for row in body]
    return f'<div class="scroll"><table class="{kind}">\n' + "\n".join(lines) + "\n</table></div>"


def _cell(cell: str) -> str:
    return cell.removeprefix(HTML) if cell.startswith(HTML) else plain(cell)
