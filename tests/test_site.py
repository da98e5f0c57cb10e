"""The documentation as a site: all pages are in it, it loads nothing from elsewhere, and its search finds things."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
CHROMIUM = os.environ.get("PTUNE_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, or its path in PTUNE_CHROMIUM")


def pages_of(navigation: Any) -> Iterator[str]:
    """Yield the pages of a navigation, however deep they are."""
    if isinstance(navigation, str):
        yield navigation
    else:
        for entry in navigation.values() if isinstance(navigation, dict) else navigation:
            yield from pages_of(entry)


def test_every_page_is_in_the_navigation_once() -> None:
    navigation = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    pages = [path.name for path in (ROOT / "docs").glob("*.md")]
    notebooks = [f"notebooks/{path.stem}.md" for path in (ROOT / "examples" / "notebooks").glob("*.ipynb")]
    assert sorted(pages_of(navigation)) == sorted([*pages, *notebooks, "index.md", "index.zh.md"])


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The built site. Links that lead nowhere, also to headings, are errors."""
    pytest.importorskip("material", reason="needs requirements-docs.txt")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


class Loaded(HTMLParser):
    """Collects what a browser fetches for a page."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "a":
            self.places += [value for name, value in attrs if name in ("src", "href", "srcset", "data") and value]


@pytest.mark.long
def test_no_page_loads_anything_from_elsewhere(site) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        loaded = Loaded()
        loaded.feed(page.read_text(encoding="utf-8"))
        assert loaded.places
        assert not [place for place in loaded.places if re.match(r"(https?:)?//", place)], page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", sheet.read_text(encoding="utf-8")), sheet


@pytest.mark.long
def test_what_pages_link_to_outside_of_docs_is_on_the_site(site) -> None:
    text = (site / "serving.html").read_text(encoding="utf-8")
    assert 'href="repository/deploy/Containerfile.html"' in text
    assert "prom" in (site / "repository" / "deploy" / "index.html").read_text(encoding="utf-8")
    assert (site / "notebooks" / "guide.html").is_file()
    assert 'lang="zh-CN"' in (site / "getting-started.zh.html").read_text(encoding="utf-8")


def found(page: Any, words: str, expected: str) -> bool:
    """Whether a search gives a page. What is typed before the search is ready is not seen, so it is typed again."""
    for _ in range(20):
        page.fill(".md-search__input", "")
        page.fill(".md-search__input", words)
        page.wait_for_timeout(1000)
        if page.locator(f".md-search-result__link[href*='{expected}']").count():
            return True
    return False


@pytest.mark.long
@needs_chromium
@pytest.mark.parametrize("width", [400, 1400])
def test_pages_open_from_a_folder_and_can_be_searched(site, width) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 900})
        asked, problems = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: problems.append(str(error)))
        for name in ("index", "architecture", "report", "cli", "getting-started.zh"):
            page.goto((site / f"{name}.html").as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        for words, expected in (("integrated gradients", "understand.html"), ("阈值", "getting-started.zh.html")):
            page.goto((site / "index.html").as_uri())
            page.evaluate("document.querySelector('#__search').click()")
            assert found(page, words, expected), words
        browser.close()
    assert problems == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
