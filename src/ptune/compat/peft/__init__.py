"""Classes and functions with PEFT's names. A script for prompt learning runs after changing one import.

    - from peft import PromptEncoderConfig, get_peft_model
    + from ptune.compat.peft import PromptEncoderConfig, get_peft_model

Everything uses ptune's forward pass and PEFT's layout, and PEFT can read the
saved files. docs/peft.md lists what is supported and what differs.
"""

from __future__ import annotations

from typing import Any

from ptune.compat.peft.auto import AutoPeftModelForSequenceClassification
from ptune.compat.peft.config import (
    PeftConfig,
    PeftType,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptEncoderReparameterizationType,
    PromptLearningConfig,
    PromptTuningConfig,
    PromptTuningInit,
    TaskType,
    get_peft_config,
)
from ptune.compat.peft.model import PeftModel, PeftModelForSequenceClassification, get_peft_model
from ptune.compat.peft.state_dict import get_peft_model_state_dict, set_peft_model_state_dict
from ptune.errors import ConfigError

__all__ = [
    "AutoPeftModelForSequenceClassification",
    "PeftConfig",
    "PeftModel",
    "PeftModelForSequenceClassification",
    "PeftType",
    "PrefixTuningConfig",
    "PromptEncoderConfig",
    "PromptEncoderReparameterizationType",
    "PromptLearningConfig",
    "PromptTuningConfig",
    "PromptTuningInit",
    "TaskType",
    "get_peft_config",
    "get_peft_model",
    "get_peft_model_state_dict",
    "set_peft_model_state_dict",
]


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(f"module 'ptune.compat.peft' has no attribute {name!r}")
    # Python turns an AttributeError of an import into a message of its own, so this is another error.
    raise ConfigError(
        f"ptune.compat.peft has no {name}; ptune learns prompts that classify texts: use PromptEncoderConfig, "
        "PrefixTuningConfig or PromptTuningConfig, with get_peft_model or AutoPeftModelForSequenceClassification, or "
        "stay with PEFT for this"
    )
