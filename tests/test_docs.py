"""The README does what it says, and pages made from the code are up to date."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from ptune.cli import main
from tests.conftest import review_rows, write_jsonl

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


@pytest.fixture
def here(backbone_folder, tmp_path, monkeypatch):
    """A folder in which the README's names stand for tiny local things."""
    pairs = [{"sentence1": row["text"], "sentence2": "a good film", "label": row["label"]} for row in review_rows(24)]
    (tmp_path / "glue-mrpc").mkdir()
    write_jsonl(tmp_path / "glue-mrpc" / "train.jsonl", pairs)
    write_jsonl(tmp_path / "glue-mrpc" / "validation.jsonl", pairs[:8])
    monkeypatch.chdir(tmp_path)
    names = {"glue/mrpc": "./glue-mrpc", "roberta-large": str(backbone_folder("roberta"))}

    def rename(text: str) -> str:
        for name, stand_in in names.items():
            text = text.replace(name, stand_in)
        return text

    return rename


def test_the_readmes_python_runs(here, capsys) -> None:
    (code,) = blocks(README, "python")
    assert len(code.strip().splitlines()) <= 12
    exec(compile(here(code).replace("epochs=10", "epochs=1"), "README.md", "exec"), {})
    assert "'label': '" in capsys.readouterr().out


def test_the_readmes_commands_run(here, capsys) -> None:
    commands = [line for block in blocks(README, "bash") for line in block.splitlines() if line.startswith("ptune ")]
    assert len(commands) >= 4
    for command in commands:
        arguments = shlex.split(here(command))[1:]
        main([*arguments, "--epochs", "1"] if arguments[0] == "train" else arguments)


@pytest.mark.filterwarnings("ignore:'pin_memory'")  # the Trainer's, on a machine without a GPU
def test_the_script_that_moves_over_from_peft_runs(here, monkeypatch, capsys) -> None:
    import datasets

    rows = [
        {"sentence1": row["text"], "sentence2": "a good film", "label": n % 2} for n, row in enumerate(review_rows(8))
    ]
    split = datasets.Dataset.from_list(rows)
    local = datasets.DatasetDict({"train": split, "validation": split})
    monkeypatch.setattr(datasets, "load_dataset", lambda *_: local)
    code = blocks((ROOT / "docs" / "peft.md").read_text(encoding="utf-8"), "python")[0]
    exec(compile(here(code).replace("max_length=492", "max_length=44"), "docs/peft.md", "exec"), {})
    assert "trainable params: " in capsys.readouterr().out
    assert Path("mrpc-adapter/adapter_config.json").exists()


def test_the_python_of_the_integrations_page_runs(here, monkeypatch, capsys) -> None:
    page = (ROOT / "docs" / "integrations.md").read_text(encoding="utf-8")
    lines = [f"{row['text']},{row['label']}" for row in review_rows(24)]
    Path("reviews.csv").write_text("\n".join(["text,label", *lines]), encoding="utf-8")
    code = "\n".join(blocks(page, "python")).replace("epochs=5", "epochs=1, device='cpu'")
    exec(compile(here(code), "integrations.md", "exec"), {})
    assert "'virtual_tokens': " in capsys.readouterr().out


@pytest.mark.parametrize("page", ["cli", "families", "quality"])
def test_pages_made_from_the_code_are_up_to_date(page, generate) -> None:
    written = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    assert getattr(generate, f"{page}_page")() == written, "run `make docs`"


def test_the_readmes_table_comes_from_the_results(generate) -> None:
    assert "MRPC" in generate.quality_table()
    assert generate.readme() == README, "run `make docs`"


@pytest.fixture
def generate():
    """docs/generate.py as a module."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)  # type: ignore[union-attr]
    return generate


def test_links_between_pages_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
