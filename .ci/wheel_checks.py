"""What is in the wheel and the source archive of a folder, and whether the installed package has all its names.

    python wheel_checks.py dist

Runs in the environment that the wheel was installed into, where nothing but it and its dependencies is.
"""

from __future__ import annotations

import sys
import tarfile
import zipfile
from importlib.metadata import metadata
from pathlib import Path

import ptune

(wheel,), (archive,) = (list(Path(sys.argv[1]).glob(pattern)) for pattern in ("*.whl", "*.tar.gz"))
inside = zipfile.ZipFile(wheel).namelist()
with tarfile.open(archive) as file:
    source = [name.partition("/")[2] for name in file.getnames()]

modules = {name.removeprefix("src/") for name in source if name.startswith("src/ptune/") and name.endswith(".py")}
assert modules <= set(inside), f"not in the wheel: {modules - set(inside)}"
assert "ptune/py.typed" in inside, "without py.typed no type checker reads the package's types"
assert any(name.endswith(".dist-info/licenses/LICENSE") for name in inside), "the licence is missing"
other = {name for name in inside if name.split("/")[0] != "ptune" and ".dist-info/" not in name}
assert not other, f"these do not belong into the wheel: {other}"
assert {"pyproject.toml", "README.md", "LICENSE"} <= set(source), "the source archive cannot be built"

assert Path(sys.prefix) in Path(ptune.__file__).parents, f"ptune came from {ptune.__file__}, not from the wheel"
assert metadata("ptune")["Version"] == ptune.__version__
for name in ptune.__all__:
    getattr(ptune, name)
print(f"{wheel.name}: {len(inside)} files, {len(ptune.__all__)} public names")
