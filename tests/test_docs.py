"""The documentation does what it says: its code runs, its links lead somewhere, its generated pages are up to date."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import pytest

from ptune.cli import main
from tests.stand_ins import PACKAGES, put_stand_ins

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "README.zh-CN.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = sorted(path for path in (ROOT / "examples").rglob("*.py"))
NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))
# Chinese pages and what they are translations of.
TRANSLATIONS = {
    ROOT / "README.zh-CN.md": ROOT / "README.md",
    ROOT / "docs" / "getting-started.zh.md": ROOT / "docs" / "getting-started.md",
}
# The only pages with outputs that docs/outputs.py does not write.
BY_HAND = ("README.md", "README.zh-CN.md")
# <!-- not run: why --> in front of a block.
BLOCK = re.compile(r"(?:<!-- not run: (?P<reason>.*?) -->\n+)?^```(?P<language>\w+)\n(?P<code>.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page; reason: why it is not run, where it is marked so."""

    page: Path
    language: str
    code: str
    reason: str | None

    def __str__(self) -> str:
        return f"{self.page.name}: {self.code.splitlines()[0]}"


def blocks_of(page: Path) -> list[Block]:
    found = BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [Block(page, match["language"], match["code"], match["reason"]) for match in found]


ALL_BLOCKS = [block for page in PAGES for block in blocks_of(page)]
# The code of a translation is the original's, see `test_a_translation_says_the_same`.
RUN = [page for page in dict.fromkeys(block.page for block in ALL_BLOCKS) if page not in TRANSLATIONS]
NOT_RUN = [block for block in ALL_BLOCKS if block.reason is not None]


@pytest.fixture
def here(backbone_folder, language_model_folder, hub, tmp_path, monkeypatch) -> Path:
    """A folder to run in, with all stand-ins, and a Hub on loopback to push to."""
    monkeypatch.setenv("HF_TOKEN", "hf_my_name")
    put_stand_ins(tmp_path, backbone_folder, language_model_folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.syspath_prepend(tmp_path / PACKAGES)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("ptune.training.config.MOST_EPOCHS", 2)  # where the page names none
    return tmp_path


def run(block: Block, names: dict[str, object]) -> None:
    """names: what the page's Python blocks have defined so far."""
    if block.language == "python":
        exec(compile(block.code, str(block), "exec"), names)
    elif block.language == "bash":
        run_bash(block.code)
    elif title := re.match(r"# (\S+\.(yaml|toml|json))\n", block.code):  # a file that later blocks use
        Path(title[1]).write_text(block.code, encoding="utf-8")


def run_bash(code: str) -> None:
    """Plain `ptune` commands in this process, as starting one takes seconds; all else in a shell."""
    lines = re.sub(r"\\\n\s*", "", code).splitlines()
    for plain, group in groupby(lines, key=is_plain_command):
        if plain:
            for line in group:
                main(shlex.split(line, comments=True)[1:])
        else:
            shell = f'ptune() {{ {shlex.quote(sys.executable)} -m ptune "$@"; }}\n' + "\n".join(group)
            modules = os.pathsep.join(filter(None, sys.path))
            programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # torchrun
            environment = {**os.environ, "PYTHONPATH": modules, "PATH": programs}
            subprocess.run(["bash", "-euo", "pipefail", "-c", shell], check=True, env=environment)


def is_plain_command(line: str) -> bool:
    if not line.startswith("ptune "):
        return False
    words = shlex.shlex(line, punctuation_chars="|><;&")  # quotation marks stay, so a quoted sign is none
    words.whitespace_split = True
    return not any(set(word) <= set("|><;&") for word in words)


@pytest.mark.filterwarnings("ignore")  # a page may use libraries that warn
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_the_code_of_a_page_runs_in_its_order(page, here) -> None:
    names: dict[str, object] = {"__name__": "__main__"}
    for name in re.findall(r"^ptune train .*--output (\S+)", page.read_text(encoding="utf-8"), flags=re.M):
        shutil.rmtree(name, ignore_errors=True)  # the page trains this adapter itself
    for block in blocks_of(page):
        if block.reason is None:
            run(block, names)


@pytest.mark.parametrize("block", NOT_RUN, ids=str)
def test_what_is_not_run_says_why(block) -> None:
    assert block.language in ("python", "bash")
    assert len((block.reason or "").split()) >= 3


def test_every_fence_says_its_language() -> None:
    for page in PAGES:
        fences = re.findall(r"^```(.*)$", page.read_text(encoding="utf-8"), flags=re.M)
        assert all(fences[::2]), page.name
        assert not any(fences[1::2]), page.name


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_runs_as_it_is(example, here, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(example)])
    runpy.run_path(str(example), run_name="__main__")


def test_the_guide_takes_local_data_and_another_method(here, monkeypatch, capsys) -> None:
    options = ["--data", "path/to/MRPC", "--method", "p-tuning", "--epochs", "1", "--output", "local"]
    monkeypatch.setattr(sys, "argv", ["guide.py", *options])
    runpy.run_path(str(ROOT / "examples" / "guide.py"), run_name="__main__")
    out = capsys.readouterr().out
    assert out.startswith("trainable params: ")
    assert re.search(r"^epoch 1: accuracy 0\.\d{4}, F1 0\.\d{4}", out, flags=re.M)
    assert [line.split(":")[0] for line in out.splitlines()[-2:]] == ["not_equivalent", "equivalent"]
    assert (here / "local" / "adapter_config.json").is_file()


@pytest.mark.filterwarnings("ignore")
def test_the_guide_publishes_and_loads_what_is_on_the_hub(here, hub, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["guide.py", "--epochs", "1", "--push", "my-name/mrpc"])
    runpy.run_path(str(ROOT / "examples" / "guide.py"), run_name="__main__")
    assert f"published: {hub.url}/my-name/mrpc" in capsys.readouterr().out
    assert "models/my-name/mrpc" in hub.repositories


def test_the_guide_says_what_is_wrong_in_words(here, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["guide.py", "--data", "reviews.csv"])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(ROOT / "examples" / "guide.py"), run_name="__main__")
    assert caught.value.code == 2
    assert "pairs of texts with two labels are expected" in capsys.readouterr().err


def code_of(notebook: Path) -> str:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


# The notebook about serving starts a server of its own, which takes longer.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("notebook", [path for path in NOTEBOOKS if path.stem != "serving"], ids=lambda path: path.stem)
def test_the_code_of_a_notebook_runs(notebook, here) -> None:
    exec(compile(code_of(notebook), notebook.name, "exec"), {"__name__": "__main__"})


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_in_a_kernel(notebook, here, monkeypatch) -> None:
    nbformat = pytest.importorskip("nbformat", reason="needs requirements-docs.txt")
    nbclient = pytest.importorskip("nbclient", reason="needs requirements-docs.txt")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    content = nbformat.read(notebook, as_version=4)
    nbclient.NotebookClient(content, timeout=300, resources={"metadata": {"path": str(here)}}).execute()
    printed = [output for cell in content.cells for output in cell.get("outputs", [])]
    assert printed
    assert not [output for output in printed if output["output_type"] == "error"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_what_a_run_leaves_in_it(notebook) -> None:
    content = json.loads(notebook.read_text(encoding="utf-8"))
    assert content["cells"][0]["cell_type"] == "markdown"
    for cell in content["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_outputs_are_made_by_the_script() -> None:
    outputs = runpy.run_path(str(ROOT / "docs" / "outputs.py"))
    for page in PAGES:
        if page.name in BY_HAND or page in TRANSLATIONS:
            continue
        text = page.read_text(encoding="utf-8")
        shown = re.findall(r"^```(?:bash|python)\n(?:(?!^```).*\n)*^```\n+```text", text, flags=re.M)
        assert not shown, f"{page.name}: put `<!-- output -->` in front of what a command prints"
        assert not re.search(r"<!-- output.*? -->\n```text\n```", text), f"{page.name}: run docs/outputs.py"
        assert ("<!-- output" in text) == (page.name in outputs["PAGES"]), page.name


def test_the_readmes_python_is_short() -> None:
    (block,) = [block for block in ALL_BLOCKS if block.page.name == "README.md" and block.language == "python"]
    assert len(block.code.splitlines()) <= 12


@pytest.mark.parametrize("page", ["api", "cli", "families", "glue", "quality", "speed"])
def test_pages_made_from_the_code_are_up_to_date(page, generate) -> None:
    written = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    assert getattr(generate, f"{page}_page")() == written, "run `make docs`"


@pytest.mark.parametrize("name", ["data-checks", "export", "understand"])
def test_tables_of_measurements_come_from_the_results(name, generate) -> None:
    page = ROOT / "docs" / f"{name}.md"
    assert generate.with_tables(page) == page.read_text(encoding="utf-8"), "run `make docs`"


@pytest.mark.parametrize("page", PAGES[:2], ids=lambda page: page.name)
def test_the_readmes_table_comes_from_the_results(page, generate) -> None:
    assert "MRPC" in generate.quality_table(*generate.READMES[page])
    assert generate.with_quality_table(page) == page.read_text(encoding="utf-8"), "run `make docs`"


@pytest.fixture
def generate():
    """docs/generate.py as a module."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)  # type: ignore[union-attr]
    return generate


def test_the_walks_through_the_house_name_what_is_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    walks = text[text.index("## Three call sequences") : text.index("## Decisions")]
    names = re.findall(r"`([a-z_]+(?:\.\w+)+)`", walks)
    assert len(names) > 30
    for name in names:
        thing, *inner = locate_module(f"ptune.{name}")
        for part in inner:
            thing = getattr(thing, part)


def locate_module(name: str) -> list[object]:
    """The module that a dotted name begins with, and the rest of the name."""
    parts = name.split(".")
    for length in range(len(parts), 1, -1):
        module = ".".join(parts[:length])
        if (ROOT / "src" / Path(*parts[:length])).with_suffix(".py").is_file():
            return [importlib.import_module(module), *parts[length:]]
    raise AssertionError(f"there is no module for {name}")


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


@pytest.mark.parametrize("translation", TRANSLATIONS, ids=lambda page: page.name)
def test_a_translation_says_the_same(translation) -> None:
    original = TRANSLATIONS[translation]
    chinese, english = (page.read_text(encoding="utf-8") for page in (translation, original))
    assert f"]({translation.name})" in english
    headings = re.compile(r"^(#+) ", flags=re.M)
    assert headings.findall(chinese) == headings.findall(english)
    assert [block.code for block in blocks_of(translation)] == [block.code for block in blocks_of(original)]
    for what in (r"\]\(([^)#]+)", r"`[^`\n]+`", r"\d[\d.,]*\d|\d"):  # links, code in a line, figures
        own, theirs = (
            sorted(re.findall(what, text.replace(translation.name, original.name))) for text in (chinese, english)
        )
        assert own == theirs, f"{what}: what stands in one page has to stand in the other"
