"""Read folders that `datasets` wrote with `save_to_disk`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ptune.errors import DataError
from ptune.places import Place


def is_saved(folder: Place) -> bool:
    """Return whether a folder holds a data set that was saved with `save_to_disk`."""
    return isinstance(folder, Path) and any((folder / name).is_file() for name in ("dataset_dict.json", "state.json"))


def load_saved(folder: Place, only: str | None) -> Mapping[str, Any]:
    """Return the splits of a saved data set. One without splits is the split `only`, or train.

    Raises:
        DataError: the folder is damaged.
    """
    import datasets

    try:
        loaded = datasets.load_from_disk(str(folder))
    except Exception as err:  # the library raises errors of many kinds
        reason = " ".join(str(err).split())
        raise DataError(f"data '{folder}' is not a complete data set of `save_to_disk`: {reason}") from err
    return loaded if isinstance(loaded, dict) else {only or "train": loaded}
