"""The model card of an adapter, README.md: its record as text for people and as metadata for the Hub.

The metadata follow https://github.com/huggingface/hub-docs/blob/main/modelcard.md. Unknown entries are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ptune.adapter.folder import AdapterFile
from ptune.adapter.layout import BackboneNote, Record
from ptune.data.metric_table import Metric, metrics_of
from ptune.data.targets import MULTI, REGRESSION, SINGLE, ProblemType, default_labels
from ptune.errors import BackboneError
from ptune.model.locate import Location, locate

CARD_FILE = "README.md"

_TAGS = {"deep": "prefix-tuning", "p-tuning": "p-tuning", "prompt-tuning": "prompt-tuning"}
_ANSWERS: dict[ProblemType, str] = {
    SINGLE: "one of {} labels",
    MULTI: "any number of {} labels",
    REGRESSION: "a number",
}
_LICENCE_KEYS = ("license", "license_name", "license_link")  # in a card's metadata
_NOT_IN_TYPE = re.compile(r"[^\w.-]+")  # characters that the metadata allow in no data set type


def write_card(file: AdapterFile, repository: str) -> str:
    """Return the model card of an adapter, as Markdown with metadata.

    Args:
        file: the adapter.
        repository: its name on the Hub, `owner/name`.
    """
    from huggingface_hub import ModelCard, ModelCardData

    record, location = file.record, _locate_backbone(file.record.backbone)
    on_hub = location is not None and not location.local
    data = record.data if record.data is not None and record.data.hub else None
    metadata = ModelCardData(
        base_model=record.backbone.name if on_hub else None,
        datasets=[data.name] if data else None,
        library_name="ptune",
        model_name=repository.split("/")[-1],
        pipeline_tag="text-classification",
        tags=["ptune", _TAGS[record.prompt.method or "deep"], *(["peft"] if file.peft else [])],
        eval_results=_eval_results(record) or None,
        **_licence(location, record.backbone),
    )
    backbone = _public_name(record.backbone, location)
    sections = [
        _summary(file, repository, backbone),
        _use(record, repository, backbone, public=location is not None and (on_hub or location.packaged)),
        *([_use_in_peft(record, repository, backbone)] if file.peft else []),
        _labels(record),
        *([_metrics(record)] if record.metrics else []),
        _settings(record),
    ]
    return str(ModelCard(f"---\n{metadata.to_yaml()}\n---\n\n" + "\n".join(sections)))


def write_peft_notes(file: AdapterFile, name: str) -> str:
    """Return how to use an adapter that was exported for PEFT, as Markdown.

    Args:
        file: the adapter.
        name: of the folder that it is exported to.
    """
    record = file.record
    backbone = _public_name(record.backbone, _locate_backbone(record.backbone))
    title = f"# {name}\n\nA prompt for `{backbone}`, trained and exported by ptune. The files are PEFT's.\n"
    return "\n".join([title, _use_in_peft(record, name, backbone), _labels(record)])


def _locate_backbone(note: BackboneNote) -> Location | None:
    """Return where the backbone is, or None if the adapter does not say or the backbone is gone."""
    try:
        return locate(note.name) if note.name else None
    except BackboneError:
        return None


def _public_name(note: BackboneNote, location: Location | None) -> str:
    """Return the backbone's name as others may see it: only the last part of a local path."""
    if note.name is None:
        return "BACKBONE"
    return note.name if location is not None and (not location.local or location.packaged) else Path(note.name).name


def _licence(location: Location | None, note: BackboneNote) -> dict[str, Any]:
    """Return the licence in the backbone's model card, if there is one.

    The adapter cannot be used without the backbone, so the backbone's licence applies to it as well.
    """
    from huggingface_hub import ModelCard, hf_hub_download
    from huggingface_hub.errors import HTTPError
    from yaml import YAMLError

    if location is None:
        return {}
    try:
        if location.local:
            card = Path(location.path) / CARD_FILE
        else:
            card = Path(hf_hub_download(location.path, CARD_FILE, revision=note.revision))
        metadata = ModelCard.load(card, ignore_metadata_errors=True).data.to_dict()
    except (HTTPError, OSError, ValueError, YAMLError):
        return {}
    return {name: metadata[name] for name in _LICENCE_KEYS if metadata.get(name)}


def _eval_results(record: Record) -> list[Any]:
    """Return the record's metrics as huggingface_hub's `EvalResult`s."""
    from huggingface_hub import EvalResult

    data, table = record.data, metrics_of(record.problem_type)
    source = data.name if data else "validation rows"
    return [
        EvalResult(
            task_type="text-classification",
            task_name="Text classification",
            dataset_type=source if data and data.hub else _NOT_IN_TYPE.sub("-", source).strip("-") or "data",
            dataset_name=f"{source}, {data.configuration}" if data and data.configuration else source,
            dataset_config=data.configuration if data else None,
            dataset_revision=data.revision if data else None,
            dataset_split="validation",
            metric_type=table[name].hub_name,
            metric_name=_titled(table[name]),
            metric_value=round(value, 4),
        )
        for name, value in record.metrics.items()
        if name in table
    ]


def _titled(metric: Metric) -> str:
    """Return a metric's title with a capital letter."""
    return metric.title[0].upper() + metric.title[1:]


def _summary(file: AdapterFile, repository: str, backbone: str) -> str:
    record = file.record
    answer = _ANSWERS[record.problem_type].format(record.classes)
    prompts = f"{record.members} prompts" if record.members > 1 else "a prompt"
    return f"""# {repository.split("/")[-1]}

This adapter answers each text with {answer}. It consists of {prompts} of {record.prompt.virtual_tokens} virtual tokens
(method `{record.prompt.method}`) and a head, learned by P-tuning: {file.parameters:,} parameters for the frozen model
`{backbone}`, which is not changed.
"""


def _use(record: Record, repository: str, backbone: str, public: bool) -> str:
    """Return the section on loading the adapter. Unless the backbone is public, readers have to name their copy."""
    pair = record.columns.get("text_pair")
    texts = '("a text", "its second text")' if pair else '"a text"'
    options = '--text "a text" --text-pair "its second text"' if pair else '--text "a text"'
    argument, option = ("", "") if public else (f', backbone="{backbone}"', f' --backbone "{backbone}"')
    note = "" if public else f"\n`{backbone}` was a local folder of the author: replace it by the path of your copy.\n"
    return f"""## Use
{note}
```python
import ptune

classifier = ptune.load("{repository}"{argument})
print(classifier.predict({texts}))
```

```bash
ptune predict {repository}{option} {options}
```
"""


def _use_in_peft(record: Record, repository: str, backbone: str) -> str:
    template = " Put the texts into the template below yourself." if record.prompt.template else ""
    temperature = f" Divide logits by {record.temperature:.4g} before the softmax." if record.temperature != 1 else ""
    return f"""PEFT can load it.{template}{temperature}

```python
from peft import PeftModel
from transformers import AutoModelForSequenceClassification

model = AutoModelForSequenceClassification.from_pretrained("{backbone}", num_labels={record.classes})
model = PeftModel.from_pretrained(model, "{repository}")
```
"""


def _labels(record: Record) -> str:
    if record.problem_type == REGRESSION:
        return f"## Answer\n\nThe answer is a number: {_cell((record.labels or ['value'])[0])}.\n"
    names = record.labels or default_labels(record.classes)
    if not record.thresholds:
        return "## Labels\n\n" + _table(("index", "label"), enumerate(names))
    rows = [(index, *row) for index, row in enumerate(zip(names, record.thresholds, strict=True))]
    also = " If none is, the most probable label applies." if record.at_least_one else ""
    return f"## Labels\n\nA label applies if its probability is above its threshold.{also}\n\n" + _table(
        ("index", "label", "threshold"), rows
    )


def _metrics(record: Record) -> str:
    table = metrics_of(record.problem_type)
    # Metrics that are not in the table are the author's own.
    titles = {name: _titled(table[name]) if name in table else f"`{name}`" for name in record.metrics}
    shown = [name for name in record.metrics if name not in ("count", "ece_raw")]
    metrics = [(titles[name], f"{record.metrics[name]:.4f}") for name in shown]
    rows = record.metrics.get("count")
    measured_on = f"{rows} validation rows" if rows else "the validation rows"
    source = f" of {_cell(record.data.name)}" if record.data else ""
    text = (
        f"## Metrics\n\nMeasured on {measured_on}{source}. The same rows were used to choose the best epoch.\n\n"
        + _table(("metric", "value"), metrics)
    )
    if record.problem_type != SINGLE or "ece_raw" not in record.metrics:
        return text
    return text + (
        f"\nProbabilities are calibrated: logits are divided by the temperature {record.temperature:.4g}, fitted on\n"
        f"the same rows. The expected calibration error is {record.metrics['ece']:.4f} with it and "
        f"{record.metrics['ece_raw']:.4f} without.\n"
    )


def _settings(record: Record) -> str:
    settings = {**record.prompt.model_dump(), "max_length": record.max_length, **record.training}
    rows = [(f"`{name}`", value) for name, value in settings.items() if value is not None]
    return (
        "## Settings\n\n"
        + _table(("setting", "value"), rows)
        + ("\n## Versions\n\n" + _table(("package", "version"), record.versions.items()) if record.versions else "")
    )


def _table(heads: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> str:
    lines = [heads, ["---"] * len(heads), *([_cell(cell) for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(value: Any) -> str:
    """Return a value as text for a table cell, with pipes, line breaks and HTML made harmless."""
    text = " ".join(str(value).split())
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
