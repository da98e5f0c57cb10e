"""Write the files of a report: the page, and its pictures in a folder beside it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ptune.atomic import write_files
from ptune.pages.writing import write_page
from ptune.places import Place, as_place
from ptune.report.contents import Report
from ptune.report.page import report_page
from ptune.report.pictures import PICTURES, draw_pictures, have_matplotlib

REPORT_FILE = "report.html"


def write_report(report: Report, path: str | Place) -> list[Place]:
    """Write a report as a page, and its pictures as PNG into a folder beside it that has the page's name.

    Without matplotlib (`pip install 'ptune[report]'`) only the page is written.

    Args:
        report: from `gather_report`.
        path: the page, a name that ends in .html.

    Returns:
        The files that were written, the page first.

    Raises:
        OutputError: a file cannot be written.
    """
    path = as_place(path)
    write_page(path, report_page(report))
    if not have_matplotlib():
        return [path]
    pictures = draw_pictures(report)
    folder = pictures_folder(path)
    write_files(folder, pictures, remove=[name for name in _names() if name not in pictures])
    return [path, *(folder / name for name in pictures)]


def remove_report(folder: Path) -> None:
    """Remove the report of an earlier run from its folder. What cannot be removed stays."""
    page = folder / REPORT_FILE
    pictures = folder / page.stem
    for path in (page, *(pictures / name for name in _names())):
        with suppress(OSError):
            path.unlink(missing_ok=True)
    with suppress(OSError):
        pictures.rmdir()


def pictures_folder(page: Place) -> Place:
    """Return the folder of the pictures of a page."""
    return page.with_suffix("")


def _names() -> Sequence[str]:
    return [f"{name}.png" for name in PICTURES]
