"""Options that several commands share. The options for prompts and training come from PromptConfig and TrainConfig."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter, Token, validators
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SkipValidation, field_validator

from ptune import places
from ptune.data.targets import ProblemType
from ptune.errors import ConfigError
from ptune.model.config import DeviceMap, DType, Precision, PromptConfig, Quantize
from ptune.places import RemotePath, as_place
from ptune.serving.settings import ServeOptions
from ptune.training.config import TrainConfig
from ptune.training.time_limit import seconds_of

Json = Annotated[bool, Parameter(name="--json", negative=(), help="Print one JSON object as the last line of stdout.")]

# A folder, a file, or a name such as a Hub id. The value is always a str; `Path` in the type makes shells complete
# file names.
if TYPE_CHECKING:
    Place = str
else:
    Place = str | Path


# A place to read, which may be "-" for standard input.
Source = Annotated[Place, Parameter(allow_leading_hyphen=True)]


def _read_target(_: Any, tokens: Sequence[Token]) -> Path | RemotePath:
    if not tokens[0].value.strip():
        raise ConfigError(f"{tokens[0].keyword or 'the output'} is empty; give the name of a file or folder")
    return as_place(tokens[0].value)


# A file or folder to write, or a configuration file: a path or a URL.
if TYPE_CHECKING:
    Target = places.Place
else:
    Target = Annotated[Path, Parameter(converter=_read_target), SkipValidation]  # it is not a `Path` if it is a URL

Adapter = Annotated[
    Place,
    Parameter(
        help="An adapter of ptune or PEFT: a folder, a URL such as s3://..., or a Hub id, OWNER/NAME or "
        "OWNER/NAME@REVISION."
    ),
]

Threshold = Annotated[
    float | None,
    Parameter(
        help="Probability above which a label applies, for adapters that give several labels. Default: the thresholds "
        "that the adapter holds.",
        validator=validators.Number(gt=0, lt=1),
    ),
]

Labels = Annotated[
    list[str] | None,
    Parameter(
        negative=(),
        help="Names of the labels in index order, a,b,c, for adapters that have none, such as those of PEFT. Default: "
        "those in the backbone's configuration.",
    ),
]

ProblemOfPeft = Annotated[
    ProblemType | None,
    Parameter(
        help="What the outputs mean, for adapters of PEFT, which do not record it. Default: as the backbone's "
        "configuration says."
    ),
]

BatchSize = Annotated[
    int | None,
    Parameter(help="Rows per forward pass. Default: chosen for the device.", validator=validators.Number(gte=1)),
]


Workers = Annotated[
    int | None,
    Parameter(
        help="Processes of the cluster that work for this command. Default: one per GPU, or one per CPU without GPUs.",
        group="Cluster",
        validator=validators.Number(gte=1),
    ),
]


class _Options(BaseModel):
    """Options that form a group in the help."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ColumnNames(_Options):
    """The columns of text and label."""

    text: str | None = Field(
        None, description="Column of the text. Default: guessed in training; the same column in evaluation."
    )
    text_pair: str | None = Field(
        None,
        description="Column of the second text, for pairs of texts. Default: guessed in training; in evaluation "
        "the column of training.",
    )
    label: Annotated[list[str] | None, Parameter(negative=())] = Field(
        None,
        description="Column of the label, or several columns of zeros and ones, one for each label: a,b,c. Default: as "
        "for the text.",
    )
    label_separator: str | None = Field(
        None,
        min_length=1,
        description="Separator of the labels in a cell, such as |, if rows may have several labels. Default: none in "
        "training; the same separator in evaluation.",
    )

    @field_validator("label", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


class ColumnOptions(ColumnNames):
    """Which columns to read."""

    on_empty: Literal["error", "skip"] = Field(
        "error", description="What to do with rows without text or label: report them all, or leave them out."
    )


class DataOptions(ColumnOptions):
    """The data to train on."""

    problem_type: ProblemType | None = Field(
        None,
        description="What to predict: one label per row, any number of labels per row, or a number. Default: guessed "
        "from the label column; lists are several labels, decimal fractions a regression.",
    )

    max_train_rows: int | None = Field(
        None, ge=2, description="Train on a stratified sample of at most this many rows. Default: all rows."
    )
    max_validation_rows: int | None = Field(
        None,
        ge=2,
        description="Measure each epoch on a stratified sample of at most this many validation rows. Default: all of "
        "them.",
    )
    drop_rare: int | None = Field(
        None,
        ge=1,
        description="Drop labels with fewer training rows than this, and the rows that are then without a label. "
        "Default: keep all.",
    )
    data_revision: str | None = Field(None, description="Branch, tag or commit of a Hub data set.")


class DeviceOptions(_Options):
    """Where and how the backbone runs."""

    device: str = Field("auto", description="Device: auto (a GPU if there is one), cpu, cuda, cuda:1 or mps.")
    dtype: DType = Field(
        "auto",
        description="Data type of the frozen backbone; prompt and head stay float32. auto: bfloat16 on a GPU or "
        "CPU with bfloat16 arithmetic (CPUs with AMX or AVX512-BF16), otherwise float32.",
    )
    quantize: Quantize | None = Field(
        None,
        description="Round the weights of the backbone's linear layers to 8 or 4 bits when they are read, to save "
        "memory. Needs pip install 'ptune[quantize]'. Default: not rounded.",
    )
    device_map: DeviceMap | None = Field(
        None,
        description="Spread the layers of a large backbone over all GPUs and the CPU, as in transformers. Default: all "
        "are on --device.",
    )


class PredictionOptions(DeviceOptions):
    """Where and how the backbone runs in prediction and evaluation."""

    precision: Precision | None = Field(
        None,
        description="Run the backbone with OpenVINO on the CPU, in this precision: bf16 needs a CPU with AMX, int8 "
        "runs on any, fp32 is for comparison. The compiled backbone is stored for the next run. Needs pip install "
        "'ptune[openvino]'. Default: run it with PyTorch.",
    )


class BackboneOptions(DeviceOptions):
    """The frozen model."""

    revision: str | None = Field(None, description="Branch, tag or commit of a Hub backbone.")
    max_length: int | None = Field(
        None,
        ge=3,
        description="Cut texts to this many tokens. Default: as many as fit into the backbone with the prompt.",
    )
    shard: bool = Field(
        False,
        description="Spread the layers of a large backbone over the processes that torchrun starts (FSDP2), so that "
        "each holds a part. No report is written then. Default: each process holds the whole backbone.",
    )
    random_weights: bool = Field(
        False, description="Create the backbone from its config.json with random weights, for tests and benchmarks."
    )


class ClusterOptions(_Options):
    """Where a command runs."""

    scale: Literal["local", "ray"] = Field(
        "local",
        description="local: in this process. ray: on a Ray cluster, by default one on this machine that ends with the "
        "command. Needs pip install 'ptune[ray]'.",
    )
    ray_address: str | None = Field(
        None,
        description="HOST:PORT of the head of an existing Ray cluster, or auto for the one that runs on this machine. "
        "Default: the address in RAY_ADDRESS, otherwise a new cluster.",
    )


def _seconds(_: Any, tokens: Sequence[Token]) -> float:
    """Return the seconds of a time as it is typed, such as 10m."""
    return float(seconds_of(tokens[0].value))


class PromptOptions(PromptConfig):
    """PromptConfig in the form in which it is typed on the command line."""

    # Its default depends on other settings, as its description says.
    virtual_tokens: Annotated[int, Parameter(show_default=False)] = PromptConfig.model_fields[  # type: ignore[assignment]
        "virtual_tokens"
    ]

    verbalizer: Annotated[
        dict[str, list[str]] | None,
        # A string on the command line. A mapping in a configuration file arrives here as JSON.
        Parameter(accepts_keys=False, n_tokens=1),
    ] = Field(None, description=PromptConfig.model_fields["verbalizer"].description)

    @field_validator("template", mode="before")
    @classmethod
    def _break_lines(cls, value: Any) -> Any:
        return value.replace("\\n", "\n") if isinstance(value, str) else value  # a shell passes \n as two characters


class TrainOptions(TrainConfig):
    """TrainConfig in the form in which it is typed on the command line."""

    time_limit: Annotated[float | None, BeforeValidator(seconds_of), Parameter(converter=_seconds)] = Field(
        None, gt=0, description=TrainConfig.model_fields["time_limit"].description
    )


Names = Annotated[ColumnNames | None, Parameter(name="*", group="Data")]
Device = Annotated[DeviceOptions | None, Parameter(name="*", group="Backbone")]
Columns = Annotated[ColumnOptions | None, Parameter(name="*", group="Data")]
Data = Annotated[DataOptions | None, Parameter(name="*", group="Data")]
Cluster = Annotated[ClusterOptions | None, Parameter(name="*", group="Cluster")]
Prediction = Annotated[PredictionOptions | None, Parameter(name="*", group="Backbone")]
BackboneSettings = Annotated[BackboneOptions | None, Parameter(name="*", group="Backbone")]
PromptSettings = Annotated[PromptOptions | None, Parameter(name="*", group="Prompt")]
TrainSettings = Annotated[TrainOptions | None, Parameter(name="*", group="Training")]

# The settings models of `ptune train`, in the order of its help.
TRAIN_MODELS: tuple[type[BaseModel], ...] = (DataOptions, BackboneOptions, PromptOptions, TrainOptions)

# Settings that have an option, under the names that the library's messages use.
SETTINGS = frozenset(
    {"backbone", "data", "output", "overwrite", "resume", "split", "batch_size", "precision", "input_format"}
    | {"to", "int8", "fix", "ignore", "html", "report", "prompt_seconds", "min_replicas", "max_replicas"}
    | {name for model in TRAIN_MODELS for name in model.model_fields}
    | {*ServeOptions.model_fields, *ClusterOptions.model_fields}
)
