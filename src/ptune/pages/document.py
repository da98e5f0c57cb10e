"""The frame of a page, and its parts: HTML with its style inside, light and dark, printable, from nowhere else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from importlib import resources

from ptune.errors import cut, printable

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
TEXT_SHOWN, LONGEST_TEXT = 320, 1500  # characters
Section = tuple[str, str, str]  # name in links, title, HTML


def document(
    kind: str,
    title: str,
    about: str,
    sections: Sequence[Section],
    *,
    top: str = "",
    style: str = "",
    script: str = "",
) -> str:
    """Return a whole page.

    Args:
        kind: what the page is, such as "report".
        title: plain text.
        about: plain text under the title.
        sections: those without content are left out. Three or more get links at the top of the page.
        top: HTML above the sections.
        style: CSS beside that of all pages.
        script: JavaScript.
    """
    there = [section for section in sections if section[2]]
    links = "".join(f'<a href="#{place}">{plain(name)}</a>' for place, name, _ in there)
    navigation = f'<nav aria-label="Sections">{links}</nav>' if len(there) > 2 else ""
    body = "".join(f'<section id="{place}"><h2>{plain(name)}</h2>{body}</section>\n' for place, name, body in there)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f'<title>{plain(title)}: ptune {kind}</title>\n<link rel="icon" href="{_ICON}">\n'
        f"<style>{resource('ptune.pages', 'page.css')}{style}</style>\n</head>\n<body>\n"
        f'<header><p class="brand">ptune {kind}</p><h1>{plain(title)}</h1>'
        f'<p class="about">{plain(about)}</p>{navigation}</header>\n'
        f"<main>\n{top}\n{body}</main>\n"
        "<footer>Everything on this page is in this file.</footer>\n"
        + (f"<script>{script}</script>\n" if script else "")
        + "</body>\n</html>\n"
    )


def resource(package: str, name: str) -> str:
    """Return the text of a file beside the code."""
    return (resources.files(package) / name).read_text(encoding="utf-8")


def plain(text: object) -> str:
    """Return text as HTML. Characters that would control something are shown as escapes."""
    return escape(printable(str(text)))


def panel(title: str, how: str, body: str) -> str:
    """Return a panel.

    Args:
        title: plain text; may be empty.
        how: plain text under the title; may be empty.
        body: HTML.
    """
    heading = f"<h3>{plain(title[:1].upper() + title[1:])}</h3>" if title else ""
    words = re.sub(r"(--[a-z][a-z-]*)", r"<code>\1</code>", plain(how.strip()))  # options are not broken
    hint = f'<p class="hint">{words}</p>' if words else ""
    return f'<div class="panel{"" if body else " short"}">{heading}{hint}{body}</div>'


def grid(*panels: str) -> str:
    """Return panels side by side where there is room."""
    return f'<div class="grid">{"".join(panels)}</div>' if panels else ""


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = (), scroll: bool = False) -> str:
    """Return a table.

    Args:
        heads: plain text.
        rows: cells of HTML.
        left: columns of words, which are aligned on the left.
        scroll: whether a long table scrolls in its panel.
    """

    def line(cells: Sequence[str], tag: str) -> str:
        return "".join(f"<{tag}{' class=left' if at in left else ''}>{cell}</{tag}>" for at, cell in enumerate(cells))

    body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    content = f"<thead><tr>{line([plain(head) for head in heads], 'th')}</tr></thead><tbody>{body}</tbody>"
    kind = ' class="scroll long" tabindex="0"' if scroll else ' class="scroll"'
    return f"<div{kind}><table>{content}</table></div>"


def row_list(rows: Sequence[tuple[str, str, Sequence[str]]]) -> str:
    """Return rows of the data with their texts.

    Args:
        rows: HTML of what is said about the row, plain text of its place, and its texts.
    """
    items = (
        f'<li><div class="verdict">{said}<span class="number">{plain(place)}</span></div>'
        f"{''.join(map(_text, texts))}</li>"
        for said, place, texts in rows
    )
    return f'<ol class="rows">{"".join(items)}</ol>'


def _text(text: str) -> str:
    text = text.strip()
    if len(text) <= TEXT_SHOWN:
        return f'<p dir="auto">{plain(text)}</p>'
    return (
        f'<p dir="auto">{plain(text[:TEXT_SHOWN])}…</p><details><summary>More</summary>'
        f'<p dir="auto">{plain(cut(text, LONGEST_TEXT))}</p></details>'
    )
