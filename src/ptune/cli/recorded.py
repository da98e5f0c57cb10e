"""The options of a run, in its output folder, so that `ptune train --resume --output FOLDER` is enough to go on.

The file has the form of a file for `--config`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from ptune.cli.options import DataOptions
from ptune.cli.spelling import option
from ptune.errors import ConfigError, DataError
from ptune.hub import expanded
from ptune.places import Place
from ptune.settings_file import parse_file

if TYPE_CHECKING:
    from ptune.adapter.layout import Record
    from ptune.data.splits import TextData

OPTIONS_FILE = "options.json"
# Options that may change in the middle of a run. Whether backbone and rows are still the same is seen by themselves.
_MAY_CHANGE = {
    "backbone",
    "data",
    "data_revision",
    "revision",
    "report_to",
    "report",
    "device",
    "checkpoint_steps",
    "time_limit",
}
_MAY_CHANGE |= {"gradient_checkpointing", "shard"}


def options_of(backbone: str, data: str, report_to: str, report: bool, models: Sequence[BaseModel]) -> dict[str, Any]:
    """Return the options of a run by name, without those that have their default.

    Places on this machine become absolute paths, so that a run can be resumed from another folder.
    """
    places = {"backbone": absolute(backbone), "data": absolute(data)}
    # Standard input is read only once.
    options: dict[str, Any] = {name: place for name, place in places.items() if place != "-"}
    if report_to != "none":
        options["report_to"] = report_to
    if not report:
        options["report"] = False
    for model in models:
        options |= model.model_dump(mode="json", exclude_defaults=True)
    return options


def write_options(folder: Path, options: Mapping[str, Any]) -> None:
    """Write the options of a run to its folder.

    Raises:
        OutputError: the file cannot be written.
    """
    from ptune.atomic import write_files

    write_files(folder, {OPTIONS_FILE: (json.dumps(options, indent=2, ensure_ascii=False) + "\n").encode()})


def check_unchanged(folder: Path, options: Mapping[str, Any]) -> None:
    """Check that a run is resumed with the options that it was begun with.

    Raises:
        ConfigError: an option has another value. The message names each with both values.
    """
    path = folder / OPTIONS_FILE
    if not path.is_file():
        return  # a run that was not begun on the command line
    before = json.loads(path.read_text(encoding="utf-8"))  # it has been checked like any file for --config
    before = {name.replace("-", "_"): value for name, value in before.items()}
    changed = [
        f"{option(name)} {_shown(before, name)} and {_shown(options, name, now=True)}"
        for name in sorted(before.keys() | options.keys())
        if name not in _MAY_CHANGE and before.get(name) != options.get(name)
    ]
    if changed:
        raise ConfigError(
            f"the run in '{folder}' cannot be resumed with other options: {', '.join(changed)}; repeat the original "
            "ones, give only --resume and --output, or train without --resume"
        )


def check_given(folder: Place, missing: Sequence[str]) -> None:
    """Check that a run that is to be resumed has all the options it needs.

    Args:
        folder: the folder of the run.
        missing: options that are needed, and that were not given.

    Raises:
        ConfigError: options are missing, and the folder does not hold them either.
    """
    if missing and not folder.is_dir():
        raise ConfigError(f"there is no folder '{folder}', so there is no run to resume; check the name")
    if missing and not (folder / OPTIONS_FILE).is_file():
        raise ConfigError(
            f"there is no {OPTIONS_FILE} in '{folder}', so --resume does not know the options of the run; give "
            + " and ".join(map(option, missing))
            + " too, or check the folder's name"
        )


def _shown(options: Mapping[str, Any], name: str, now: bool = False) -> str:
    if name not in options:
        return "is not given now" if now else "was not given"
    return f"{'is now' if now else 'was'} {options[name]!r}"


def absolute(place: str) -> str:
    """Return the absolute path of a place on this machine, and anything else unchanged."""
    path = expanded(place)
    return str(path.resolve()) if path.exists() else place


def check_same_run(folder: Place, record: Record, data: TextData, seed: int) -> None:
    """Check that the options in a folder are those of the run that wrote the adapter in it.

    They are not if a run that is to replace the adapter has begun, and has not written one yet.

    Args:
        folder: the folder of the run.
        record: the adapter's record.
        data: what was read with the options.
        seed: the seed among the options.

    Raises:
        ConfigError: they are another run's.
    """
    trained = (None if record.data is None else record.data.name, record.training.get("seed"))
    now = (None if data.origin is None else data.origin.name, seed)
    pairs = zip(trained, now, strict=True)
    if any(before is not None and after is not None and before != after for before, after in pairs):
        raise ConfigError(
            f"{OPTIONS_FILE} in '{folder}' is that of a run on '{now[0]}' with seed {seed}, but the adapter there was "
            f"trained on '{trained[0]}' with seed {trained[1]}; finish that run, or name labelled rows with --data"
        )


def load_recorded(folder: Place, options: Mapping[str, Any]) -> TextData:
    """Return the data of a run, read as in its training.

    Args:
        folder: of the run.
        options: from `data_options`.

    Raises:
        DataError: they cannot be read.
    """
    from ptune.data.load import load_data

    try:
        return load_data(**options)
    except DataError as err:
        raise DataError(
            f"the data that '{folder}' was trained on: {err}. Other labelled rows can be named with --data"
        ) from err


def data_options(folder: Place) -> dict[str, Any] | None:
    """Return the arguments with which `load_data` reads the data of a run as in its training.

    None if the folder does not say on which data the run was trained.

    Raises:
        ConfigError: the file that says it is damaged.
    """
    path = folder / OPTIONS_FILE
    if not path.is_file():
        return None
    content = parse_file(path, "file")
    if not isinstance(content, dict):
        raise ConfigError(f"file '{path}' holds no options; a run writes it when it begins")
    options = {name.replace("-", "_"): value for name, value in content.items()}
    if "data" not in options:
        return None
    known = {name: value for name, value in options.items() if name in DataOptions.model_fields}
    known["revision"] = known.pop("data_revision", None)
    return {"source": options["data"], "seed": options.get("seed", 0), **known}
