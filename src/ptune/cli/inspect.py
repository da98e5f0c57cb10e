"""ptune inspect"""

from __future__ import annotations

from typing import Any

from ptune.cli.options import Json, Place
from ptune.cli.terminal import Terminal


def inspect(adapter: Place, /, *, json: Json = False) -> None:
    """Say what an adapter is: method, backbone, labels, sizes, metrics, and whether PEFT reads it.

    Reads no weights, and needs no backbone.

    Examples:
      ptune inspect mrpc
      ptune inspect from-peft --json

    Parameters
    ----------
    adapter
        Folder of an adapter, ptune's or PEFT's; or a Hub id, OWNER/NAME or OWNER/NAME@REVISION.
    """
    from ptune.adapter.folder import read_adapter
    from ptune.data.targets import default_labels

    terminal = Terminal(json)
    file = read_adapter(adapter)
    record = file.record
    facts: dict[str, Any] = {
        "method": record.prompt.method,
        "backbone": record.backbone.name,
        "problem_type": record.problem_type,
        "labels": record.labels or default_labels(record.classes),
        "virtual_tokens": record.prompt.virtual_tokens,
        "pooling": record.prompt.pooling,
        "softmax": record.prompt.softmax,
        "members": record.members,
        "temperature": record.temperature,
        "head": record.prompt.head,
        "template": record.prompt.template,
        "max_length": record.max_length,
        "parameters": file.parameters,
        "bytes": file.bytes,
        "metrics": record.metrics,
        "training": record.training,
        "versions": record.versions,
        "peft": file.peft,
    }
    for name, value in facts.items():
        terminal.say(f"{name:15} {_show(value)}")
    terminal.answer(facts)


def _show(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_show(part)}" for key, part in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(str, value[:12])) + (f", … ({len(value)})" if len(value) > 12 else "")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return "none" if value is None else str(value)
