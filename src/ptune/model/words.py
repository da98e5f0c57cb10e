"""Verbalizers: which words stand for the labels, and which tokens stand for the words.

The method follows PET (arXiv 2001.07676) and P-tuning (arXiv 2103.10385). This module does not import torch.
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
    """Read the words of each label.

    Args:
        value: a mapping of labels to words, the same as JSON, or a text such as 'negative=bad,awful;positive=great'.

    Returns:
        {label: words}. Values of other types are returned unchanged; pydantic then rejects them.

    Raises:
        ValueError: a text in another form, or a label without words.
    """
    if isinstance(value, str):
        value = _parse_text(value)
    if not isinstance(value, dict):
        return value
    lists = {str(label): [words] if isinstance(words, str | int | float) else words for label, words in value.items()}
    for label, words in lists.items():
        if not words or (isinstance(words, list | tuple) and not all(str(word).strip() for word in words)):
            raise ValueError(f"label '{label}' has no word, or an empty one; give at least one word")
    return {
        label: [str(word).strip() for word in words] if isinstance(words, list | tuple) else words
        for label, words in lists.items()
    }


def _parse_text(text: str) -> Any:
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text)
        except ValueError as err:
            raise ValueError(f"the words are not a JSON object of labels and words: {err}") from err
    words: dict[str, list[str]] = {}
    for entry in filter(str.strip, text.split(";")):
        label, equals, listed = entry.partition("=")
        if not equals or not label.strip():
            raise ValueError(
                f"'{entry.strip()}' is not of the form label=word,word; an example is "
                "'negative=bad,awful;positive=great'"
            )
        words[label.strip()] = [word.strip() for word in listed.split(",")]
    return words


def word_of(label: str) -> str:
    """Return a label's name as words: 'NotEntailed' and 'not_entailed' become 'not entailed'; 'WORLD' is unchanged."""
    words = [word for word in _WORD_BORDER.split(label) if word]
    return " ".join(word if word.isupper() or len(words) == 1 else word.lower() for word in words)


def are_words(labels: Sequence[str]) -> bool:
    """Return whether all labels have names with a meaning, unlike '0', 'LABEL_1' or 'class 2'."""
    return not any(_NO_NAME.fullmatch(label) for label in labels)


def words_of(labels: Sequence[str], words: dict[str, list[str]] | None) -> dict[str, list[str]]:
    """Return the words of each label, in the order of the labels.

    Args:
        labels: the names of the labels.
        words: words by label; None: the names of the labels.

    Raises:
        ConfigError: a label has no words, or there are words for an unknown label.
    """
    words = {label: [word_of(label)] for label in labels} if words is None else words
    if set(words) != set(labels):
        raise ConfigError(
            f"`verbalizer` has words for {_listed(words)}, but the labels are {_listed(labels)}; give words for every "
            "label and for no other",
            field="verbalizer",
            value=words,
            expected=f"words for {_listed(labels)}",
        )
    return {label: words[label] for label in labels}


def label_tokens(
    tokenizer: PreTrainedTokenizerBase,
    labels: Sequence[str],
    words: dict[str, list[str]] | None,
    template: str,
) -> list[list[int]]:
    """Return the token ids that stand for each label, in the order of the labels.

    These are the first tokens of the label's words, as the tokenizer splits them at the place of the answer.

    Args:
        tokenizer: the backbone's tokenizer.
        labels: the names of the labels.
        words: words by label; None: the names of the labels.
        template: decides what comes before the answer, and so whether a word begins with a space.

    Raises:
        ConfigError: a label has no words, or there are words for an unknown label.
        ConfigError: a word is not in the vocabulary.
        ConfigError: two labels have the same tokens.
    """
    words_by_label = words_of(labels, words)
    before, masked = around_answer(template)
    tokens = [
        list(dict.fromkeys(_first_token(tokenizer, word, before, masked) for word in listed))
        for listed in words_by_label.values()
    ]
    seen: dict[frozenset[int], str] = {}
    for label, ids in zip(labels, tokens, strict=True):
        other = seen.setdefault(frozenset(ids), label)
        if other != label:
            shown = ", ".join(repr(token) for token in tokenizer.convert_ids_to_tokens(ids))
            first, second = (f"'{name}' ({_listed(words_by_label[name])})" for name in (other, label))
            raise ConfigError(
                f"the words of labels {first} and {second} begin with the same tokens, {shown}, so the model could not "
                "tell the labels apart; give other words with `verbalizer`, or use `head='linear'`",
                field="verbalizer",
                value=words_by_label,
                expected="words whose first tokens differ between labels",
            )
    return tokens


def _first_token(tokenizer: PreTrainedTokenizerBase, word: str, before: str, masked: bool) -> int:
    """Return the first token of a word that follows a text.

    The text is encoded with and without the word. The tokens that are added belong to the word. At a mask token, the
    whitespace in front of the mask is encoded as part of the word. At the end of a template, a space is put in front
    of the word unless the template already ends with whitespace.

    Args:
        word: the word.
        before: the template's text in front of the answer.
        masked: True if the answer is at the mask token.

    Raises:
        ConfigError: the word is not in the vocabulary.
    """
    front = before.rstrip() if masked else before
    gap = before[len(front) :] if masked else ("" if before[-1:].isspace() or not before else " ")
    prefix = tokenizer(front, add_special_tokens=False)["input_ids"] if front else []
    combined = tokenizer(front + gap + word, add_special_tokens=False)["input_ids"]
    separable = combined[: len(prefix)] == prefix and len(combined) > len(prefix)
    ids = combined[len(prefix) :] if separable else tokenizer(gap + word, add_special_tokens=False)["input_ids"]
    if not ids or ids[0] == tokenizer.unk_token_id:
        raise ConfigError(
            f"the word '{word}' of the verbalizer is not in the backbone's vocabulary; give another word with "
            "`verbalizer`",
            field="verbalizer",
            value=word,
            expected="a word of the backbone's vocabulary",
        )
    return int(ids[0])


def _listed(words: Sequence[str] | dict[str, list[str]]) -> str:
    return ", ".join(f"'{word}'" for word in words) or "none"
