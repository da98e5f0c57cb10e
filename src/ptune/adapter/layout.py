"""The contents of an adapter folder, as data classes.

    adapter_model.safetensors   the folded prompt and the head, float32
    ptune.json                  the record: everything else about the adapter (`Record`)
    adapter_config.json         PEFT's configuration; only if PEFT can load the adapter

docs/adapter-format.md specifies all three to the byte.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ptune.adapter.reading import check_plain
from ptune.data.splits import Origin
from ptune.data.targets import LONGEST_LABEL, MULTI, REGRESSION, SINGLE, ProblemType
from ptune.model.backbone import Backbone
from ptune.model.config import PromptConfig
from ptune.model.decision import Decision
from ptune.model.ensemble import Model, PromptEnsemble
from ptune.version import __version__

WEIGHTS_FILE = "adapter_model.safetensors"
RECORD_FILE = "ptune.json"
PEFT_FILE = "adapter_config.json"
STATE_FILE = "model.safetensors"  # where transformers' Trainer saves the state of a model
ADAPTER_FILES = (WEIGHTS_FILE, RECORD_FILE, PEFT_FILE)
PROMPT_KEY = "prompt_embeddings"

FORMAT_VERSION = 1
# Limits of what a record says. A record may come from a stranger; docs/adapter-format.md lists them all.
MOST_CLASSES, MOST_TOKENS, MOST_WIDTH, MOST_LAYERS = 2**20, 2**24, 2**24, 2**16
COLDEST, HOTTEST = 1e-3, 1e3  # temperatures; a fit gives 0.1 to 10

Name = Annotated[str, Field(max_length=4096)]
Label = Annotated[str, Field(max_length=LONGEST_LABEL)]
Words = Annotated[str, Field(max_length=10_000)]


@dataclass(frozen=True)
class TaskInfo:
    """What is known about a task besides the weights learned for it.

    Attributes:
        columns: names of the columns `text`, `text_pair` and `label` in the training data; empty if unknown.
        label_separator: text between the labels of a row in the training data; None if there was none.
        origin: where the training data come from.
        temperature: divisor of the logits before the softmax.
        decision: which labels of a multi-label task apply.
    """

    columns: Mapping[str, str | None] = field(default_factory=dict)
    label_separator: str | None = None
    origin: Origin | None = None
    temperature: float = 1.0
    decision: Decision = field(default_factory=Decision)


class BackboneNote(BaseModel):
    """The backbone that an adapter was trained on. Fields that a PEFT file does not state are None."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: Name | None = Field(description="Folder, python:PACKAGE or Hub id of the backbone.")
    revision: Name | None = None
    model_type: Name | None = Field(None, description="transformers' model_type.")
    layers: int | None = Field(None, ge=0, le=MOST_LAYERS, description="L, layers.")
    width: int | None = Field(None, ge=1, le=MOST_WIDTH, description="H, width of the hidden states.")
    fingerprint: Name | None = Field(None, description="See Backbone.fingerprint.")
    layers_fingerprint: Name | None = Field(None, description="See Backbone.layers_fingerprint.")

    def has_weights_of(self, backbone: Backbone) -> bool:
        """Return whether the weights that are noted are those of a backbone. What is not noted is not compared."""
        return all(
            noted is None or own is None or noted == own
            for noted, own in (
                (self.fingerprint, backbone.fingerprint()),
                (self.layers_fingerprint, backbone.layers_fingerprint()),
            )
        )

    @classmethod
    def of(cls, backbone: Backbone) -> BackboneNote:
        """Return the note that an adapter keeps about a backbone."""
        return cls(**backbone.facts())


class Record(BaseModel):
    """The record of an adapter, `ptune.json`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format_version: Literal[1] = 1
    prompt: PromptConfig = Field(
        description="As trained. The stored prompt is folded, so its encoder is no longer there."
    )
    backbone: BackboneNote
    labels: list[Label] | None = Field(
        min_length=1, max_length=MOST_CLASSES, description="Label names in index order; None: those of the backbone."
    )
    classes: int = Field(ge=1, le=MOST_CLASSES, description="C, number of classes; 1 for a regression.")
    problem_type: ProblemType = Field(SINGLE, description="What the C outputs mean, in transformers' terms.")
    members: int = Field(
        1, ge=1, le=100, description="M, number of prompts. For an ensemble, every tensor is stacked: [M, ...]."
    )
    temperature: float = Field(
        1.0,
        ge=COLDEST,
        le=HOTTEST,
        allow_inf_nan=False,
        description="Divisor of the logits before the softmax, fitted on the validation split.",
    )
    thresholds: list[Annotated[float, Field(gt=0, lt=1)]] | None = Field(
        None,
        max_length=MOST_CLASSES,
        description="Multi-label: for each of the C labels, the probability above which it applies; None: 0.5 for all.",
    )
    at_least_one: bool = Field(
        False, description="Multi-label: whether the most probable label applies where no other does."
    )
    max_length: int | None = Field(
        None, ge=1, le=MOST_TOKENS, description="Length in tokens that texts were cut to, special tokens included."
    )
    pair_separator: Words = Field("", description="Text in front of the second text of a pair.")
    data: Origin | None = Field(None, description="Where the training data come from.")
    columns: dict[str, str | None] = Field(
        default_factory=dict,
        description="Names of the columns `text`, `text_pair` and `label` in the training data.",
    )
    label_separator: Words | None = Field(
        None, min_length=1, description="Text between the labels of a row in the training data; None: there was none."
    )
    metrics: dict[str, int | float] = Field(default_factory=dict, description="Validation metrics of the best epoch.")
    training: dict[str, Any] = Field(default_factory=dict, description="Settings of the training run.")
    versions: dict[str, str] = Field(default_factory=dict, description="Versions of the packages used in training.")
    weights_sha256: Name | None = Field(
        None, description="SHA-256 of adapter_model.safetensors, to detect mixed-up files."
    )

    @field_validator("data", "columns", "metrics", "training", "versions", mode="before")
    @classmethod
    def _check_size(cls, value: Any) -> Any:
        return check_plain(value)

    @model_validator(mode="after")
    def _check(self) -> Record:
        if self.labels is not None and len(self.labels) != self.classes:
            raise ValueError(f"{len(self.labels)} labels are named, but there are {self.classes} classes")
        if self.problem_type == REGRESSION and self.classes != 1:
            raise ValueError(f"a regression gives one number, but there are {self.classes} classes")
        if self.thresholds is not None and (self.problem_type != MULTI or len(self.thresholds) != self.classes):
            raise ValueError(
                f"there are {len(self.thresholds)} thresholds for {self.classes} outputs of a {self.problem_type}"
            )
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
        """Return the record of a model in its present state.

        The record holds no date or time, so that the same run gives the same bytes.

        Args:
            model: the trained classifier or ensemble.
            task: what is known about the task.
            max_length: length in tokens that texts were cut to.
            pair_separator: text in front of the second text of a pair.
            metrics: validation metrics of the best epoch.
            training: settings of the run.
        """
        task = task or TaskInfo()
        return cls(
            prompt=model.config,
            backbone=BackboneNote.of(model.backbone),
            labels=model.labels,
            classes=len(model.labels),
            problem_type=model.problem_type,
            members=len(model.members) if isinstance(model, PromptEnsemble) else 1,
            temperature=task.temperature,
            thresholds=list(task.decision.thresholds) or None,
            at_least_one=task.decision.at_least_one,
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
        """What the record says about the task."""
        decision = Decision(tuple(self.thresholds or ()), self.at_least_one)
        return TaskInfo(self.columns, self.label_separator, self.data, self.temperature, decision)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a run's results depend on."""
    packages = {name: version(name) for name in ("torch", "transformers", "tokenizers")}
    # ptune's own version comes from its source, which may be used without being installed.
    return {"python": platform.python_version(), "ptune": __version__, **packages}
