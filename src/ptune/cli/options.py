"""Options that several commands share. Those of prompts and training are PromptConfig and TrainConfig themselves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter, validators
from pydantic import BaseModel, ConfigDict, Field, field_validator

from ptune.data.targets import ProblemType
from ptune.model.config import DType, Precision, PromptConfig
from ptune.training.config import TrainConfig

Json = Annotated[bool, Parameter(name="--json", negative=(), help="Print one JSON object as the last line of stdout.")]

# A folder, a file, or the name of something elsewhere. It arrives as a str; the path in it lets shells offer files.
if TYPE_CHECKING:
    Place = str
else:
    Place = str | Path

BatchSize = Annotated[
    int | None,
    Parameter(help="Rows of a forward pass. Default: as many as suit the device.", validator=validators.Number(gte=1)),
]


class _Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ColumnOptions(_Options):
    """Which columns to read."""

    text: str | None = Field(None, description="Column of the text. Default: guessed; in evaluation as in training.")
    text_pair: str | None = Field(None, description="Column of a second text. Default: likewise.")
    label: str | None = Field(None, description="Column of the label. Default: likewise.")
    label_separator: str | None = Field(
        None,
        min_length=1,
        description="What stands between the labels of a row, such as | in CSV files whose rows may have several. "
        "Default in evaluation: as in training.",
    )


class DataOptions(ColumnOptions):
    """Data to train on."""

    problem_type: ProblemType | None = Field(
        None,
        description="What the labels are: one of several, any number of several, or a number to be learned. Default: "
        "guessed: lists are several labels, fractions are numbers to be learned.",
    )

    max_train_rows: int | None = Field(
        None, ge=2, description="Train on a stratified sample of so many rows. Default: all."
    )
    data_revision: str | None = Field(None, description="Branch, tag or commit of a Hub data set.")


class DeviceOptions(_Options):
    """Where and how the backbone runs."""

    device: str = Field("auto", description="auto (a GPU where there is one), cpu, cuda, cuda:1, mps.")
    dtype: DType = Field(
        "auto",
        description="Number type of the frozen backbone; prompts and heads stay float32. auto: bfloat16 on a GPU that "
        "computes with it, else float32.",
    )


class PredictionOptions(DeviceOptions):
    """The same, where nothing is trained."""

    precision: Precision | None = Field(
        None,
        description="Let OpenVINO compute the backbone on the CPU: bf16 on CPUs with AMX, int8 on any; fp32 is for "
        "comparison. A compiled backbone is kept for the next time. Needs pip install 'ptune[openvino]'. Default: "
        "PyTorch computes it.",
    )


class BackboneOptions(DeviceOptions):
    """The frozen model."""

    revision: str | None = Field(None, description="Branch, tag or commit of a Hub backbone.")
    max_length: int | None = Field(
        None,
        ge=3,
        description="Cut texts to so many tokens. Default: what the backbone holds beside the virtual tokens.",
    )
    random_weights: bool = Field(
        False, description="Build the backbone from its config.json with random weights, for tests and benchmarks."
    )


class PromptOptions(PromptConfig):
    """What is learned, as it is typed."""

    verbalizer: Annotated[
        dict[str, list[str]] | None,
        # A line of text on the command line, a mapping in a configuration file, which arrives as JSON.
        Parameter(accepts_keys=False, n_tokens=1),
    ] = Field(None, description=PromptConfig.model_fields["verbalizer"].description)

    @field_validator("template", mode="before")
    @classmethod
    def _break_lines(cls, value: Any) -> Any:
        return value.replace("\\n", "\n") if isinstance(value, str) else value  # a shell passes two characters


Columns = Annotated[ColumnOptions | None, Parameter(name="*", group="Data")]
Data = Annotated[DataOptions | None, Parameter(name="*", group="Data")]
Prediction = Annotated[PredictionOptions | None, Parameter(name="*", group="Backbone")]
BackboneSettings = Annotated[BackboneOptions | None, Parameter(name="*", group="Backbone")]
PromptSettings = Annotated[PromptOptions | None, Parameter(name="*", group="Prompt")]
TrainSettings = Annotated[TrainConfig | None, Parameter(name="*", group="Training")]

# The models behind `ptune train`, in the order of its help.
TRAIN_MODELS: tuple[type[BaseModel], ...] = (DataOptions, BackboneOptions, PromptOptions, TrainConfig)

# Settings that are options, by the names that the library's messages use.
SETTINGS = frozenset(
    {"backbone", "data", "output", "resume", "split", "batch_size", "precision"}
    | {name for model in TRAIN_MODELS for name in model.model_fields}
)
