"""Layers import downwards only, and help loads nothing heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import ptune

ROOT = Path(ptune.__file__).parent
# From bottom to top. A module may import from its own layer and from those before it.
LAYERS = (
    "errors",
    "atomic",
    "hub",
    "data",
    "model",
    "adapter",
    "calibration",
    "metrics",
    "pipeline",
    "predict",
    "training",
    "compat",
    "cli",
)


def imports_of(path: Path) -> set[str]:
    """Top-level parts of ptune that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ptune."):
            found.add(str(node.module).split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("ptune.")}
    return found


def layer_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def test_every_module_belongs_to_a_layer() -> None:
    names = {layer_of(path) for path in ROOT.rglob("*.py")} - {"__init__", "__main__"}
    assert names == set(LAYERS)


def test_layers_import_downwards_only() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports ptune.{target}"
        for path in ROOT.rglob("*.py")
        if layer_of(path) in LAYERS
        for target in imports_of(path)
        if LAYERS.index(target) > LAYERS.index(layer_of(path))
    ]
    assert wrong == []


def test_peft_is_never_imported_by_the_library() -> None:
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            module = node.module if isinstance(node, ast.ImportFrom) else None
            assert "peft" not in {str(name).split(".")[0] for name in [*names, module]}, path


def test_help_and_a_wrong_option_load_no_heavy_library() -> None:
    heavy = "{'torch', 'transformers', 'datasets', 'sklearn', 'pyarrow', 'numpy'}"
    program = f"""
import sys
from ptune.cli import main
for arguments in (["--help"], ["train", "--help"], ["train", "--no-such-option"]):
    try:
        main(arguments)
    except SystemExit:
        pass
loaded = {heavy} & set(sys.modules)
sys.exit(f"loaded: {{loaded}}" if loaded else 0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_first_step_of_training_loads_no_library_that_it_does_not_need(backbone_folder, reviews, tmp_path) -> None:
    program = """
import sys
from ptune.cli import main
from ptune.training.steps import Steps

take = Steps.take

def take_one(self, *arguments):
    take(self, *arguments)
    loaded = {"sklearn", "datasets", "pandas", "pyarrow", "matplotlib", "peft", "gguf"} & set(sys.modules)
    sys.exit(f"loaded: {loaded}" if loaded else 17)

Steps.take = take_one
main(["train", *sys.argv[1:]])
"""
    arguments = ["--backbone", backbone_folder("bert"), "--data", reviews, "--output", tmp_path]
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 17, done.stderr


def test_public_names_are_there_and_documented() -> None:
    for name in ptune.__all__:
        thing = getattr(ptune, name)
        assert name == "__version__" or thing.__doc__
