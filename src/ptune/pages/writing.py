"""Write pages to files."""

from __future__ import annotations

from ptune.atomic import try_folder, written_file
from ptune.errors import ConfigError
from ptune.places import Place, as_place


def check_page(path: Place, setting: str = "html") -> None:
    """Check that a page can be written, before any work is done. Nothing is left behind.

    Args:
        path: the page.
        setting: name of the setting that gave the path.

    Raises:
        ConfigError: the path is a folder, or its ending is not .html.
        OutputError: the folder cannot be created or written into.
    """
    if path.suffix.lower() not in (".html", ".htm") or path.is_dir():
        raise ConfigError(
            f"`{setting}='{path}'` is not the name of an .html file; give one, such as "
            f"`{setting}='{path.with_suffix('.html') if path.name else 'page.html'}'`",
            field=setting,
            value=str(path),
            expected="the name of an .html file",
        )
    try_folder(as_place(path).parent)


def write_page(path: Place, page: str) -> None:
    """Write a page.

    Raises:
        OutputError: the file cannot be written. An older one is left intact.
    """
    with written_file(as_place(path), "wb") as file:
        file.write(page.encode("utf-8", "replace"))  # type: ignore[arg-type]
