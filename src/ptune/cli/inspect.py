"""ptune inspect"""

from __future__ import annotations

from typing import Any

from ptune.cli.options import Adapter, Json
from ptune.cli.terminal import Terminal

_NOT_RECORDED = "not recorded by PEFT; as the backbone's configuration says, or by an option of predict and evaluate"


def inspect(adapter: Adapter, /, *, json: Json = False) -> None:
    """Show an adapter's method, backbone, labels, sizes and metrics, and whether PEFT can load it.

    If PEFT cannot, the reason and the options to train with are shown.

    The backbone is not needed.

    Examples:
      ptune inspect mrpc
      ptune inspect from-peft --json
    """
    from ptune.adapter.folder import read_adapter
    from ptune.adapter.peft_reasons import describe_reasons, why_not_peft
    from ptune.cli.options import SETTINGS
    from ptune.cli.spelling import spell
    from ptune.data.targets import default_labels

    terminal = Terminal(json)
    file = read_adapter(adapter)
    record = file.record
    facts: dict[str, Any] = {
        "method": record.prompt.method,
        "backbone": record.backbone.name,
        "problem_type": None if file.by_peft else record.problem_type,
        "labels": None if file.by_peft else record.labels or default_labels(record.classes),
        "virtual_tokens": record.prompt.virtual_tokens,
        "pooling": record.prompt.pooling,
        "softmax": record.prompt.softmax,
        "members": record.members,
        "temperature": record.temperature,
        "thresholds": dict(zip(record.labels or [], record.thresholds or [], strict=False)),
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
        unknown = file.by_peft and name in ("problem_type", "labels")
        terminal.say(f"{name:15} {_NOT_RECORDED if unknown else _format(value)}")
    reasons = why_not_peft(file)
    if reasons:
        terminal.say(f"{'':15} {spell(describe_reasons(reasons), SETTINGS)}")
    terminal.answer({**facts, "peft_reasons": [reason.text for reason in reasons]})


def _format(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_format(item)}" for key, item in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(str, value[:12])) + (f", … ({len(value)})" if len(value) > 12 else "")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return "none" if value is None else str(value)
