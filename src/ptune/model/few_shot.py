"""Defaults for few training rows: training starts from the language model's answer instead of random weights.

A head with random weights has to learn the meaning of its classes from a few
dozen rows. A verbalizer takes the meaning from the words of the labels, and a
prompt that starts from a description of the task fits these words.
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

# Largest number of labels that a description of the task lists. With more it would be longer than most texts.
_LISTED_LABELS = 20


def few_shot_config(
    config: PromptConfig, backbone: Backbone, labels: Sequence[str], tokenizer: PreTrainedTokenizerBase
) -> PromptConfig:
    """Return the configuration with the defaults for a task with at most FEW_ROWS training rows.

    The head becomes a verbalizer if the backbone has a language-model head and the labels are words. A prompt without
    an encoder then starts from a description of the task. Settings that the user gave are kept. Whoever asks for
    p-tuning or for PEFT's pooling wants an adapter that PEFT reads. PEFT knows no template, so there is no verbalizer
    unless it is asked for as well.

    Args:
        config: the configuration as the user gave it.
        backbone: the frozen model.
        labels: names of the labels.
        tokenizer: the backbone's tokenizer.
    """
    unwanted = config.head is not None or config.method == "p-tuning" or config.pooling == "peft"
    if not config.has_words and (unwanted or not _can_verbalize(config, backbone, labels, tokenizer)):
        return config
    filled: dict[str, Any] = {"head": "verbalizer"}
    # A deep prompt can only start from a text if it shares the softmax with the text.
    method = config.method or ("deep" if backbone.family.shares else "prompt-tuning")
    if config.encoder in (None, "none", "residual"):
        filled["method"] = method
        if config.init is None and (method != "deep" or backbone.family.shares):
            filled |= {"init": "text", "init_text": describe_task(config, labels)}
        if config.token_dropout is None:
            filled["token_dropout"] = 0.0  # without some of its tokens the text has another meaning
    return config.model_copy(update=filled)


def describe_task(config: PromptConfig, labels: Sequence[str]) -> str:
    """Return a description of the task in the words of the labels, such as 'Classify the text as bad or good.'."""
    if len(labels) > _LISTED_LABELS:
        return "Classify the text.\n"
    first_words = [words[0] for words in words_of(labels, config.verbalizer).values()]
    return f"Classify the text as {', '.join(first_words[:-1])} or {first_words[-1]}.\n"


def _can_verbalize(
    config: PromptConfig, backbone: Backbone, labels: Sequence[str], tokenizer: PreTrainedTokenizerBase
) -> bool:
    """Return whether the names of the labels can be used as a verbalizer. The debug log has the reason if not."""
    decoder = backbone.family.decoder
    template = config.template or default_template(decoder)
    pooling_fits = config.pooling in (None, "last") if decoder else config.pooling in (None, "mask")
    if not pooling_fits or ("{mask}" in template) == decoder or not are_words(labels):
        return False
    try:
        label_tokens(tokenizer, labels, None, template)
        backbone.language_head()
    except (BackboneError, ConfigError) as err:
        logger.debug("there are few training rows, but a verbalizer is not possible: %s", err)
        return False
    return True
