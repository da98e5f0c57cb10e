"""Settle what PEFT's files do not record about a task: what the outputs mean, and the names of the labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

from pydantic import ValidationError

from ptune.adapter.folder import AdapterFile
from ptune.adapter.layout import Record
from ptune.data.targets import MULTI, REGRESSION, SINGLE, ProblemType, default_labels, named_labels
from ptune.errors import AdapterError, ConfigError, describe_problems, short
from ptune.model.backbone import Backbone
from ptune.model.checks import check_labels
from ptune.model.loading import read_config

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def with_task(
    file: AdapterFile,
    backbone: str | Backbone | None = None,
    labels: Sequence[str] | None = None,
    problem_type: ProblemType | None = None,
) -> AdapterFile:
    """Return an adapter with labels and a problem type. Adapters that PEFT wrote lack them.

    An adapter whose labels are LABEL_0, LABEL_1, ... has no names either, so it takes those that are given.

    What is not given is looked up in the backbone's configuration, where transformers looks it up too. Without a word
    there, one output is a regression, and several are classes of which one applies.

    Args:
        file: the adapter.
        backbone: a name or a loaded backbone. None: the one that the adapter names.
        labels: names of the labels in index order.
        problem_type: what the outputs mean.

    Raises:
        ConfigError: `labels` or `problem_type` does not suit the number of outputs, or the adapter records another.
        AdapterError: the outputs are several numbers of a regression.
        BackboneError: the backbone's configuration cannot be read.
    """
    labels = None if labels is None else named_labels(labels)
    record = file.record
    if not file.by_peft or record.labels is not None:
        nameless = record.labels == default_labels(record.classes)
        _check_recorded(file, None if nameless else labels, problem_type)
        if labels is None or not nameless:
            return file
        settled, names = record.problem_type, labels
    else:
        config = _config_of(record, backbone) if labels is None or problem_type is None else None
        settled = problem_type or _problem_type(config, file)
        names = labels if labels is not None else labels_from(config, record.classes)
    if settled not in get_args(ProblemType):
        check_labels(["label"], settled)  # raises the error
    if labels is not None and len(labels) != record.classes:
        raise ConfigError(
            f"`labels` names {len(labels)} labels, but adapter '{file.folder}' has {record.classes} outputs; give a "
            "name for each, in index order",
            field="labels",
            value=labels,
            expected=f"{record.classes} names",
        )
    names = check_labels(names, settled)
    try:
        settled_record = Record.model_validate({**record.model_dump(), "labels": names, "problem_type": settled})
    except ValidationError as err:
        raise ConfigError(f"adapter '{file.folder}': {describe_problems(err)}") from err
    return replace(file, record=settled_record)


def labels_from(config: PretrainedConfig | None, classes: int) -> list[str]:
    """Return the label names in a backbone's configuration, or LABEL_0, LABEL_1, ... if it has none for `classes`."""
    names = dict(getattr(config, "id2label", None) or {})
    if len(names) == classes and all(index in names for index in range(classes)):
        return [str(names[index]) for index in range(classes)]
    return default_labels(classes)


def _check_recorded(file: AdapterFile, labels: Sequence[str] | None, problem_type: ProblemType | None) -> None:
    """Check that what was asked for is what an adapter records."""
    record = file.record
    given: tuple[tuple[str, Any, Any], ...] = (
        ("labels", None if labels is None else list(labels), record.labels),
        ("problem_type", problem_type, record.problem_type),
    )
    for name, asked, recorded in given:
        if asked is not None and asked != recorded:
            raise ConfigError(
                f"adapter '{file.folder}' records its own `{name}`, {short(recorded)}; leave `{name}` out, which is "
                "for adapters of PEFT",
                field=name,
                value=asked,
                expected=short(recorded),
            )


def _config_of(record: Record, backbone: str | Backbone | None) -> PretrainedConfig | None:
    """Return the configuration of a backbone without loading its weights; None if the adapter names no backbone."""
    if isinstance(backbone, Backbone):
        return backbone.config
    name = backbone or record.backbone.name
    if not name:
        return None
    return read_config(name, record.backbone.revision if name == record.backbone.name else None)


def _problem_type(config: PretrainedConfig | None, file: AdapterFile) -> ProblemType:
    """Return the problem type that transformers would assume before it has seen a label."""
    named = getattr(config, "problem_type", None)
    if named == REGRESSION and file.record.classes > 1:
        raise AdapterError(
            f"adapter '{file.folder}' gives {file.record.classes} numbers, because the backbone's configuration says "
            f"problem_type '{REGRESSION}'; ptune gives one number. If the outputs are classes, set "
            f"`problem_type='{SINGLE}'` or `problem_type='{MULTI}'`"
        )
    return named or file.record.problem_type
