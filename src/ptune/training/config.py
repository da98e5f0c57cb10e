"""Settings of a training run, and the defaults that follow from what is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ptune.data.metric_table import MetricName, choices
from ptune.data.targets import REGRESSION, SINGLE, ProblemType
from ptune.errors import ConfigError
from ptune.model.config import FEW_ROWS, PromptConfig

# Steps from which on compiling on a GPU is by default worth its minute.
COMPILE_STEPS = 1000


@dataclass(frozen=True)
class Task:
    """What the defaults follow from: rows, classes, the width of what the head reads, what is learned."""

    rows: int  # to train on
    validation_rows: int
    classes: int
    width: int
    problem_type: ProblemType = SINGLE
    pairs: bool = False  # whether two texts are compared
    metrics: tuple[str, ...] = ()  # that a benchmark judges by
    norm_first: bool = False  # whether the backbone's layers normalise what they read; see `families`
    gpu: bool = False  # whether the backbone is on one


class TrainConfig(BaseModel):
    """How a prompt is trained. Fields left None follow from method and task, see `settle`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int | None = Field(
        None, ge=1, le=10_000, description="Passes over the training rows. Default: the fewer the rows, the more."
    )
    batch_size: int | None = Field(
        None, ge=1, le=65_536, description="Rows of a forward pass. Default: 16; 8 for few rows."
    )
    accumulate: int = Field(
        1, ge=1, le=4096, description="Batches whose gradients make one step; the loss stays a mean over rows."
    )
    lr: float | None = Field(
        None, gt=0, le=1000, description="Peak learning rate of the prompt. Default: by method, its start and family."
    )
    head_lr: float | None = Field(
        None, gt=0, le=1000, description="Peak learning rate of the head. Default: by method and the head's width."
    )
    weight_decay: float | None = Field(
        None,
        ge=0,
        le=1,
        description="AdamW's decay of weights; biases and norms are spared. Default: 0.1 for deep prompts over pairs "
        "of texts, which are learned by heart before they are understood; else 0.01.",
    )
    warmup: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Share of the steps in which the rates rise from 0. Default: 0.06; 0.12 for prompts at the input.",
    )
    schedule: Literal["linear", "cosine", "constant"] = Field(
        "linear", description="How the rates go from their peak to 0 after the warm-up."
    )
    average: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="Decay of the moving average of prompt and head over the steps, which is what is evaluated and "
        "kept; 0 keeps the last step's. Default: 0.99, less in short runs.",
    )
    clip: float = Field(1.0, gt=0, description="Largest norm of the gradient; longer ones are scaled down to it.")
    patience: int | None = Field(
        None, ge=1, description="Stop after so many epochs without a better one. Default: run all epochs."
    )
    best: MetricName | Literal["last"] | None = Field(
        None,
        description="The validation metric that picks the best epoch; ties go to the lower loss. last: the last epoch "
        "is kept, whatever the metrics. Default: accuracy; f1 of several labels a row; pearson of a regression; of a "
        "task of GLUE or SuperGLUE, the first that it is judged by.",
    )
    class_weights: Literal["balanced"] | None = Field(
        None,
        description="balanced: rows count by how rare their class is among the training rows, a label that applies by "
        "how rare it is. Default: all count alike.",
    )
    focal: float = Field(
        0.0, ge=0, le=10, description="Gamma of the focal loss: the higher, the less count rows that are right already."
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="Share of a row's class that is spread over all classes (one label a row)."
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Of the split, the start of prompt and head, and the order.")
    seeds: int = Field(
        1,
        ge=1,
        le=100,
        description="Prompts to train at once over the one backbone, with consecutive seeds; the best is kept.",
    )
    ensemble: bool = Field(
        False,
        description="Keep the prompts of all seeds as one adapter, which answers with the mean of their probabilities.",
    )
    compile: bool | None = Field(
        None,
        description="Train through torch.compile: a minute of compiling for faster steps. Needs a C++ compiler on a "
        f"CPU, Triton on a GPU. Default: on a GPU, for runs of {COMPILE_STEPS} steps and more.",
    )
    checkpoint_steps: int = Field(
        200,
        ge=1,
        description="Steps between checkpoints, from which a run resumes; the end of each epoch always gets one.",
    )

    @model_validator(mode="after")
    def _check(self) -> TrainConfig:
        if self.ensemble and self.seeds == 1:
            raise ValueError("ensemble needs several prompts: give seeds 2 or more, such as 5")
        if self.best == "last" and self.patience is not None:
            raise ValueError("patience waits for a better epoch, but best 'last' compares none; leave one of them out")
        return self

    def settle(self, prompt: PromptConfig, task: Task) -> SettledConfig:
        """Fill in what was left None.

        Raises:
            ConfigError: a setting that the problem type has no use for.
        """
        self.check_use(task.problem_type)
        lr, head_lr = _RATES[(prompt.method, prompt.encoder == "none")]
        head_lr *= math.sqrt(RATES_WIDTH / task.width)
        if prompt.head == "verbalizer":
            head_lr = _VERBALIZER_RATE
        if prompt.method == "deep" and prompt.init == "text":
            lr = _TEXT_PROMPT_RATE
        elif prompt.method == "deep" and task.norm_first:
            lr = min(lr, _NORM_FIRST_RATE)
        few = prompt.head == "verbalizer" and prompt.init == "text" and task.rows <= FEW_ROWS
        batch = self.batch_size or (SMALL_BATCH if task.rows < SMALL_ROWS else BATCH)
        epochs = self.epochs or (FEW_ROWS_EPOCHS if few else default_epochs(prompt, task))
        steps = epochs * math.ceil(math.ceil(task.rows / batch) / self.accumulate)
        average = FEW_ROWS_AVERAGE if few else default_average(steps)
        # Of a handful of validation rows no epoch can be told to be better than another.
        metrics = task.metrics or choices(task.problem_type)
        few_to_check = few and task.validation_rows <= FEW_ROWS and self.patience is None
        best = "last" if few_to_check else metrics[0]
        settled = {
            "epochs": epochs,
            "batch_size": batch,
            "lr": self.lr or lr,
            "head_lr": self.head_lr or head_lr,
            "weight_decay": default_decay(prompt, task) if self.weight_decay is None else self.weight_decay,
            "warmup": default_warmup(prompt) if self.warmup is None else self.warmup,
            "average": average if self.average is None else self.average,
            "best": self.best or best,
            "compile": task.gpu and steps >= COMPILE_STEPS if self.compile is None else self.compile,
        }
        return SettledConfig(**{**self.model_dump(), **settled})

    def check_use(self, problem_type: ProblemType) -> None:
        """Whether the problem type has a use for all settings.

        Raises:
            ConfigError: it has not; names the setting, and those that there are.
        """
        names = (*choices(problem_type), "last")
        if self.best is not None and self.best not in names:
            raise ConfigError(
                f"`best` '{self.best}' is no metric of {problem_type}; use one of {', '.join(names)}",
                field="best",
                value=self.best,
                expected=", ".join(names),
            )
        if self.label_smoothing and problem_type != SINGLE:
            raise ConfigError(
                f"`label_smoothing` is for {SINGLE}, but these data are {problem_type}; leave it at 0",
                field="label_smoothing",
                value=self.label_smoothing,
                expected="0",
            )
        if (self.class_weights or self.focal) and problem_type == REGRESSION:
            raise ConfigError("`class_weights` and `focal` are for labels, and a regression has none; leave them out")


class SettledConfig(TrainConfig):
    """Settings without a gap: what a run works with and what is recorded."""

    epochs: int
    batch_size: int
    lr: float
    head_lr: float
    weight_decay: float
    warmup: float
    average: float
    best: MetricName | Literal["last"]
    compile: bool


BATCH = 16
SMALL_ROWS, SMALL_BATCH = 400, 8
RATES_WIDTH = 384  # of the backbone that the heads' rates below were found on

# Rows that training sees over all epochs, and what bounds the epochs. See docs/log.md for the measurements.
ROWS_SEEN, ROWS_SEEN_OF_PAIRS, ROWS_SEEN_AT_THE_INPUT = 50_000, 30_000, 75_000
FEWEST_EPOCHS, MOST_EPOCHS = 3, 40
# Of few rows and a verbalizer behind a description of the task, which answers before it is trained. See docs/log.md.
FEW_ROWS_EPOCHS, FEW_ROWS_AVERAGE = 12, 0.9


def default_epochs(prompt: PromptConfig, task: Task) -> int:
    """Passes so that about ROWS_SEEN rows are seen; many classes need more, and prompts at the input learn slower.

    Pairs gain nothing by more than ROWS_SEEN_OF_PAIRS, whose weights are pulled back harder; see docs/log.md.
    """
    rows = ROWS_SEEN_OF_PAIRS if task.pairs else ROWS_SEEN
    if prompt.shallow:
        rows = ROWS_SEEN_AT_THE_INPUT
    seen = rows * max(1.0, math.sqrt(task.classes / 25))
    return min(MOST_EPOCHS, max(FEWEST_EPOCHS, round(seen / task.rows)))


def default_decay(prompt: PromptConfig, task: Task) -> float:
    """Pairs gain from a strong pull back to the pretrained model, single texts lose by it; see docs/log.md."""
    return 0.1 if task.pairs and prompt.method == "deep" else 0.01


def default_warmup(prompt: PromptConfig) -> float:
    """Input prompts that take full steps in the first epoch never get where those that do not end; see docs/log.md."""
    return 0.12 if prompt.shallow else 0.06


def default_average(steps: int) -> float:
    """Over the last hundred steps, or the last tenth of a shorter run."""
    return round(1 - min(1.0, 1 / min(100.0, max(1.0, steps / 10))), 4)


# Of heads that start at words and keys and values that start at a text: they know something that larger steps undo.
_VERBALIZER_RATE = 1e-4
_TEXT_PROMPT_RATE = 3e-3
# Of free keys and values in layers that do not normalise what these add: at the others' rate nothing is learned.
_NORM_FIRST_RATE = 5e-4
# Peak rates of (prompt, head), by method and by whether the prompt is made of free vectors. See docs/log.md.
_RATES: dict[tuple[str | None, bool], tuple[float, float]] = {
    ("deep", True): (2e-2, 2e-3),
    ("deep", False): (1e-3, 3e-3),
    ("p-tuning", True): (1e-2, 3e-3),
    ("p-tuning", False): (1e-3, 3e-3),
    ("prompt-tuning", True): (1e-2, 3e-3),
    ("prompt-tuning", False): (1e-3, 3e-3),
}
