"""What an adapter folder holds, as data.

    adapter_model.safetensors   the folded prompt and the head, float32
    ptune.json                  the record: everything else that is known (`Record`)
    adapter_config.json         only where PEFT reads the adapter: PEFT's own configuration

docs/adapter-format.md specifies all three to the byte.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ptune.data.splits import Origin
from ptune.data.targets import REGRESSION, SINGLE, ProblemType
from ptune.model.backbone import Backbone
from ptune.model.config import PromptConfig
from ptune.model.ensemble import Model, PromptEnsemble
from ptune.version import __version__

WEIGHTS_FILE = "adapter_model.safetensors"
RECORD_FILE = "ptune.json"
PEFT_FILE = "adapter_config.json"
ADAPTER_FILES = (WEIGHTS_FILE, RECORD_FILE, PEFT_FILE)
PROMPT_KEY = "prompt_embeddings"

FORMAT_VERSION = 1
# Bytes that a JSON file of an adapter may have; a thousand long label names fit hundreds of times.
MAX_JSON_BYTES = 16 * 2**20


@dataclass(frozen=True)
class TaskInfo:
    """What is known of a task beside the weights that were learned for it.

    columns: names of the columns `text`, `text_pair` and `label` of the training data; empty where they are not known.
    label_separator: stood between the labels of a row in the training data; None: nothing did.
    origin: where the training data are from.
    temperature: what logits are divided by before probabilities are taken.
    """

    columns: Mapping[str, str | None] = field(default_factory=dict)
    label_separator: str | None = None
    origin: Origin | None = None
    temperature: float = 1.0


class BackboneNote(BaseModel):
    """For which backbone an adapter is. Fields are None where a PEFT file does not say."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str | None = Field(description="Folder, python:PACKAGE or Hub id that it was trained with.")
    revision: str | None = None
    model_type: str | None = Field(None, description="transformers' model_type.")
    layers: int | None = Field(None, description="L, layers.")
    width: int | None = Field(None, description="H, width of the hidden states.")
    fingerprint: str | None = Field(None, description="See Backbone.fingerprint.")

    @classmethod
    def of(cls, backbone: Backbone) -> BackboneNote:
        """Return what an adapter notes of its backbone."""
        return cls(
            name=backbone.location.reference,
            revision=backbone.location.revision,
            model_type=backbone.config.model_type,
            layers=backbone.layers,
            width=backbone.width,
            fingerprint=backbone.fingerprint(),
        )


class Record(BaseModel):
    """The record of an adapter, `ptune.json`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format_version: Literal[1] = 1
    prompt: PromptConfig = Field(description="As trained. The stored prompt is folded: its encoder is gone.")
    backbone: BackboneNote
    labels: list[str] | None = Field(min_length=1, description="Label names in index order; None: ask the backbone.")
    classes: int = Field(ge=1, description="C, number of classes; 1 of a regression.")
    problem_type: ProblemType = Field(SINGLE, description="What the C numbers mean, by transformers' names.")
    members: int = Field(
        1, ge=1, le=100, description="M, prompts of an ensemble. With several, every tensor is [M, ...]."
    )
    temperature: float = Field(
        1.0, gt=0, description="What logits are divided by before probabilities are taken; fitted on validation."
    )
    max_length: int | None = Field(None, ge=1, description="Tokens a text was cut to, special tokens included.")
    pair_separator: str = Field("", description="Put in front of the second text of a pair.")
    data: Origin | None = Field(None, description="What it was trained on.")
    columns: dict[str, str | None] = Field(
        default_factory=dict,
        description="Columns `text`, `text_pair` and `label` of the training data, to find them again.",
    )
    label_separator: str | None = Field(
        None, min_length=1, description="Stood between the labels of a row in the training data; None: nothing did."
    )
    metrics: dict[str, int | float] = Field(default_factory=dict, description="Of the best epoch, on validation.")
    training: dict[str, Any] = Field(default_factory=dict, description="Settings of the run.")
    versions: dict[str, str] = Field(default_factory=dict, description="Of the packages that trained it.")
    weights_sha256: str | None = Field(None, description="Of adapter_model.safetensors; shows mixed-up files.")

    @model_validator(mode="after")
    def _check(self) -> Record:
        if self.labels is not None and len(self.labels) != self.classes:
            raise ValueError(f"{len(self.labels)} labels are named, but there are {self.classes} classes")
        if self.problem_type == REGRESSION and self.classes != 1:
            raise ValueError(f"a regression gives one number, but there are {self.classes} classes")
        return self

    @classmethod
    def of(
        cls,
        model: Model,
        task: TaskInfo | None = None,
        *,
        max_length: int | None = None,
        pair_separator: str = "",
        metrics: Mapping[str, float] | None = None,
        training: Mapping[str, Any] | None = None,
    ) -> Record:
        """Return the record of a model as it is. It holds no times: the same run gives the same bytes."""
        task = task or TaskInfo()
        return cls(
            prompt=model.config,
            backbone=BackboneNote.of(model.backbone),
            labels=model.labels,
            classes=len(model.labels),
            problem_type=model.problem_type,
            members=len(model.members) if isinstance(model, PromptEnsemble) else 1,
            temperature=task.temperature,
            max_length=max_length,
            pair_separator=pair_separator,
            data=task.origin,
            columns=dict(task.columns),
            label_separator=task.label_separator,
            metrics=dict(metrics or {}),
            training=dict(training or {}),
            versions=versions(),
        )

    @property
    def task(self) -> TaskInfo:
        """What the record says of the task."""
        return TaskInfo(self.columns, self.label_separator, self.data, self.temperature)


def versions() -> dict[str, str]:
    """Return the versions of what decides a run's numbers."""
    packages = {name: version(name) for name in ("torch", "transformers", "tokenizers")}
    # ptune's own version comes from its source, which may be used without being installed.
    return {"python": platform.python_version(), "ptune": __version__, **packages}
