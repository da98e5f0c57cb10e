"""Settings of a training run, and the defaults that depend on the task."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from ptune.data.metric_table import MetricName, choices
from ptune.data.targets import MULTI, REGRESSION, SINGLE, ProblemType
from ptune.errors import ConfigError
from ptune.model.config import FEW_ROWS, PromptConfig
from ptune.settings_model import SettingsModel
from ptune.training.defaults import (
    BATCH,
    COMPILE_STEPS,
    CONTRASTIVE_BATCH,
    CONTRASTIVE_RATE,
    FEW_CONTRASTIVE,
    FEW_PER_CLASS,
    FEW_ROWS_AVERAGE,
    FEW_ROWS_EPOCHS,
    FEWEST_EPOCHS,
    FOLDS,
    LEAST_PATIENCE,
    LEAST_TO_COMPARE,
    MOST_EPOCHS,
    RATES,
    RATES_WIDTH,
    SMALL_BATCH,
    SMALL_ROWS,
    VERBALIZER_RATE,
    WHOLE_RATE,
    Task,
    batches_per_epoch,
    default_average,
    default_decay,
    default_epochs,
    default_objective,
    default_optimizer,
    default_rate,
    default_warmup,
)
from ptune.training.time_limit import seconds_of


class TrainConfig(SettingsModel):
    """Settings of a training run. Fields left None get a default that depends on method and task; see `settle`."""

    epochs: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description=f"Passes over the training rows. Default: {FEWEST_EPOCHS} to {MOST_EPOCHS}, more for fewer rows; "
        f"{FEW_ROWS_EPOCHS} with few rows and a verbalizer; 1 with the contrastive objective, which repeats rows.",
    )
    batch_size: int | None = Field(
        None,
        ge=1,
        le=65_536,
        description=f"Rows per training batch. Default: {BATCH}, or {SMALL_BATCH} with fewer than {SMALL_ROWS} rows; "
        f"{CONTRASTIVE_BATCH} with the contrastive objective.",
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
        description="Peak learning rate of the prompt. Default: with muon, measured on the backbone; with adamw, it "
        "depends on method, encoder, init and backbone family.",
    )
    head_lr: float | None = Field(
        None,
        gt=0,
        le=1000,
        description="Peak learning rate of the head. Default: depends on method, encoder, head and backbone width.",
    )
    objective: Literal["labels", "contrastive"] | None = Field(
        None,
        description="What the prompt learns. labels: to predict the labels, together with the head. contrastive: to "
        "bring texts of a class together and those of other classes apart; the head is then fitted by logistic "
        "regression. Default: contrastive for single texts or pairs with few rows (at most "
        f"{FEW_PER_CLASS} a class and {FEW_CONTRASTIVE} in all) on an encoder with a deep prompt and a linear head, "
        "unless epochs, patience, best or a weighted loss are set; otherwise labels.",
    )
    folds: int | None = Field(
        None,
        ge=2,
        le=100,
        description="Measure by cross-validation with this many folds, then train on all rows. For data without a "
        f"validation split. Default: {FOLDS} with few rows and the contrastive objective, otherwise none.",
    )
    optimizer: Literal["muon", "adamw"] | None = Field(
        None,
        description="Optimizer of the prompt. muon: orthogonalised steps, for deep prompts without an encoder "
        "network. adamw: for all prompts. The head is always trained by adamw. Default: muon for deep prompts "
        "with softmax separate, otherwise adamw.",
    )
    weight_decay: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Weight decay; biases and norms have none. Default: 0.01, or 0.1 for deep prompts on "
        "pairs of texts, which overfit more easily; four times as much with muon.",
    )
    warmup: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Share of the steps in which the learning rates rise from 0 to their peak. Default: 0.3 for deep "
        "prompts of encoders on single texts, 0.06 for pairs, decoders and few rows, 0.12 for the other methods.",
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
    clip: float = Field(
        1.0,
        gt=0,
        description="Gradients with a larger norm are scaled down to this norm. 1e9 turns this off.",
    )
    patience: int | None = Field(
        None,
        ge=0,
        description="Stop after this many epochs without improvement; 0: run all epochs. Default: a quarter of the "
        f"epochs, at least {LEAST_PATIENCE}, counted from the first epoch that is better than chance.",
    )
    best: MetricName | Literal["last"] | None = Field(
        None,
        description="Validation metric that picks the best epoch. It is averaged over the epoch and the one before, "
        "because a single epoch may be best by luck; the lower loss decides a tie. last: keep the last epoch. Default: "
        "accuracy, f1 for several labels per row, pearson for a regression, or the main metric of a "
        "GLUE or SuperGLUE task; last where there is nothing to choose from (folds, the contrastive objective) or too "
        "few rows to choose by.",
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
    gradient_checkpointing: bool = Field(
        False,
        description="Compute each layer of the backbone a second time in the backward pass instead of keeping what it "
        "computed. This saves much memory, takes about a third longer, and gives the same adapter. Cannot be combined "
        "with compile.",
    )
    time_limit: Annotated[float | None, BeforeValidator(seconds_of)] = Field(
        None,
        gt=0,
        description="Longest time of training and validation, such as 90s, 10m or 1h30m; a number is seconds. The run "
        "then ends after the current step, measures what it has learned, and keeps the best so far. The learning rate "
        "may still be high at that point; fewer epochs usually give a better model in the same time. Default: no "
        "limit.",
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
        if self.best == "last" and self.patience:
            raise ValueError(
                "`patience` waits for a better epoch, but `best='last'` compares none; leave one of them out"
            )
        if self.folds and (self.patience or self.best not in (None, "last")):
            raise ValueError(
                "`folds` measures the last epoch by cross-validation, so there are no epochs to choose from; leave out "
                "`folds`, or `best` and `patience`"
            )
        if self.compile and self.gradient_checkpointing:
            raise ValueError(
                "`gradient_checkpointing` computes layers one by one, and `compile` all at once; leave one of them out"
            )
        return self

    def settle(self, prompt: PromptConfig, task: Task) -> SettledConfig:
        """Return the settings with a default for every field that was left None.

        Raises:
            ConfigError: a setting does not apply to the problem type.
        """
        self.check_use(task.problem_type)
        if self.optimizer == "muon" and (prompt.method, prompt.encoder) != ("deep", "none"):
            raise ConfigError(
                "`optimizer='muon'` is for deep prompts without an encoder network; use `optimizer='adamw'`, or "
                "`method='deep'` with `encoder='none'`",
                field="optimizer",
                value="muon",
                expected="adamw",
            )
        objective = self.objective or self._default_objective(prompt, task)
        self._check_objective(objective, prompt, task)
        chooses = bool(self.patience) or self.best not in (None, "last")  # which needs rows to validate on
        by_default = FOLDS if objective == "contrastive" and task.held_back and not chooses else None
        folds = self.folds or by_default
        rows = task.rows + (task.validation_rows if folds and task.held_back else 0)
        if folds and folds > rows:
            raise ConfigError(
                f"`folds={folds}` needs at least {folds} training rows, but there are {rows}; use fewer folds",
                field="folds",
                value=folds,
                expected=f"at most {rows}",
            )
        optimizer = self.optimizer or default_optimizer(prompt)
        lr = default_rate(prompt, task, optimizer)
        head_lr = RATES[(prompt.method, prompt.encoder == "none")][1] * math.sqrt(RATES_WIDTH / task.width)
        if prompt.head == "verbalizer":
            head_lr = VERBALIZER_RATE
        few_shot = prompt.head == "verbalizer" and prompt.init == "text" and task.rows <= FEW_ROWS
        batch = self.batch_size or (SMALL_BATCH if rows < SMALL_ROWS else BATCH)
        epochs = self.epochs or (FEW_ROWS_EPOCHS if few_shot else default_epochs(prompt, task))
        if objective == "contrastive":
            batch, epochs = self.batch_size or CONTRASTIVE_BATCH, self.epochs or 1
        global_batch = task.global_batch or getattr(self, "global_batch", None) or batch * task.processes
        if objective == "contrastive":
            lr *= WHOLE_RATE if rows <= global_batch else CONTRASTIVE_RATE
        steps = epochs * math.ceil(batches_per_epoch(objective, rows, global_batch) / self.accumulate)
        average = FEW_ROWS_AVERAGE if few_shot else default_average(steps)
        metrics = task.metrics or choices(task.problem_type)
        # A handful of validation rows cannot tell whether one epoch is better than another.
        cannot_compare = few_shot and task.validation_rows <= FEW_ROWS and self.patience is None
        best = "last" if cannot_compare or folds or (objective == "contrastive" and not chooses) else metrics[0]
        settled = {
            "objective": objective,
            "folds": folds,
            "epochs": epochs,
            "batch_size": batch,
            "global_batch": global_batch,
            "optimizer": optimizer,
            "lr": self.lr or lr,
            "head_lr": self.head_lr or head_lr,
            "weight_decay": default_decay(prompt, task, optimizer) if self.weight_decay is None else self.weight_decay,
            "warmup": default_warmup(prompt, task, optimizer, objective) if self.warmup is None else self.warmup,
            "average": average if self.average is None else self.average,
            "best": self.best or best,
            "compile": self._default_compile(task, steps) if self.compile is None else self.compile,
        }
        return SettledConfig(**{**self.model_dump(), **settled})

    def _default_objective(self, prompt: PromptConfig, task: Task) -> Literal["labels", "contrastive"]:
        """Return what the prompt learns. Settings about epochs are only of use with labels."""
        about_epochs = (self.epochs, self.patience, self.best) != (None, None, None)
        return "labels" if about_epochs or not self._can_contrast(prompt, task) else default_objective(prompt, task)

    def _default_compile(self, task: Task, steps: int) -> bool:
        """Return whether a run of so many steps is compiled."""
        return task.gpu and steps >= COMPILE_STEPS and not self.gradient_checkpointing

    def _can_contrast(self, prompt: PromptConfig, task: Task) -> bool:
        """Return whether a prompt can learn by comparing rows under these settings."""
        plain_loss = not (self.class_weights or self.focal or self.label_smoothing)
        return task.problem_type == SINGLE and prompt.head == "linear" and prompt.pooling != "peft" and plain_loss

    def _check_objective(self, objective: str, prompt: PromptConfig, task: Task) -> None:
        """Check that the objective and cross-validation are possible.

        Raises:
            ConfigError: they are not; the message says why and what to change.
        """
        if objective == "contrastive" and not self._can_contrast(prompt, task):
            raise ConfigError(
                "`objective='contrastive'` compares texts by their class, so it needs one label per row, a linear "
                "head with another pooling than `pooling='peft'`, and neither `class_weights`, `focal` nor "
                "`label_smoothing`; change these, or use `objective='labels'`",
                field="objective",
                value="contrastive",
                expected="labels",
            )
        if objective == "contrastive" and self.batch_size is not None and self.batch_size < LEAST_TO_COMPARE:
            raise ConfigError(
                f"`objective='contrastive'` compares the rows of a batch, two or more of two classes, so "
                f"`batch_size={self.batch_size}` is too small; use {LEAST_TO_COMPARE} or more",
                field="batch_size",
                value=self.batch_size,
                expected=f"{LEAST_TO_COMPARE} or more",
            )
        if self.folds and not task.held_back:
            raise ConfigError(
                "`folds` measures by cross-validation over the rows of a single file, but the data have a validation "
                "split, or only a sample of the rows is used; leave `folds` out, or give one file and use all its rows",
                field="folds",
                value=self.folds,
                expected="None",
            )

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

    objective: Literal["labels", "contrastive"]
    epochs: int
    batch_size: int
    global_batch: int  # rows of a batch over all processes
    optimizer: Literal["muon", "adamw"]
    lr: float
    head_lr: float
    weight_decay: float
    warmup: float
    average: float
    best: str  # type: ignore[assignment]  # may also be a metric of the user's
    compile: bool
