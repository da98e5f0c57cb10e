"""Train for an output folder that is a URL.

A run keeps its checkpoint in its folder and reads it again, so it works in a folder on this machine. What others need
is copied to the URL at the end.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ptune.cli.terminal import Terminal
from ptune.errors import ConfigError
from ptune.launched import is_first
from ptune.places import Place, RemotePath


def check_resume(output: Place) -> None:
    """Check that the folder of a run that is to go on is on this machine.

    Raises:
        ConfigError: it is a URL.
    """
    if isinstance(output, RemotePath):
        raise ConfigError(
            f"`output='{output}'` is a URL, and a run goes on from the checkpoint in its folder, which is kept on the "
            "machine that trained it; give that folder, or leave `resume` out to train again",
            field="output",
            value=str(output),
            expected="a folder on this machine",
        )


@contextmanager
def local_folder(terminal: Terminal, output: Place) -> Iterator[Path]:
    """Yield the folder that a run works in: `output` itself or, for a URL, a new folder on this machine.

    When the block ends without an error, the run's files are copied to the URL and the new folder is removed. After
    an error the folder stays if it holds a checkpoint, and the message says how to go on.
    """
    if isinstance(output, Path):
        yield output
        return
    folder = Path(tempfile.mkdtemp(prefix="ptune-run-"))
    if not is_first():  # the first process writes everything
        folder.rmdir()
        yield folder
        return
    done = False
    try:
        terminal.say(f"the run works in '{folder}'; its files are copied to '{output}' at the end")
        yield folder
        _copy(folder, output)
        terminal.say(f"copied to '{output}'")
        done = True
    finally:
        if done or not _has_run(folder):
            shutil.rmtree(folder, ignore_errors=True)
        else:
            terminal.say(
                f"the run is in '{folder}': go on with ptune train --resume --output {folder}, and copy its adapter "
                f"with ptune export {folder} {output}"
            )


def check_remote(output: Place, overwrite: bool) -> None:
    """Check that a run may write to its output, if that is a URL, and can.

    Raises:
        ConfigError: there is an adapter at the URL that is not to be replaced.
        OutputError: the URL cannot be written to.
    """
    if isinstance(output, Path):
        return
    from ptune.adapter.target import check_target
    from ptune.atomic import try_folder

    check_target(output, overwrite)
    try_folder(output)


def _has_run(folder: Path) -> bool:
    from ptune.training.checkpoint import has_run

    return has_run(folder)


def _copy(folder: Path, output: RemotePath) -> None:
    """Copy a run without the files that it would go on from.

    The adapter's files go first, in the order in which they make it complete.
    """
    from ptune.adapter.layout import ADAPTER_FILES
    from ptune.atomic import write_files
    from ptune.training.checkpoint import RUN_FILES

    paths = [path for path in sorted(folder.iterdir()) if path.name not in RUN_FILES]
    files = {path.name: path for path in paths if path.is_file() and not path.name.startswith(".")}
    names = sorted(files, key=lambda name: ADAPTER_FILES.index(name) if name in ADAPTER_FILES else len(ADAPTER_FILES))
    stale = [name for name in ADAPTER_FILES if name not in files]
    write_files(output, {name: files[name].read_bytes() for name in names}, remove=stale)
    for inner in paths:
        if inner.is_dir():
            write_files(output / inner.name, {path.name: path.read_bytes() for path in sorted(inner.iterdir())})
