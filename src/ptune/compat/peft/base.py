"""A classifier of transformers in memory, as a script hands it over, as ptune's backbone; and its inputs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

from ptune.data.targets import REGRESSION, SINGLE, ProblemType
from ptune.errors import ConfigError, DataError
from ptune.model.backbone import Backbone
from ptune.model.classifier import PromptClassifier
from ptune.model.config import PromptConfig
from ptune.model.loading import as_backbone, use_attention_function
from ptune.model.locate import Location


def make_backbone(model: Any) -> Backbone:
    """Freeze a classifier of transformers; new adapters start with a copy of its head.

    Raises:
        ConfigError: it is no classifier of texts. BackboneError: prompts do not work on it.
    """
    kind = type(model).__name__
    if not kind.endswith("ForSequenceClassification") or not hasattr(model, "base_model_prefix"):
        raise ConfigError(
            f"the model is a {kind}; give one that AutoModelForSequenceClassification.from_pretrained made"
        )
    name = model.config.name_or_path
    use_attention_function(model, name or kind)
    prefix = model.base_model_prefix + "."
    head = {
        key: value.detach().float().clone() for key, value in model.state_dict().items() if not key.startswith(prefix)
    }
    location = Location(name, name, revision=getattr(model.config, "_commit_hash", None))
    return as_backbone(model, location, head)


def problem_type_of(config: Any) -> ProblemType:
    """As transformers takes it, as long as no label was seen."""
    return config.problem_type or (REGRESSION if config.num_labels == 1 else SINGLE)


def let_learn(classifier: PromptClassifier, learn: bool) -> None:
    """Let an adapter's prompt and head learn, or stay as they are."""
    classifier.prompt_encoder.requires_grad_(learn)
    classifier.head.requires_grad_(learn)


def check_options(call: str, options: Iterable[str], known: Sequence[str]) -> None:
    """Whether a call knows the options that it was given by name.

    Raises:
        ConfigError: one is unknown.
    """
    wrong = sorted(set(options) - set(known))
    if wrong:
        raise ConfigError(f"{call} takes no {', '.join(wrong)}; beside its own it knows {', '.join(known)}")


def text_first(
    input_ids: Tensor,
    attention_mask: Tensor | None,
    token_type_ids: Tensor | None,
    config: PromptConfig,
    room: int | None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Ids, mask and segments [B, T], with padding behind the text, from wherever a tokenizer put it.

    Args:
        room: tokens that a text may have; see `text_room`.

    Raises:
        DataError: a text is longer.
    """
    length = input_ids.shape[1]
    if attention_mask is not None:
        order = attention_mask.long().argsort(dim=1, descending=True, stable=True)
        if room is not None and length > room:  # it may be padding alone
            length = int((attention_mask != 0).sum(dim=1).max())
            order = order[:, :length]
        input_ids, attention_mask = input_ids.gather(1, order), attention_mask.gather(1, order)
        token_type_ids = None if token_type_ids is None else token_type_ids.gather(1, order)
    if room is not None and length > room:
        raise DataError(
            f"a text has {length} tokens, but the model has room for {room} beside {config.virtual_tokens} virtual "
            f"tokens; tokenize with truncation=True, max_length={room}"
        )
    return input_ids, attention_mask, token_type_ids


def text_room(config: PromptConfig, backbone: Backbone) -> int | None:
    """Tokens that a text may have; None where nothing limits them."""
    return None if backbone.max_positions is None else backbone.max_positions - config.positions_taken
