"""Settings of training where rows are few and a verbalizer answers from the start."""

from __future__ import annotations

from typing import Any

from ptune.data.splits import TextData
from ptune.model.classifier import PromptClassifier
from ptune.model.few_shot import FEW_ROWS
from ptune.training.config import SettledConfig, Task, TrainConfig

# See docs/log.md.
_FEW_SHOT: dict[str, Any] = {"epochs": 12, "batch_size": 8, "average": 0.9}


def settle_training(config: TrainConfig, model: PromptClassifier, data: TextData) -> SettledConfig:
    """Fill in what was left open, for what is trained and the rows that there are.

    Of a handful of validation rows no epoch can be told to be better than another: the last one is kept then.
    """
    prompt = model.config
    if prompt.head == "verbalizer" and prompt.init == "text" and len(data.train) <= FEW_ROWS:
        few = _FEW_SHOT | ({"best": "last"} if len(data.validation) <= FEW_ROWS else {})
        config = config.model_copy(update={k: v for k, v in few.items() if k not in config.model_fields_set})
    pairs = data.train.pairs is not None
    task = Task(len(data.train), len(model.labels), model.backbone.output_width, model.problem_type, pairs)
    return config.settle(prompt, task)
