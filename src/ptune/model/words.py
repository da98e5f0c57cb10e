"""Verbalizers: which words stand for the labels, and which tokens stand for the words.

After PET (arXiv 2001.07676) and P-tuning (arXiv 2103.10385). Free of torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ptune.data.template import around_answer
from ptune.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_WORD_BORDER = re.compile(r"[_\s]+|(?<=[a-z])(?=[A-Z])")
_NO_NAME = re.compile(r"(label|class)?[_\s-]*\d*", re.IGNORECASE)


def parse_words(value: Any) -> Any:
    """{label: words} out of a mapping, its JSON, or 'negative=bad,awful;positive=great'. Types are checked elsewhere.

    Raises:
        ValueError: neither of them, or a label without words.
    """
    if isinstance(value, str):
        value = _parse_text(value)
    if not isinstance(value, dict):
        return value
    lists = {str(label): [words] if isinstance(words, str | int | float) else words for label, words in value.items()}
    for label, words in lists.items():
        if not words or (isinstance(words, list | tuple) and not all(str(word).strip() for word in words)):
            raise ValueError(f"label '{label}' has no word, or an empty one")
    return {
        label: [str(word).strip() for word in words] if isinstance(words, list | tuple) else words
        for label, words in lists.items()
    }


def _parse_text(text: str) -> Any:
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text)
        except ValueError as err:
            raise ValueError(f"the words are no mapping of labels: {err}") from err
    words: dict[str, list[str]] = {}
    for part in filter(str.strip, text.split(";")):
        label, equals, listed = part.partition("=")
        if not equals or not label.strip():
            raise ValueError(
                f"'{part.strip()}' is not label=word,word; expected such as 'negative=bad,awful;positive=great'"
            )
        words[label.strip()] = [word.strip() for word in listed.split(",")]
    return words


def word_of(label: str) -> str:
    """A label's name as a word: 'NotEntailed' and 'not_entailed' read 'not entailed', 'WORLD' stays."""
    parts = [part for part in _WORD_BORDER.split(label) if part]
    return " ".join(part if part.isupper() or len(parts) == 1 else part.lower() for part in parts)


def are_words(labels: Sequence[str]) -> bool:
    """Whether a model can have an idea of all labels by their names: not of '0', 'LABEL_1' or 'class 2'."""
    return not any(_NO_NAME.fullmatch(label) for label in labels)


def words_of(labels: Sequence[str], words: dict[str, list[str]] | None) -> dict[str, list[str]]:
    """The words of each label, in the labels' order; None: their own names.

    Raises:
        ConfigError: words for other labels than these.
    """
    words = {label: [word_of(label)] for label in labels} if words is None else words
    if set(words) != set(labels):
        raise ConfigError(
            f"the verbalizer has words for {_listed(words)}, but the labels are {_listed(labels)}; give words for "
            "every label and no other"
        )
    return {label: words[label] for label in labels}


def label_tokens(
    tokenizer: PreTrainedTokenizerBase,
    labels: Sequence[str],
    words: dict[str, list[str]] | None,
    template: str,
) -> list[list[int]]:
    """Tokens that stand for each label, in the labels' order: the first token of each word, where the answer stands.

    Args:
        words: by label; None: the labels' own names.
        template: decides what stands in front of the answer, and so whether the word begins with a blank.

    Raises:
        ConfigError: words for other labels than these, a word that the vocabulary lacks, labels with equal tokens.
    """
    own_words = words_of(labels, words)
    before, masked = around_answer(template)
    tokens = [
        list(dict.fromkeys(_first_token(tokenizer, word, before, masked) for word in listed))
        for listed in own_words.values()
    ]
    seen: dict[frozenset[int], str] = {}
    for label, own in zip(labels, tokens, strict=True):
        other = seen.setdefault(frozenset(own), label)
        if other != label:
            shown = ", ".join(repr(token) for token in tokenizer.convert_ids_to_tokens(own))
            first, second = (f"'{x}' ({_listed(own_words[x])})" for x in (other, label))
            raise ConfigError(
                f"labels {first} and {second} begin with the same tokens, {shown}, so the model could not tell them "
                "apart; give other words with `verbalizer`, or use `head='linear'`"
            )
    return tokens


def _first_token(tokenizer: PreTrainedTokenizerBase, word: str, before: str, masked: bool) -> int:
    """The token that a word begins with behind `before`: what the tokenizer makes of both, less what it makes of one.

    A mask takes the place of the word alone. At the end of a text the word begins with a blank, unless one is there.
    """
    front = before.rstrip() if masked else before
    gap = before[len(front) :] if masked else ("" if before[-1:].isspace() or not before else " ")
    prefix = tokenizer(front, add_special_tokens=False)["input_ids"] if front else []
    whole = tokenizer(front + gap + word, add_special_tokens=False)["input_ids"]
    apart = whole[: len(prefix)] == prefix and len(whole) > len(prefix)
    ids = whole[len(prefix) :] if apart else tokenizer(gap + word, add_special_tokens=False)["input_ids"]
    if not ids or ids[0] == tokenizer.unk_token_id:
        raise ConfigError(f"the word '{word}' of the verbalizer is not in the backbone's vocabulary; give another")
    return int(ids[0])


def _listed(words: Sequence[str] | dict[str, list[str]]) -> str:
    return ", ".join(f"'{word}'" for word in words) or "none"
