"""What is known about the task of an exported model: config.json, which transformers and optimum read too."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptune.data.targets import MULTI, SINGLE, ProblemType
from ptune.data.template import with_pair
from ptune.export.packages import Format
from ptune.inference.classifier import TextClassifier
from ptune.model.decision import HALF
from ptune.model.ensemble import members_of
from ptune.version import __version__

CONFIG_FILE = "config.json"
SECTION = "ptune"  # what only ptune writes into config.json, and what an export is recognised by


@dataclass(frozen=True)
class Task:
    """What a program needs to know to run an exported model.

    Attributes:
        to: the format.
        int8: whether the weights have 8 bits.
        input_names: the inputs of the model, in order.
        labels: label names in index order.
        problem_type: what the logits mean.
        paired: whether a row is a pair of texts.
        max_length: length in tokens that rows are cut to.
        pair_separator: put in front of the second text of a pair.
        template: what a row's texts are written into, in the form of `str.format`; None: there is none.
        mask_token: the text of {mask} in the template.
        blank: what stands for an empty text where the tokenizer would give no token.
        thresholds: of a multi-label task, for each label the probability above which it applies.
        at_least_one: whether the most probable label applies where no other does.
        temperature: what the logits were divided by; the division is part of the model.
        members: number of prompts whose answers are combined; this is part of the model too.
        backbone: the backbone's name.
    """

    to: Format
    int8: bool
    input_names: tuple[str, ...]
    labels: tuple[str, ...]
    problem_type: ProblemType
    paired: bool
    max_length: int
    pair_separator: str
    template: str | None
    mask_token: str
    blank: str
    thresholds: tuple[float, ...]
    at_least_one: bool
    temperature: float
    members: int
    backbone: str


def task_of(classifier: TextClassifier, to: Format, int8: bool, input_names: Sequence[str]) -> Task:
    """Return what is known about a classifier's task.

    Args:
        classifier: the classifier.
        to: the format that it is exported to.
        int8: whether its weights are stored in 8 bits.
        input_names: the names of the exported model's inputs.
    """
    encoder, decision = classifier.encoder, classifier.task.decision
    paired, multi = is_paired(classifier), classifier.model.problem_type == MULTI
    text = None if encoder.template is None else encoder.template.text
    if text is not None and paired and encoder.template is not None and "text_pair" not in encoder.template.fields:
        text = with_pair(text)
    return Task(
        to=to,
        int8=int8,
        input_names=tuple(input_names),
        labels=tuple(classifier.labels),
        problem_type=classifier.model.problem_type,
        paired=paired,
        max_length=encoder.max_length,
        pair_separator=encoder.pair_separator if paired and text is None else "",
        template=text,
        mask_token=encoder.tokenizer.mask_token or "",
        blank="" if paired or text is not None else _blank(classifier),
        thresholds=(decision.thresholds or (HALF,) * len(classifier.labels)) if multi else (),
        at_least_one=multi and decision.at_least_one,
        temperature=classifier.temperature if classifier.model.problem_type == SINGLE else 1.0,
        members=len(members_of(classifier.model)),
        backbone=classifier.model.backbone.name,
    )


def is_paired(classifier: TextClassifier) -> bool:
    """Return whether a classifier's rows are pairs of texts."""
    template = classifier.encoder.template
    in_template = template is not None and "text_pair" in template.fields
    return bool(classifier.task.columns.get("text_pair")) or classifier.model.config.pooling == "pair" or in_template


def _blank(classifier: TextClassifier) -> str:
    """Return the token that stands for an empty text, if the tokenizer would give none."""
    tokenizer = classifier.encoder.tokenizer
    if tokenizer("", verbose=False)["input_ids"]:
        return ""
    token: str = tokenizer.convert_ids_to_tokens(classifier.encoder.without_text().ids[0])
    return token


def write_config(classifier: TextClassifier, task: Task, folder: Path) -> None:
    """Write the backbone's configuration with the labels, the problem type and a section of our own."""
    config: dict[str, Any] = json.loads(classifier.model.backbone.config.to_json_string(use_diff=False))
    for name in ("_name_or_path", "torch_dtype"):
        config.pop(name, None)
    config |= {
        "architectures": [_architecture(classifier)],
        "dtype": "float32",
        "id2label": {str(number): label for number, label in enumerate(task.labels)},
        "label2id": {label: number for number, label in enumerate(task.labels)},
        "num_labels": len(task.labels),
        "problem_type": task.problem_type,
        SECTION: section(task),
    }
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    (folder / CONFIG_FILE).write_text(text, encoding="utf-8")


def note_files(folder: Path) -> list[str]:
    """Add the names of all files in the folder to config.json, and return them. Other files are not ours to replace."""
    path = folder / CONFIG_FILE
    files = sorted(file.name for file in folder.iterdir())
    config = json.loads(path.read_text(encoding="utf-8"))
    config[SECTION]["files"] = files
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return files


def read_section(folder: Path) -> dict[str, Any]:
    """Return our section of the config.json in a folder; empty if there is none."""
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        found = config.get(SECTION)
    except (OSError, ValueError, AttributeError):
        return {}
    return found if isinstance(found, dict) else {}


def section(task: Task) -> dict[str, Any]:
    """Return what config.json says beyond what transformers knows."""
    return {
        "version": __version__,
        "input_names": list(task.input_names),
        "int8": task.int8,
        "pairs": task.paired,
        "pair_separator": task.pair_separator,
        "template": task.template,
        "max_length": task.max_length,
        "thresholds": dict(zip(task.labels, task.thresholds, strict=True)) if task.thresholds else None,
        "at_least_one": task.at_least_one,
        "temperature": task.temperature,
        "members": task.members,
    }


def _architecture(classifier: TextClassifier) -> str:
    """Return the name of transformers' classifier of the backbone's family, which pipelines look at."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

    model_type = classifier.model.backbone.config.model_type
    name = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES.get(model_type, "AutoModelForSequenceClassification")
    return name if isinstance(name, str) else name[0]
