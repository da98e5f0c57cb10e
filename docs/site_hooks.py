"""What `make docs-site` adds to the pages of docs/: MkDocs calls these functions (mkdocs.yml names this file).

The pages are also read without the site, so they link to files of the repository by their paths. On the site, the
READMEs are its first pages, the notebooks and all files that pages link to become pages, and links lead to those. The
search also works in pages that are opened from a folder.
"""

from __future__ import annotations

import json
import posixpath
import re
from html import escape
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.plugins import event_priority
from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
FIRST_PAGES = {"README.md": "index.md", "README.zh-CN.md": "index.zh.md"}
NOTEBOOKS = "examples/notebooks"
LANGUAGES = {".py": "python", ".yaml": "yaml", ".json": "json", ".service": "ini", ".txt": "text"}
NOT_SEARCHED = "---\nsearch:\n  exclude: true\n---\n\n"
_LINK = re.compile(r"(?<=\]\()(?!\w+:|#|/)(?P<path>[^)#\s]+)(?=[)#])")
_COMMENT = re.compile(r"^<!-- .*? -->\n+", re.M | re.S)
_FENCE = re.compile(r"^```.*?^```$", re.M | re.S)
_CHINESE = "[\u3000-\u9fff\uff00-\uffef]"
_LINE_END = re.compile(f"(?<={_CHINESE})\n(?={_CHINESE})")
# In a page that is opened from a folder, browsers start no worker from a file, but they do from a blob.
_WORKER = """if (location.protocol === "file:") {
  const source = %s;
  window.Worker = class extends Worker {
    constructor() {
      super(URL.createObjectURL(new Blob([source], {type: "text/javascript"})));
    }
  };
}
"""
_MERMAID = re.compile(r"^```mermaid\n(.*?)^```$", re.M | re.S)


def on_config(config: Any) -> Any:
    """Make the names of headings as GitHub does, for links that work in both places."""
    config.mdx_configs.setdefault("toc", {})["slugify"] = slug
    return config


def slug(title: str, separator: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.lower().strip()).replace(" ", separator)


def on_files(files: Any, config: Any) -> Any:
    """Add the READMEs, the notebooks, and every file that a page links to."""
    waiting = [*FIRST_PAGES, *(f"docs/{file.src_uri}" for file in files.documentation_pages())]
    waiting += [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / NOTEBOOKS).glob("*.ipynb"))]
    seen = set(waiting)
    while waiting:
        path = waiting.pop()
        text = markdown(path)
        if not path.startswith("docs/"):
            files.append(File.generated(config, page_of(path), content=with_links(text, path)))
        for link in links(text, path):
            if link not in seen and not link.startswith("docs/") and (ROOT / link).exists():
                seen.add(link)
                waiting.append(link)
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Adapt a page to the site."""
    source = page.file.src_uri
    if source.endswith(".md") and page.file.generated_by is None:
        markdown = with_links(markdown, f"docs/{source}")
    if source.endswith(".zh.md"):  # Chinese has no spaces, and the end of a line would become one
        markdown = _LINE_END.sub("", markdown)
    return _COMMENT.sub("", _MERMAID.sub(lambda match: diagram(match[1]), markdown))


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """Say which pages are Chinese, for fonts and for programs that read them aloud."""
    return f'<div lang="zh-CN">{html}</div>' if page.file.src_uri.endswith(".zh.md") else html


@event_priority(-100)  # after the index is written
def on_post_build(config: Any) -> None:
    """Make the search work in pages that are opened from a folder: write its index and its worker as scripts."""
    site = Path(config.site_dir)
    index = (site / "search" / "search_index.json").read_text(encoding="utf-8")
    (site / "search" / "search_index.js").write_text(f"var __index = {index}", encoding="utf-8")
    (worker,) = (site / "assets" / "javascripts" / "workers").glob("search.*.js")
    script = _WORKER % json.dumps(worker.read_text(encoding="utf-8"))
    (site / "assets" / "search-from-folder.js").write_text(script, encoding="utf-8")


def page_of(path: str) -> str:
    """Return the page on the site of a file or folder of the repository."""
    if path in FIRST_PAGES:
        return FIRST_PAGES[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path.startswith(f"{NOTEBOOKS}/"):
        return f"notebooks/{PurePosixPath(path).stem}.md"
    if (ROOT / path).is_dir():
        return f"repository/{path}/index.md"
    return f"repository/{path.removesuffix('.md')}.md"


def links(text: str, path: str) -> list[str]:
    """Return the paths in the repository that a page links to."""
    return [_target(match["path"], path) for match in _LINK.finditer(_FENCE.sub("", text))]


def with_links(text: str, path: str) -> str:
    """Return a page with links to the pages of the site. path: where the page is in the repository."""

    def replaced(match: re.Match[str]) -> str:
        target = _target(match["path"], path)
        if not (ROOT / target).exists():
            return match["path"]  # MkDocs names it
        return posixpath.relpath(page_of(target), posixpath.dirname(page_of(path)) or ".")

    parts = re.split(f"({_FENCE.pattern})", text, flags=re.M | re.S)
    return "".join(part if part.startswith("```") else _LINK.sub(replaced, part) for part in parts)


def _target(link: str, path: str) -> str:
    folder = path if (ROOT / path).is_dir() else posixpath.dirname(path)
    return posixpath.normpath(posixpath.join(folder, link))


def markdown(path: str) -> str:
    """Return a file or folder of the repository as a page."""
    file = ROOT / path
    if file.is_dir():
        names = sorted(f"{entry.name}/" if entry.is_dir() else entry.name for entry in file.iterdir())
        entries = "\n".join(f"- [{name}]({name})" for name in names if not name.startswith(("_", ".")))
        return f"{NOT_SEARCHED}# {path}\n\n{entries}\n"
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".md":
        return text
    if file.suffix == ".ipynb":
        return _notebook(json.loads(text), path)
    return f"{NOT_SEARCHED}# {path}\n\n````{LANGUAGES.get(file.suffix, 'text')}\n{text.rstrip()}\n````\n"


def _notebook(content: dict[str, Any], path: str) -> str:
    """Return the cells of a notebook as a page."""
    cells = []
    for cell in content["cells"]:
        text = "".join(cell["source"]).strip()
        cells.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    title, *others = cells
    return "\n\n".join([title, f"The notebook is `{path}`.", *others]) + "\n"


def diagram(source: str) -> str:
    """Return a chain of boxes in Mermaid's notation as HTML, the last box first. The site loads no program to draw it."""
    boxes = dict.fromkeys(re.findall(r'\["(.*?)"\]', source))
    return '<ol class="chain">' + "".join(f"<li>{_box(text)}</li>" for text in reversed(list(boxes))) + "</ol>"


def _box(text: str) -> str:
    return escape(text).replace("&lt;b&gt;", "<b>").replace("&lt;/b&gt;", "</b>").replace("&lt;br&gt;", "<br>")
