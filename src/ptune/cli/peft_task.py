"""Read an adapter; if PEFT wrote it, with the labels and the problem type that the options name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptune.cli.spelling import spell
from ptune.data.targets import ProblemType
from ptune.errors import ConfigError

if TYPE_CHECKING:
    from ptune.adapter.folder import AdapterFile


def read_with_task(
    adapter: str, backbone: str | None, labels: list[str] | None, problem_type: ProblemType | None
) -> AdapterFile:
    """Return an adapter with labels and problem type.

    Args:
        adapter: a folder or a Hub id.
        backbone: the backbone, whose configuration may name both.
        labels: a single value may list all names, separated by commas.

    Raises:
        ConfigError: an option does not suit the adapter.
        AdapterError: the adapter cannot be read.
        BackboneError: the backbone's configuration cannot be read.
    """
    from ptune.adapter.folder import read_adapter
    from ptune.adapter.peft_task import with_task

    if labels is not None and len(labels) == 1:
        labels = [name.strip() for name in labels[0].split(",")]
    try:
        return with_task(read_adapter(adapter), backbone, labels, problem_type)
    except ConfigError as err:  # only these commands have the option --labels
        raise ConfigError(spell(str(err), ("labels",)), field=err.field, value=err.value) from err
