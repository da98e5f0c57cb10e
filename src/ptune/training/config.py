"""Settings of a training run, and the defaults that depend on what is trained."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ptune.data.targets import MULTI, REGRESSION, SINGLE, ProblemType
from ptune.errors import ConfigError
from ptune.model.config import PromptConfig

Figure = Literal["accuracy", "f1", "f1_macro", "matthews", "mse", "mae", "pearson", "spearman", "r2", "loss"]
# Those that a problem type has, its default for the best epoch first.
FIGURES: dict[ProblemType, tuple[Figure, ...]] = {
    SINGLE: ("accuracy", "f1", "f1_macro", "matthews", "loss"),
    MULTI: ("f1", "f1_macro", "accuracy", "loss"),
    REGRESSION: ("pearson", "spearman", "r2", "mse", "mae", "loss"),
}
LESS_IS_BETTER = ("loss", "mse", "mae")


class TrainConfig(BaseModel):
    """How a prompt is trained. What is left None follows from the method and the problem type, see `settle`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(10, ge=1, le=10_000, description="Passes over the training rows.")
    batch_size: int = Field(16, ge=1, le=65_536, description="Rows of a forward pass.")
    accumulate: int = Field(
        1, ge=1, le=4096, description="Batches whose gradients make one step; the loss stays a mean over rows."
    )
    lr: float | None = Field(None, gt=0, le=1000, description="Peak learning rate of the prompt. Default: by method.")
    head_lr: float | None = Field(
        None, gt=0, le=1000, description="Peak learning rate of the head. Default: by method."
    )
    weight_decay: float = Field(0.01, ge=0, le=1, description="AdamW's decay of weights; biases and norms are spared.")
    warmup: float = Field(0.06, ge=0, le=1, description="Share of the steps in which the rates rise from 0.")
    schedule: Literal["linear", "cosine", "constant"] = Field(
        "linear", description="How the rates go from their peak to 0 after the warm-up."
    )
    average: float = Field(
        0.99,
        ge=0,
        lt=1,
        description="Decay of the moving average of prompt and head over the steps, which is what is evaluated and "
        "kept; 0 keeps the last step's.",
    )
    clip: float = Field(1.0, gt=0, description="Largest norm of the gradient; longer ones are scaled down to it.")
    patience: int | None = Field(
        None, ge=1, description="Stop after so many epochs without a better one. Default: run all epochs."
    )
    best: Figure | None = Field(
        None,
        description="The validation figure that picks the best epoch; ties go to the lower loss. Default: accuracy; f1 "
        "of several labels a row; pearson of a regression.",
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
    checkpoint_steps: int = Field(
        200, ge=1, description="Steps between checkpoints for --resume; the end of each epoch always gets one."
    )

    def settle(self, prompt: PromptConfig, problem_type: ProblemType = SINGLE) -> TrainConfig:
        """Fill in what was left None.

        Raises:
            ConfigError: a setting that the problem type has no use for.
        """
        self.check_use(problem_type)
        prompt_lr, head_lr = _RATES[(prompt.method, prompt.encoder == "none")]
        best = self.best or FIGURES[problem_type][0]
        return self.model_copy(update={"lr": self.lr or prompt_lr, "head_lr": self.head_lr or head_lr, "best": best})

    def check_use(self, problem_type: ProblemType) -> None:
        """Whether the problem type has a use for all settings.

        Raises:
            ConfigError: it has not; names the setting, and those that there are.
        """
        figures = FIGURES[problem_type]
        if self.best is not None and self.best not in figures:
            raise ConfigError(f"best '{self.best}' is no figure of {problem_type}; use one of {', '.join(figures)}")
        if self.label_smoothing and problem_type != SINGLE:
            raise ConfigError(f"label_smoothing is for {SINGLE}, these data are {problem_type}; leave it at 0")
        if (self.class_weights or self.focal) and problem_type == REGRESSION:
            raise ConfigError("class_weights and focal are for labels, and a regression has none; leave them out")


# Peak rates of (prompt, head), by method and by whether the prompt is made of free vectors. See docs/log.md.
_RATES: dict[tuple[str | None, bool], tuple[float, float]] = {
    ("deep", True): (2e-2, 2e-3),
    ("deep", False): (1e-3, 3e-3),
    ("p-tuning", True): (1e-2, 3e-3),
    ("p-tuning", False): (1e-3, 3e-3),
    ("prompt-tuning", True): (1e-2, 3e-3),
    ("prompt-tuning", False): (1e-3, 3e-3),
}
