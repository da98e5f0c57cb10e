"""Read an adapter; if PEFT wrote it, with the labels and the problem type that the options name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ptune.cli.spelling import spell
from ptune.data.targets import ProblemType
from ptune.errors import ConfigError, DataError

if TYPE_CHECKING:
    from ptune.adapter.folder import AdapterFile
    from ptune.data.splits import TextData


def read_with_task(
    adapter: str | AdapterFile, backbone: str | None, labels: list[str] | None, problem_type: ProblemType | None
) -> AdapterFile:
    """Return an adapter with labels and problem type.

    Args:
        adapter: a folder, a Hub id, or an adapter that was read already.
        backbone: the backbone, whose configuration may name both.
        labels: a single value may list all names, separated by commas.

    Raises:
        ConfigError: an option does not suit the adapter.
        AdapterError: the adapter cannot be read.
        BackboneError: the backbone's configuration cannot be read.
    """
    from ptune.adapter.folder import AdapterFile, read_adapter
    from ptune.adapter.peft_task import with_task

    if labels is not None and len(labels) == 1:
        labels = [name.strip() for name in labels[0].split(",")]
    try:
        file = adapter if isinstance(adapter, AdapterFile) else read_adapter(adapter)
        return with_task(file, backbone, labels, problem_type)
    except ConfigError as err:  # only these commands have the option --labels
        raise ConfigError(spell(str(err), ("labels",)), field=err.field, value=err.value) from err


def read_labelled(file: AdapterFile, data: str, split: str, columns: dict[str, Any], *, named: bool) -> TextData:
    """Read labelled rows for an adapter; see `load_evaluation_data`.

    Args:
        file: the adapter, with labels and problem type.
        data: where the rows are.
        split: the split to read.
        columns: the other arguments of `load_evaluation_data`.
        named: whether --labels was given.

    Raises:
        DataError: the data cannot be read, or their labels are not those of the adapter.
    """
    from ptune.evaluation.evaluate import load_evaluation_data

    try:
        return load_evaluation_data(file.record, data, split, **columns)
    except DataError as err:
        if named or not file.nameless:
            raise
        raise DataError(
            f"{err}. If labels are the cause: the adapter records no names for them; name them in index order with "
            "--labels"
        ) from err
