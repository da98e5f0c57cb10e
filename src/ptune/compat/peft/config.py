"""PEFT's configurations of prompt learning, and what they mean in ptune.

Names, fields and defaults are those of peft 0.21.2, so that a script's calls stay as they are.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, field, fields
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ValidationError

from ptune.adapter.folder import AdapterFile, read_adapter
from ptune.adapter.layout import PEFT_FILE
from ptune.atomic import write_files
from ptune.errors import AdapterError, ConfigError, describe_problems
from ptune.model.backbone import Backbone
from ptune.model.config import PromptConfig

logger = logging.getLogger(__name__)


class TaskType(StrEnum):
    """PEFT's tasks; ptune does SEQ_CLS."""

    SEQ_CLS = "SEQ_CLS"
    SEQ_2_SEQ_LM = "SEQ_2_SEQ_LM"
    CAUSAL_LM = "CAUSAL_LM"
    TOKEN_CLS = "TOKEN_CLS"
    QUESTION_ANS = "QUESTION_ANS"
    FEATURE_EXTRACTION = "FEATURE_EXTRACTION"


class PeftType(StrEnum):
    """The methods of PEFT that learn prompts."""

    P_TUNING = "P_TUNING"
    PREFIX_TUNING = "PREFIX_TUNING"
    PROMPT_TUNING = "PROMPT_TUNING"


class PromptEncoderReparameterizationType(StrEnum):
    """The network that makes the virtual tokens of P-tuning."""

    MLP = "MLP"
    LSTM = "LSTM"


class PromptTuningInit(StrEnum):
    """Where the virtual tokens of prompt tuning start."""

    TEXT = "TEXT"
    SAMPLE_VOCAB = "SAMPLE_VOCAB"
    RANDOM = "RANDOM"


@dataclass
class PeftConfig:
    """What all of PEFT's prompt-learning configurations have. Sizes left None are filled in from the model.

    modules_to_save is recorded and of no effect: the classification head is always trained and saved, nothing else is.

    Raises:
        ConfigError: a value that cannot be meant.
    """

    task_type: TaskType | str | None = None
    inference_mode: bool = False
    num_virtual_tokens: int | None = None
    token_dim: int | None = None
    num_transformer_submodules: int | None = None
    num_attention_heads: int | None = None
    num_layers: int | None = None
    modules_to_save: list[str] | None = None
    base_model_name_or_path: str | None = None
    revision: str | None = None
    auto_mapping: dict[str, Any] | None = None
    peft_version: str | None = None
    peft_type: PeftType | None = field(default=None, init=False)

    is_prompt_learning: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.task_type is not None:
            self.task_type = _choice(TaskType, "task_type", self.task_type)

    def to_prompt(self, backbone: Backbone) -> PromptConfig:
        """What ptune trains for this configuration.

        Raises:
            ConfigError: it asks for what ptune does otherwise; says what to use instead.
        """
        if self.task_type != TaskType.SEQ_CLS:
            said = None if self.task_type is None else TaskType(self.task_type).value
            raise ConfigError(
                f"task_type is {said!r}, but ptune classifies texts: give task_type='SEQ_CLS', or stay with PEFT for "
                "other tasks"
            )
        if self.num_virtual_tokens is None:
            raise ConfigError("num_virtual_tokens is missing; give a number, such as 20")
        own = self._prompt_settings(backbone)
        common = {"virtual_tokens": self.num_virtual_tokens, "pooling": "peft", "token_dropout": 0.0}
        try:
            return PromptConfig(**{**common, **own})
        except ValidationError as err:
            names = {"virtual_tokens": "num_virtual_tokens", "encoder_layers": "encoder_num_layers"}
            raise ConfigError(describe_problems(err, lambda name: names.get(name, name))) from err

    def _prompt_settings(self, backbone: Backbone) -> dict[str, Any]:  # noqa: ARG002
        raise ConfigError(f"{type(self).__name__} names no method; give one of {', '.join(sorted(_names()))}")

    def to_dict(self) -> dict[str, Any]:
        """The fields, as adapter_config.json has them."""
        content = asdict(self)
        return {key: value.value if isinstance(value, Enum) else value for key, value in content.items()}

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write adapter_config.json."""
        text = json.dumps(dict(sorted(self.to_dict().items())), indent=2, ensure_ascii=False) + "\n"
        write_files(Path(save_directory).expanduser(), {PEFT_FILE: text.encode()})

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path) -> PeftConfig:
        """Read the adapter_config.json of an adapter, whatever the class it is called on.

        Raises:
            AdapterError: there is none, the adapter is damaged, or of a method that ptune does not have.
        """
        file = read_adapter(pretrained_model_name_or_path)
        if not file.peft:
            raise AdapterError(
                f"adapter '{pretrained_model_name_or_path}' has no {PEFT_FILE}, as PEFT would misread it; use "
                "PeftModel.from_pretrained, or ptune.load"
            )
        return from_content(peft_content(file))


@dataclass
class PromptEncoderConfig(PeftConfig):
    """P-tuning: virtual tokens at the input, made by an MLP or an LSTM."""

    encoder_reparameterization_type: PromptEncoderReparameterizationType | str = PromptEncoderReparameterizationType.MLP
    encoder_hidden_size: int | None = None
    encoder_num_layers: int = 2
    encoder_dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType.P_TUNING
        name = "encoder_reparameterization_type"
        kind = _choice(PromptEncoderReparameterizationType, name, self.encoder_reparameterization_type)
        self.encoder_reparameterization_type = kind

    def _prompt_settings(self, backbone: Backbone) -> dict[str, Any]:
        mlp = self.encoder_reparameterization_type == PromptEncoderReparameterizationType.MLP
        if mlp and self.encoder_dropout:
            raise ConfigError(
                f"encoder_dropout is {self.encoder_dropout}, which PEFT ignores for an MLP; leave it out for what PEFT "
                "does, or use ptune.PromptConfig(method='p-tuning', encoder_dropout=...) for a dropout that works"
            )
        if mlp and self.encoder_num_layers != 2:
            logger.warning("encoder_num_layers is of no effect on an MLP, as in PEFT")
        return {
            "method": "p-tuning",
            "encoder": "mlp" if mlp else "lstm",
            "encoder_hidden_size": self.encoder_hidden_size or backbone.embedding_width,
            "encoder_layers": 2 if mlp else self.encoder_num_layers,
            "encoder_dropout": self.encoder_dropout,
        }


@dataclass
class PrefixTuningConfig(PeftConfig):
    """Prefix tuning: keys and values in every layer."""

    encoder_hidden_size: int | None = None
    prefix_projection: bool = False
    init_weights: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType.PREFIX_TUNING

    def _prompt_settings(self, backbone: Backbone) -> dict[str, Any]:
        if self.init_weights is not None:
            raise ConfigError(
                f"init_weights is {self.init_weights!r}; for a prefix that starts without effect use "
                "ptune.PromptConfig(method='deep'), whose default it is"
            )
        return {
            "method": "deep",
            "encoder": "mlp" if self.prefix_projection else "none",
            "encoder_hidden_size": self.encoder_hidden_size or backbone.kv_width,
            "softmax": "shared",
        }


@dataclass
class PromptTuningConfig(PeftConfig):
    """Prompt tuning: free virtual tokens at the input."""

    prompt_tuning_init: PromptTuningInit | str = PromptTuningInit.RANDOM
    prompt_tuning_init_text: str | None = None
    tokenizer_name_or_path: str | None = None
    tokenizer_kwargs: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType.PROMPT_TUNING
        self.prompt_tuning_init = _choice(PromptTuningInit, "prompt_tuning_init", self.prompt_tuning_init)
        needed = ("prompt_tuning_init_text", "tokenizer_name_or_path")
        missing = [name for name in needed if not getattr(self, name)]
        if self.prompt_tuning_init == PromptTuningInit.TEXT and missing:
            raise ConfigError(f"prompt_tuning_init 'TEXT' needs {' and '.join(missing)}")

    def _prompt_settings(self, backbone: Backbone) -> dict[str, Any]:  # noqa: ARG002
        inits = {"TEXT": "text", "SAMPLE_VOCAB": "vocabulary", "RANDOM": "normal"}
        init = inits[PromptTuningInit(self.prompt_tuning_init).value]
        text = self.prompt_tuning_init_text if init == "text" else None
        return {"method": "prompt-tuning", "encoder": "none", "init": init, "init_text": text}


PromptLearningConfig = PeftConfig
_CONFIGS: dict[str, type[PeftConfig]] = {
    "P_TUNING": PromptEncoderConfig,
    "PREFIX_TUNING": PrefixTuningConfig,
    "PROMPT_TUNING": PromptTuningConfig,
}


def peft_content(file: AdapterFile) -> dict[str, Any]:
    """What adapter_config.json says, of an adapter that has one; it was checked when the adapter was read."""
    return json.loads((file.folder / PEFT_FILE).read_text(encoding="utf-8"))


def from_content(content: dict[str, Any]) -> PeftConfig:
    """A configuration from the content of an adapter_config.json of P-tuning, prefix or prompt tuning.

    Keys that it does not know are left out.
    """
    config_class = _CONFIGS[content["peft_type"]]
    known = {own.name for own in fields(config_class) if own.init}
    return config_class(**{key: value for key, value in content.items() if key in known})


def _names() -> set[str]:
    return {config_class.__name__ for config_class in _CONFIGS.values()}


def _choice(choices: type[Enum], name: str, value: Any) -> Any:
    """A member of an enumeration by its value.

    Raises:
        ConfigError: there is none.
    """
    try:
        return choices(value)
    except ValueError:
        known = ", ".join(choice.value for choice in choices)
        raise ConfigError(f"{name} is {value!r}; expected one of {known}") from None
