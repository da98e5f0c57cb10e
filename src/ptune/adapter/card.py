"""The model card of an adapter, README.md: what its record says, for people and in the Hub's metadata.

The metadata follow https://github.com/huggingface/hub-docs/blob/main/modelcard.md. What is not known is left out.
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
_LICENCE = ("license", "license_name", "license_link")  # as a card's metadata have it
_NO_TYPE = re.compile(r"[^\w.-]+")  # what may not stand in the metadata's type of a data set


def write_card(file: AdapterFile, repository: str) -> str:
    """The card of an adapter that is published as `repository`."""
    from huggingface_hub import ModelCard, ModelCardData

    record, place = file.record, _place(file.record.backbone)
    on_hub = place is not None and not place.local
    data = record.data if record.data is not None and record.data.hub else None
    metadata = ModelCardData(
        base_model=record.backbone.name if on_hub else None,
        datasets=[data.name] if data else None,
        library_name="ptune",
        model_name=repository.split("/")[-1],
        pipeline_tag="text-classification",
        tags=["ptune", _TAGS[record.prompt.method or "deep"], *(["peft"] if file.peft else [])],
        eval_results=_eval_results(record) or None,
        **_licence(place, record.backbone),
    )
    backbone = _shown(record.backbone, place)
    parts = [
        _summary(file, repository, backbone),
        _use(record, repository, backbone, found=place is not None and (on_hub or place.packaged)),
        *([_use_in_peft(record, repository, backbone)] if file.peft else []),
        _labels(record),
        *([_metrics(record)] if record.metrics else []),
        _settings(record),
    ]
    return str(ModelCard(f"---\n{metadata.to_yaml()}\n---\n\n" + "\n".join(parts)))


def _place(note: BackboneNote) -> Location | None:
    """Where the backbone is; None where it is not known, or not here any more."""
    try:
        return locate(note.name) if note.name else None
    except BackboneError:
        return None


def _shown(note: BackboneNote, place: Location | None) -> str:
    """The backbone's name for others: of a folder without the way to it."""
    if note.name is None:
        return "BACKBONE"
    return note.name if place is not None and (not place.local or place.packaged) else Path(note.name).name


def _licence(place: Location | None, note: BackboneNote) -> dict[str, Any]:
    """The backbone's licence, where its own card says it: the adapter is of no use without it."""
    from huggingface_hub import ModelCard, hf_hub_download
    from huggingface_hub.errors import HTTPError
    from yaml import YAMLError

    if place is None:
        return {}
    try:
        if place.local:
            card = Path(place.path) / CARD_FILE
        else:
            card = Path(hf_hub_download(place.path, CARD_FILE, revision=note.revision))
        metadata = ModelCard.load(card, ignore_metadata_errors=True).data.to_dict()
    except (HTTPError, OSError, ValueError, YAMLError):
        return {}
    return {name: metadata[name] for name in _LICENCE if metadata.get(name)}


def _eval_results(record: Record) -> list[Any]:
    from huggingface_hub import EvalResult

    data, table = record.data, metrics_of(record.problem_type)
    source = data.name if data else "validation rows"
    return [
        EvalResult(
            task_type="text-classification",
            task_name="Text classification",
            dataset_type=source if data and data.hub else _NO_TYPE.sub("-", source).strip("-") or "data",
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
    """Return a metric's title at the beginning of a line."""
    return metric.title[0].upper() + metric.title[1:]


def _summary(file: AdapterFile, repository: str, backbone: str) -> str:
    record = file.record
    answer = _ANSWERS[record.problem_type].format(record.classes)
    prompts = f"{record.members} prompts" if record.members > 1 else "a prompt"
    return f"""# {repository.split("/")[-1]}

Answers a text with {answer}. It is {prompts} of {record.prompt.virtual_tokens} virtual tokens
(method `{record.prompt.method}`) and a head, learned by P-tuning: {file.parameters:,} numbers for the frozen model
`{backbone}`, which stays as it is.
"""


def _use(record: Record, repository: str, backbone: str, found: bool) -> str:
    pair = record.columns.get("text_pair")
    texts = '("a text", "its second text")' if pair else '"a text"'
    options = '--text "a text" --text-pair "its second text"' if pair else '--text "a text"'
    named, option = ("", "") if found else (f', backbone="{backbone}"', f' --backbone "{backbone}"')
    note = (
        "" if found else f"\n`{backbone}` was a folder of the author's: put in its place where the model is with you.\n"
    )
    return f"""## Use
{note}
```python
import ptune

classifier = ptune.load("{repository}"{named})
print(classifier.predict({texts}))
```

```bash
ptune predict {repository}{option} {options}
```
"""


def _use_in_peft(record: Record, repository: str, backbone: str) -> str:
    template = " Write the template below around texts yourself." if record.prompt.template else ""
    warmth = f" Divide logits by {record.temperature:.4g} before the softmax." if record.temperature != 1 else ""
    return f"""PEFT reads it too.{template}{warmth}

```python
from peft import PeftModel
from transformers import AutoModelForSequenceClassification

model = AutoModelForSequenceClassification.from_pretrained("{backbone}", num_labels={record.classes})
model = PeftModel.from_pretrained(model, "{repository}")
```
"""


def _labels(record: Record) -> str:
    if record.problem_type == REGRESSION:
        return f"## Answer\n\nThe number is: {_cell((record.labels or ['value'])[0])}.\n"
    names = record.labels or default_labels(record.classes)
    return "## Labels\n\n" + _table(("index", "label"), enumerate(names))


def _metrics(record: Record) -> str:
    table = metrics_of(record.problem_type)
    metrics = [(_titled(table[name]), f"{value:.4f}") for name, value in record.metrics.items() if name in table]
    rows = record.metrics.get("count")
    known = f"{rows} validation rows" if rows else "the validation rows"
    source = f" of {_cell(record.data.name)}" if record.data else ""
    text = f"## Metrics\n\nOn {known}{source}, by which the epoch was chosen too.\n\n" + _table(
        ("metric", "value"), metrics
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
    known = [(f"`{name}`", value) for name, value in settings.items() if value is not None]
    return (
        "## Settings\n\n"
        + _table(("setting", "value"), known)
        + ("\n## Versions\n\n" + _table(("package", "version"), record.versions.items()) if record.versions else "")
    )


def _table(heads: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> str:
    lines = [heads, ["---"] * len(heads), *([_cell(cell) for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(value: Any) -> str:
    """A value as text that neither ends its cell nor is read as HTML."""
    text = " ".join(str(value).split())
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
