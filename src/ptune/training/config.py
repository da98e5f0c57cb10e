"""Settings of a training run, and the defaults that depend on what is trained."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ptune.model.config import PromptConfig


class TrainConfig(BaseModel):
    """How a prompt is trained. Rates left None follow from the method, see `settle`."""

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
    best: Literal["accuracy", "f1", "loss", "last"] = Field(
        "accuracy",
        description="The validation figure that picks the best epoch; ties go to the lower loss. last: the last epoch "
        "is kept, whatever the figures.",
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Of the split, the start of prompt and head, and the order.")
    checkpoint_steps: int = Field(
        200, ge=1, description="Steps between checkpoints for --resume; the end of each epoch always gets one."
    )

    def settle(self, prompt: PromptConfig) -> TrainConfig:
        """Fill in the learning rates that were left None."""
        prompt_lr, head_lr = _RATES[(prompt.method, prompt.encoder == "none")]
        if prompt.head == "verbalizer":
            head_lr = _VERBALIZER_RATE
        if prompt.method == "deep" and prompt.init == "text":
            prompt_lr = _TEXT_PROMPT_RATE
        return self.model_copy(update={"lr": self.lr or prompt_lr, "head_lr": self.head_lr or head_lr})


# Of heads that start at words and keys and values that start at a text: they know something that larger steps undo.
_VERBALIZER_RATE = 1e-4
_TEXT_PROMPT_RATE = 3e-3
# Peak rates of (prompt, head), by method and by whether the prompt is made of free vectors. See docs/log.md.
_RATES: dict[tuple[str | None, bool], tuple[float, float]] = {
    ("deep", True): (2e-2, 2e-3),
    ("deep", False): (1e-3, 3e-3),
    ("p-tuning", True): (1e-2, 3e-3),
    ("p-tuning", False): (1e-3, 3e-3),
    ("prompt-tuning", True): (1e-2, 3e-3),
    ("prompt-tuning", False): (1e-3, 3e-3),
}
