"""PEFT's configurations for prompt learning, and their translation to ptune.

Names, fields and defaults are those of peft 0.21.2, so that scripts need not change their calls.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, fields
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
from ptune.places import as_place

logger = logging.getLogger(__name__)


class TaskType(StrEnum):
    """The task types of PEFT. ptune supports SEQ_CLS."""

    SEQ_CLS = "SEQ_CLS"
    SEQ_2_SEQ_LM = "SEQ_2_SEQ_LM"
    CAUSAL_LM = "CAUSAL_LM"
    TOKEN_CLS = "TOKEN_CLS"
    QUESTION_ANS = "QUESTION_ANS"
    FEATURE_EXTRACTION = "FEATURE_EXTRACTION"


class PeftType(StrEnum):
    """The PEFT methods for prompt learning that ptune supports."""

    P_TUNING = "P_TUNING"
    PREFIX_TUNING = "PREFIX_TUNING"
    PROMPT_TUNING = "PROMPT_TUNING"


class PromptEncoderReparameterizationType(StrEnum):
    """The network that computes the virtual tokens of P-tuning."""

    MLP = "MLP"
    LSTM = "LSTM"


class PromptTuningInit(StrEnum):
    """The initialization of the virtual tokens of prompt tuning."""

    TEXT = "TEXT"
    SAMPLE_VOCAB = "SAMPLE_VOCAB"
    RANDOM = "RANDOM"


@dataclass
class PeftConfig:
    """The fields that all configurations for prompt learning share. Sizes left None are filled in from the model.

    modules_to_save is recorded but has no effect: the prompt and the classification head are trained and saved, and
    nothing else.

    Raises:
        ConfigError: a value is invalid.
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
    peft_type: PeftType | str | None = None

    is_prompt_learning: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.task_type is not None:
            self.task_type = _choice(TaskType, "task_type", self.task_type)
        if self.peft_type is not None:
            self.peft_type = _choice(PeftType, "peft_type", self.peft_type)

    def _set_type(self, peft_type: PeftType) -> None:
        """Set the method of a configuration class.

        Raises:
            ConfigError: another method was given.
        """
        if self.peft_type not in (None, peft_type):
            config_class = _CONFIGS[str(self.peft_type)].__name__
            raise ConfigError(
                f"`peft_type` is '{self.peft_type}', but a {type(self).__name__} is for '{peft_type}'; leave it out, "
                f"or use {config_class}",
                field="peft_type",
                value=self.peft_type,
                expected=peft_type.value,
            )
        self.peft_type = peft_type

    def to_prompt(self, backbone: Backbone) -> PromptConfig:
        """Return the prompt settings of ptune that match this configuration.

        Raises:
            ConfigError: ptune does not support a setting. The message says what to use instead.
        """
        if self.task_type != TaskType.SEQ_CLS:
            task_type = None if self.task_type is None else TaskType(self.task_type).value
            raise ConfigError(
                f"`task_type` is {task_type!r}, but ptune classifies texts; use `task_type='SEQ_CLS'`, or stay with "
                "PEFT for other tasks",
                field="task_type",
                value=task_type,
                expected="SEQ_CLS",
            )
        if self.num_virtual_tokens is None:
            raise ConfigError(
                "`num_virtual_tokens` is missing; give a number, such as 20",
                field="num_virtual_tokens",
                expected="a positive whole number",
            )
        common = {"virtual_tokens": self.num_virtual_tokens, "pooling": "peft", "token_dropout": 0.0}
        settings = common | self._prompt_settings(backbone)
        try:
            return PromptConfig.model_validate(settings)
        except ValidationError as err:
            names = {"virtual_tokens": "num_virtual_tokens", "encoder_layers": "encoder_num_layers"}
            raise ConfigError(describe_problems(err, lambda name: names.get(name, name))) from err

    def _prompt_settings(self, backbone: Backbone) -> dict[str, Any]:  # noqa: ARG002
        raise ConfigError(f"{type(self).__name__} names no method; give one of {', '.join(sorted(_names()))}")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as adapter_config.json stores them."""
        content = asdict(self)
        return {key: value.value if isinstance(value, Enum) else value for key, value in content.items()}

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write adapter_config.json."""
        text = json.dumps(dict(sorted(self.to_dict().items())), indent=2, ensure_ascii=False) + "\n"
        write_files(as_place(save_directory), {PEFT_FILE: text.encode()})

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path) -> PeftConfig:
        """Read the adapter_config.json of an adapter. The result has the class of the adapter's method.

        Raises:
            AdapterError: there is no such file, the adapter is damaged, or ptune does not support its method.
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
    """P-tuning: an MLP or an LSTM computes virtual tokens at the input."""

    encoder_reparameterization_type: PromptEncoderReparameterizationType | str = PromptEncoderReparameterizationType.MLP
    encoder_hidden_size: int | None = None
    encoder_num_layers: int = 2
    encoder_dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set_type(PeftType.P_TUNING)
        name = "encoder_reparameterization_type"
        encoder_type = _choice(PromptEncoderReparameterizationType, name, self.encoder_reparameterization_type)
        self.encoder_reparameterization_type = encoder_type

    def _prompt_settings(self, backbone: Backbone) -> dict[str, Any]:
        mlp = self.encoder_reparameterization_type == PromptEncoderReparameterizationType.MLP
        if mlp and self.encoder_dropout:
            raise ConfigError(
                f"`encoder_dropout` is {self.encoder_dropout}, which PEFT ignores for an MLP; leave it out to get what "
                "PEFT does, or use ptune.PromptConfig(method='p-tuning', encoder_dropout=...) for a dropout that works",
                field="encoder_dropout",
                value=self.encoder_dropout,
                expected="0 for an MLP",
            )
        if mlp and self.encoder_num_layers != 2:
            logger.warning("`encoder_num_layers` has no effect on an MLP, as in PEFT")
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
        self._set_type(PeftType.PREFIX_TUNING)

    def _prompt_settings(self, backbone: Backbone) -> dict[str, Any]:
        if self.init_weights is not None:
            raise ConfigError(
                f"`init_weights` is {self.init_weights!r}, which ptune does not support; for a prefix that has no "
                "effect at first, use ptune.PromptConfig(method='deep')",
                field="init_weights",
                value=self.init_weights,
                expected="None",
            )
        return {
            "method": "deep",
            "encoder": "mlp" if self.prefix_projection else "none",
            "encoder_hidden_size": self.encoder_hidden_size or backbone.kv_width,
            "softmax": "shared",
        }


@dataclass
class PromptTuningConfig(PeftConfig):
    """Prompt tuning: virtual tokens at the input that are learned directly."""

    prompt_tuning_init: PromptTuningInit | str = PromptTuningInit.RANDOM
    prompt_tuning_init_text: str | None = None
    tokenizer_name_or_path: str | None = None
    tokenizer_kwargs: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set_type(PeftType.PROMPT_TUNING)
        self.prompt_tuning_init = _choice(PromptTuningInit, "prompt_tuning_init", self.prompt_tuning_init)
        needed = ("prompt_tuning_init_text", "tokenizer_name_or_path")
        missing = [name for name in needed if not getattr(self, name)]
        if self.prompt_tuning_init == PromptTuningInit.TEXT and missing:
            names = " and ".join(f"`{name}`" for name in missing)
            raise ConfigError(f"`prompt_tuning_init='TEXT'` needs {names}", field=missing[0], expected="text")

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
    """Return the content of adapter_config.json, which was checked when the adapter was read."""
    return json.loads((file.folder / PEFT_FILE).read_text(encoding="utf-8"))


def from_content(content: dict[str, Any]) -> PeftConfig:
    """Return the configuration that an adapter_config.json describes. Unknown keys are ignored."""
    config_class = _CONFIGS[content["peft_type"]]
    known = {parameter.name for parameter in fields(config_class) if parameter.init}
    return config_class(**{key: value for key, value in content.items() if key in known})


def get_peft_config(config_dict: dict[str, Any]) -> PeftConfig:
    """Return the configuration that a dictionary describes. Its `peft_type` says which class it has.

    Raises:
        ConfigError: `peft_type` is missing or is not one of the methods that ptune supports, or a key is unknown.
    """
    peft_type = config_dict.get("peft_type")
    if peft_type is None:
        raise ConfigError(
            f"the dictionary has no `peft_type`; give one of {', '.join(_CONFIGS)}",
            field="peft_type",
            expected=f"one of {', '.join(_CONFIGS)}",
        )
    config_class = _CONFIGS[_choice(PeftType, "peft_type", peft_type).value]
    known = [parameter.name for parameter in fields(config_class)]
    unknown = sorted(set(config_dict) - set(known))
    if unknown:
        raise ConfigError(
            f"{config_class.__name__} does not know {', '.join(f'`{name}`' for name in unknown)}; it has "
            f"{', '.join(known)}",
            field=unknown[0],
            value=config_dict[unknown[0]],
            expected=f"one of {', '.join(known)}",
        )
    return config_class(**config_dict)


def _names() -> set[str]:
    return {config_class.__name__ for config_class in _CONFIGS.values()}


def _choice(choices: type[Enum], name: str, value: Any) -> Any:
    """Return the member of an enumeration that has a value.

    Raises:
        ConfigError: there is no such member.
    """
    try:
        return choices(value)
    except ValueError:
        known = ", ".join(choice.value for choice in choices)
        raise ConfigError(
            f"`{name}` is {value!r}; expected one of {known}", field=name, value=value, expected=f"one of {known}"
        ) from None
