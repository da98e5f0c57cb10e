"""Layers import downwards only, and help loads nothing heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import ptune

ROOT = Path(ptune.__file__).parent
# From bottom to top. A module may import from its own layer and from those before it.
LAYERS = (
    "errors",
    "version",
    "launched",
    "durations",
    "processes",
    "hub",
    "cache",
    "extras",
    "places",
    "atomic",
    "settings_file",
    "settings_model",
    "data",
    "model",
    "backends",
    "adapter",
    "inference",
    "export",
    "evaluation",
    "analysis",
    "pages",
    "training",
    "report",
    "compat",
    "serving",
    "scale",
    "cli",
)


def module_name(path: Path) -> str:
    """The dotted name of a module's file; of a package its own."""
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in ROOT.rglob("*.py")}


def imports_of(path: Path) -> set[str]:
    """Modules of ptune that a file imports, anywhere in it: at the top, inside a function, or for types alone."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in MODULES else node.module for name in inner}
    return names & MODULES.keys()


def layer_of(module: str) -> str:
    return module.split(".")[1]


def test_every_module_belongs_to_a_layer() -> None:
    assert {layer_of(module) for module in MODULES if "." in module} - {"__main__"} == set(LAYERS)


def test_layers_import_downwards_only() -> None:
    wrong = [
        f"{module} imports {target}"
        for module, path in MODULES.items()
        if "." in module and layer_of(module) in LAYERS
        for target in imports_of(path)
        if target == "ptune" or LAYERS.index(layer_of(target)) > LAYERS.index(layer_of(module))
    ]
    assert wrong == []


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = {module: imports_of(path) for module, path in MODULES.items()}
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as err:
        pytest.fail(" -> ".join(err.args[1]))
    assert set(order) == MODULES.keys()


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
