"""Settings of a training run, and the defaults that depend on the task."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ptune.data.metric_table import MetricName, choices
from ptune.data.targets import MULTI, REGRESSION, SINGLE, ProblemType
from ptune.errors import ConfigError
from ptune.model.config import FEW_ROWS, PromptConfig

# On a GPU, runs of at least so many steps are compiled by default: shorter ones do not win back the minute it takes.
COMPILE_STEPS = 1000
BATCH = 16
SMALL_ROWS, SMALL_BATCH = 400, 8
FEWEST_EPOCHS, MOST_EPOCHS = 3, 40


@dataclass(frozen=True)
class Task:
    """The facts about data and backbone that the defaults depend on.

    rows: number of training rows.
    validation_rows: number of validation rows.
    classes: number of classes or labels.
    width: width of the vector that the head reads.
    problem_type: what is learned.
    pairs: True if rows are pairs of texts.
    metrics: the metrics of a benchmark's task, the main one first; empty for other data.
    norm_first: True if the backbone's layers normalise their input; see `ptune.model.families`.
    gpu: True if the backbone is on a GPU.
    """

    rows: int
    validation_rows: int
    classes: int
    width: int
    problem_type: ProblemType = SINGLE
    pairs: bool = False
    metrics: tuple[str, ...] = ()
    norm_first: bool = False
    gpu: bool = False


class TrainConfig(BaseModel):
    """Settings of a training run. Fields left None get a default that depends on method and task; see `settle`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description=f"Passes over the training rows. Default: {FEWEST_EPOCHS} to {MOST_EPOCHS}, more for fewer rows.",
    )
    batch_size: int | None = Field(
        None,
        ge=1,
        le=65_536,
        description=f"Rows per training batch. Default: {BATCH}, or {SMALL_BATCH} with fewer than {SMALL_ROWS} rows.",
    )
    accumulate: int = Field(
        1,
        ge=1,
        le=4096,
        description="Batches per step (gradient accumulation). The loss is a mean over all their rows.",
    )
    lr: float | None = Field(
        None,
        gt=0,
        le=1000,
        description="Peak learning rate of the prompt. Default: depends on method, encoder, init and backbone family.",
    )
    head_lr: float | None = Field(
        None,
        gt=0,
        le=1000,
        description="Peak learning rate of the head. Default: depends on method, encoder, head and backbone width.",
    )
    weight_decay: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Weight decay of AdamW; biases and norms have none. Default: 0.01, or 0.1 for deep prompts on "
        "pairs of texts, which overfit more easily.",
    )
    warmup: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Share of the steps in which the learning rates rise from 0 to their peak. Default: 0.06 for deep "
        "prompts, 0.12 for the other methods.",
    )
    schedule: Literal["linear", "cosine", "constant"] = Field(
        "linear",
        description="Learning rates after the warm-up: linear and cosine fall to 0, constant stays at the peak.",
    )
    average: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="Decay of the moving average of the trained weights over the steps. The average is evaluated and "
        "saved; 0 uses the weights as they are. Default: 0.99, less in short runs.",
    )
    clip: float = Field(1.0, gt=0, description="Gradients with a larger norm are scaled down to this norm.")
    patience: int | None = Field(
        None, ge=1, description="Stop after this many epochs without improvement. Default: run all epochs."
    )
    best: MetricName | Literal["last"] | None = Field(
        None,
        description="Validation metric that picks the best epoch; the lower loss decides a tie. last: keep the last "
        "epoch. Default: accuracy, f1 for several labels per row, pearson for a regression, or the main metric of a "
        "GLUE or SuperGLUE task.",
    )
    class_weights: Literal["balanced"] | None = Field(
        None,
        description="balanced: rare classes or labels get a larger weight in the loss. Default: equal weights.",
    )
    focal: float = Field(
        0.0,
        ge=0,
        le=10,
        description="Gamma of the focal loss: higher values reduce the weight of rows that are already predicted well.",
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="Share of each target that is spread over all classes. For one label per row only."
    )
    threshold: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Probability above which a label applies, for several labels per row. Default: fitted for each "
        "label on the validation rows.",
    )
    seed: int = Field(
        0, ge=0, lt=2**31, description="Random seed for the split, the initial weights, and the order of the rows."
    )
    seeds: int = Field(
        1,
        ge=1,
        le=100,
        description="Number of prompts to train in parallel, with consecutive seeds. The best one is kept.",
    )
    ensemble: bool = Field(
        False,
        description="Keep the prompts of all seeds as one adapter, which averages their probabilities. Needs several "
        "seeds.",
    )
    compile: bool | None = Field(
        None,
        description="Train with torch.compile: compiling takes about a minute, steps are then faster. Needs a C++ "
        f"compiler on a CPU, Triton on a GPU. Default: on for runs of at least {COMPILE_STEPS} steps on a GPU.",
    )
    checkpoint_steps: int = Field(
        200,
        ge=1,
        description="Steps between checkpoints, from which a run can be resumed. Each epoch also ends with one.",
    )

    @model_validator(mode="after")
    def _check(self) -> TrainConfig:
        if self.ensemble and self.seeds == 1:
            raise ValueError("`ensemble` needs several prompts: set `seeds` to 2 or more, such as `seeds=5`")
        if self.best == "last" and self.patience is not None:
            raise ValueError(
                "`patience` waits for a better epoch, but `best='last'` compares none; leave one of them out"
            )
        return self

    def settle(self, prompt: PromptConfig, task: Task) -> SettledConfig:
        """Return the settings with a default for every field that was left None.

        Raises:
            ConfigError: a setting does not apply to the problem type.
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
        few_shot = prompt.head == "verbalizer" and prompt.init == "text" and task.rows <= FEW_ROWS
        batch = self.batch_size or (SMALL_BATCH if task.rows < SMALL_ROWS else BATCH)
        epochs = self.epochs or (FEW_ROWS_EPOCHS if few_shot else default_epochs(prompt, task))
        steps = epochs * math.ceil(math.ceil(task.rows / batch) / self.accumulate)
        average = FEW_ROWS_AVERAGE if few_shot else default_average(steps)
        metrics = task.metrics or choices(task.problem_type)
        # A handful of validation rows cannot tell whether one epoch is better than another.
        cannot_compare = few_shot and task.validation_rows <= FEW_ROWS and self.patience is None
        best = "last" if cannot_compare else metrics[0]
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
        """Check that every setting applies to the problem type.

        Raises:
            ConfigError: a setting does not apply; the message names it and what is allowed.
        """
        names = (*choices(problem_type), "last")
        if self.best is not None and self.best not in names:
            raise ConfigError(
                f"`best` '{self.best}' is not a metric of {problem_type}; use one of {', '.join(names)}",
                field="best",
                value=self.best,
                expected=", ".join(names),
            )
        if self.label_smoothing and problem_type != SINGLE:
            raise ConfigError(
                f"`label_smoothing` is for {SINGLE}, but the data are {problem_type}; leave it at 0",
                field="label_smoothing",
                value=self.label_smoothing,
                expected="0",
            )
        if self.threshold is not None and problem_type != MULTI:
            raise ConfigError(
                f"`threshold` is for several labels per row, but the data are {problem_type}; leave it out",
                field="threshold",
                value=self.threshold,
                expected="None",
            )
        if (self.class_weights or self.focal) and problem_type == REGRESSION:
            raise ConfigError(
                "`class_weights` and `focal` change how labels are weighted, but a regression has no labels; leave "
                "them out"
            )


class SettledConfig(TrainConfig):
    """Settings in which every default is filled in. A run uses and records these."""

    epochs: int
    batch_size: int
    lr: float
    head_lr: float
    weight_decay: float
    warmup: float
    average: float
    best: str  # type: ignore[assignment]  # may also be a metric of the user's
    compile: bool


RATES_WIDTH = 384  # width of the backbone on which the head rates below were measured

# Rows that training sees over all epochs. See docs/log.md for the measurements.
ROWS_SEEN, ROWS_SEEN_OF_PAIRS, ROWS_SEEN_AT_THE_INPUT = 50_000, 30_000, 75_000
# For few rows, a verbalizer, and a prompt that starts as a description of the task: such a model already works before
# it is trained. See docs/log.md.
FEW_ROWS_EPOCHS, FEW_ROWS_AVERAGE = 12, 0.9


def default_epochs(prompt: PromptConfig, task: Task) -> int:
    """Return as many epochs as it takes to see about ROWS_SEEN rows.

    Tasks with many classes need more rows, and so do prompts at the input, which learn more slowly. Pairs of texts do
    not improve after ROWS_SEEN_OF_PAIRS rows, under the stronger weight decay that they get. See docs/log.md.
    """
    rows = ROWS_SEEN_OF_PAIRS if task.pairs else ROWS_SEEN
    if prompt.shallow:
        rows = ROWS_SEEN_AT_THE_INPUT
    seen = rows * max(1.0, math.sqrt(task.classes / 25))
    return min(MOST_EPOCHS, max(FEWEST_EPOCHS, round(seen / task.rows)))


def default_decay(prompt: PromptConfig, task: Task) -> float:
    """Return the weight decay: a strong one helps on pairs of texts and hurts on single texts; see docs/log.md."""
    return 0.1 if task.pairs and prompt.method == "deep" else 0.01


def default_warmup(prompt: PromptConfig) -> float:
    """Return the share of warm-up steps.

    Prompts at the input that take full steps in the first epoch never catch up with those that do not; see docs/log.md.
    """
    return 0.12 if prompt.shallow else 0.06


def default_average(steps: int) -> float:
    """Return the decay that averages over the last hundred steps, or the last tenth of a shorter run."""
    return round(1 - min(1.0, 1 / min(100.0, max(1.0, steps / 10))), 4)


# For heads that start from words, and keys and values that start from a text: larger steps would undo what they know.
_VERBALIZER_RATE = 1e-4
_TEXT_PROMPT_RATE = 3e-3
# For keys and values in layers that do not normalise what these add: at the usual rate nothing is learned.
_NORM_FIRST_RATE = 5e-4
# Peak rates of (prompt, head), by method and by whether the prompt has no encoder. See docs/log.md.
_RATES: dict[tuple[str | None, bool], tuple[float, float]] = {
    ("deep", True): (2e-2, 2e-3),
    ("deep", False): (1e-3, 3e-3),
    ("p-tuning", True): (1e-2, 3e-3),
    ("p-tuning", False): (1e-3, 3e-3),
    ("prompt-tuning", True): (1e-2, 3e-3),
    ("prompt-tuning", False): (1e-3, 3e-3),
}
