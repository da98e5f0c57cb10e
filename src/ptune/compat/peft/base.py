"""Use a transformers classifier that a script has loaded as ptune's backbone, and prepare its inputs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
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
    """Freeze a transformers classifier and return it as a backbone. New adapters start with a copy of its head.

    Raises:
        ConfigError: the model is not a transformers model for sequence classification.
        BackboneError: prompts do not work on the model.
    """
    class_name = type(model).__name__
    if not class_name.endswith("ForSequenceClassification") or not hasattr(model, "base_model_prefix"):
        raise ConfigError(
            f"the model is a {class_name}; give one that AutoModelForSequenceClassification.from_pretrained made"
        )
    name = model.config.name_or_path
    use_attention_function(model, name or class_name)
    prefix = model.base_model_prefix + "."
    head = {
        key: value.detach().float().clone() for key, value in model.state_dict().items() if not key.startswith(prefix)
    }
    location = Location(name, name, revision=getattr(model.config, "_commit_hash", None))
    return as_backbone(model, location, head, pooler_missing=_lacks_pooler(model, location))


def _lacks_pooler(model: Any, location: Location) -> bool:
    """Return True if the checkpoint that a model was read from has no weights for the model's pooler.

    transformers then draws them at random, so they are others whenever the model is read again. The answer is False if
    there is no safetensors file to look into.
    """
    if getattr(model.base_model, "pooler", None) is None:
        return False
    names = _weight_names(location.path, location.revision)
    return bool(names) and not any("pooler" in name.split(".") for name in names)


def _weight_names(name: str, revision: str | None) -> list[str]:
    """Return the names of the weights in the safetensors files of a model, which are in a folder or the Hub's cache."""
    from huggingface_hub import try_to_load_from_cache
    from safetensors import SafetensorError, safe_open

    if not name:  # a model that was made from a configuration
        return []
    for file_name in ("model.safetensors", "model.safetensors.index.json"):
        try:
            found = Path(name) / file_name
            if not Path(name).is_dir():
                found = Path(try_to_load_from_cache(name, file_name, revision=revision))
            if file_name.endswith(".json"):
                return list(json.loads(found.read_text(encoding="utf-8"))["weight_map"])
            with safe_open(found, framework="pt") as file:
                return list(file.keys())
        except (OSError, ValueError, TypeError, KeyError, SafetensorError):
            continue  # not there, or not readable
    return []


def problem_type_of(config: Any) -> ProblemType:
    """Return the problem type that transformers assumes before it has seen a label."""
    return config.problem_type or (REGRESSION if config.num_labels == 1 else SINGLE)


def let_learn(classifier: PromptClassifier, learn: bool) -> None:
    """Make an adapter's prompt and head trainable, or freeze them."""
    classifier.prompt_encoder.requires_grad_(learn)
    classifier.head.requires_grad_(learn)


def check_options(call: str, options: Iterable[str], known: Sequence[str]) -> None:
    """Check that a call knows all the options that it was given.

    Args:
        call: name of the method, for the message.
        options: names that the method's signature does not list.
        known: further names that the method accepts.

    Raises:
        ConfigError: an option is unknown.
    """
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ConfigError(
            f"{call} does not know {', '.join(unknown)}; besides the parameters in its signature it takes "
            f"{', '.join(known)}"
        )


def text_first(
    input_ids: Tensor,
    attention_mask: Tensor | None,
    token_type_ids: Tensor | None,
    config: PromptConfig,
    room: int | None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return ids, mask and segments [B, T] with all padding moved behind the text.

    Args:
        room: most tokens that a text may have. None: no limit.

    Raises:
        DataError: a text is too long.
    """
    length = input_ids.shape[1]
    if attention_mask is not None:
        order = attention_mask.long().argsort(dim=1, descending=True, stable=True)
        if room is not None and length > room:  # only the padding may be too long
            length = int((attention_mask != 0).sum(dim=1).max())
            order = order[:, :length]
        input_ids, attention_mask = input_ids.gather(1, order), attention_mask.gather(1, order)
        token_type_ids = None if token_type_ids is None else token_type_ids.gather(1, order)
    if room is not None and length > room:
        raise DataError(
            f"a text has {length} tokens, but the model has room for {room} in addition to {config.virtual_tokens} "
            f"virtual tokens; tokenize with truncation=True, max_length={room}"
        )
    return input_ids, attention_mask, token_type_ids
