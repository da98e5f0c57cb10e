"""The page that a browser gets at `/`: one static file, `page/index.html`."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from fastapi import Request
from fastapi.responses import HTMLResponse

_FILE = Path(__file__).parent / "page" / "index.html"
# The page brings its own styles and scripts, and talks to this server alone.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:"


def wants_page(request: Request) -> bool:
    """Return whether a request comes from a browser that shows pages."""
    return "text/html" in request.headers.get("accept", "")


def page() -> HTMLResponse | None:
    """Return the page; None if it is not installed."""
    content = _content()
    if content is None:
        return None
    headers = {
        "Content-Security-Policy": _POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }
    return HTMLResponse(content, headers=headers)


@cache
def _content() -> str | None:
    return _FILE.read_text(encoding="utf-8") if _FILE.is_file() else None
