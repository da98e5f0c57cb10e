"""What is learned where training rows are few: the language model's own answer is the start, not chance.

With dozens of rows a head drawn at random has to learn what its classes mean from
nothing. A verbalizer knows it from the labels' words, and a prompt that starts as
a description of the task does not disturb it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ptune.errors import BackboneError, ConfigError
from ptune.model.backbone import Backbone
from ptune.model.config import PromptConfig, default_template
from ptune.model.words import are_words, label_tokens, words_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

# Labels that a description of the task may list; of more it would be longer than most texts.
_LISTED_LABELS = 20


def few_shot_config(
    config: PromptConfig, backbone: Backbone, labels: Sequence[str], tokenizer: PreTrainedTokenizerBase
) -> PromptConfig:
    """Fill in what was left open, for a task with at most FEW_ROWS training rows.

    The head becomes a verbalizer where the backbone can read words and the labels are some, and a prompt without an
    encoder starts from a description of the task. What was given stays.
    """
    if not config.has_words and (config.head is not None or not _can_read(config, backbone, labels, tokenizer)):
        return config
    filled: dict[str, Any] = {"head": "verbalizer"}
    # A deep prompt starts from a text under a shared softmax alone.
    method = config.method or ("deep" if backbone.family.shares else "prompt-tuning")
    if config.encoder in (None, "none", "residual"):
        filled["method"] = method
        if config.init is None and (method != "deep" or backbone.family.shares):
            filled |= {"init": "text", "init_text": describe_task(config, labels)}
        if config.token_dropout is None:
            filled["token_dropout"] = 0.0  # a text with holes is another text
    return config.model_copy(update=filled)


def describe_task(config: PromptConfig, labels: Sequence[str]) -> str:
    """A sentence that says what is asked, in the words of the labels: 'Classify the text as bad or good.'"""
    if len(labels) > _LISTED_LABELS:
        return "Classify the text.\n"
    words = [listed[0] for listed in words_of(labels, config.verbalizer).values()]
    return f"Classify the text as {', '.join(words[:-1])} or {words[-1]}.\n"


def _can_read(
    config: PromptConfig, backbone: Backbone, labels: Sequence[str], tokenizer: PreTrainedTokenizerBase
) -> bool:
    """Whether a verbalizer of the labels' names is possible; why not, is for the log."""
    decoder = backbone.family.decoder
    template = config.template or default_template(decoder)
    fits = config.pooling in (None, "last", "peft") if decoder else config.pooling in (None, "mask")
    if not fits or ("{mask}" in template) == decoder or not are_words(labels):
        return False
    try:
        label_tokens(tokenizer, labels, None, template)
        backbone.language_head()
    except (BackboneError, ConfigError) as err:
        logger.debug("few training rows, but no verbalizer: %s", err)
        return False
    return True
