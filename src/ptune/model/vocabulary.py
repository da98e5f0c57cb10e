"""Check that a tokenizer and the word embeddings of a backbone belong together.

transformers builds an empty tokenizer where the files of one are missing. Every
text then reads like every other, and training goes on without a word.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ptune.errors import BackboneError, cut

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Frequent words and signs of many scripts. A tokenizer of any language knows some of them.
SAMPLE = (
    *("the", "of", "and", "a", "is", "was", "的", "一", "。", "и", "в", "ال", "في", "の", "に", "의", "है", "ไม่", "το"),
    *"012.,!?",
)
# Embeddings are often padded with a few unused rows, but never to twice the number of tokens.
_LEAST_SHARE = 0.5
# What transformers calls the special tokens that stand in texts. Padding is masked; others are for images or sounds.
_ROLES_IN_TEXT = {f"{role}_token" for role in ("bos", "eos", "unk", "sep", "cls", "mask")}
_FILES = "tokenizer.json, vocab.txt, vocab.json with merges.txt, or *.model"


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, rows: int, name: str) -> None:
    """Check that a tokenizer suits word embeddings.

    Args:
        tokenizer: its padding token does not count, because padding is masked.
        rows: the number of word embeddings.
        name: of the backbone, for messages.

    Raises:
        BackboneError: a token has no embedding, most embeddings have no token, or the tokenizer knows no word.
    """
    vocabulary = tokenizer.get_vocab()
    beyond = sorted((index, token) for token, index in vocabulary.items() if index >= rows)
    if beyond:
        names = ", ".join(f"'{token}'" for _, token in beyond[:5]) + (", …" if len(beyond) > 5 else "")
        raise BackboneError(
            f"the tokenizer of backbone '{name}' has tokens up to id {beyond[-1][0]}, but the model has word "
            f"embeddings for {rows} tokens only; {len(beyond)} have none: {cut(names, 200)}. Use the tokenizer files "
            "that belong to the model, or give these tokens embeddings: "
            "model.resize_token_embeddings(len(tokenizer)), then save both"
        )
    missing = (
        f"copy the tokenizer's files ({_FILES}, and tokenizer_config.json) of the model into its folder, beside "
        "config.json"
    )
    if len(vocabulary) < _LEAST_SHARE * rows:
        raise BackboneError(
            f"the tokenizer of backbone '{name}' knows {len(vocabulary)} tokens, but the model has word embeddings for "
            f"{rows}: its files are missing or belong to another model; {missing}"
        )
    if not any(_knows(tokenizer, word) for word in SAMPLE):
        raise BackboneError(
            f"the tokenizer of backbone '{name}' knows none of {len(SAMPLE)} frequent words of many languages, so all "
            f"texts would look the same: its files are incomplete; {missing}"
        )


def _knows(tokenizer: PreTrainedTokenizerBase, word: str) -> bool:
    ids = tokenizer(word, add_special_tokens=False, verbose=False)["input_ids"]
    return any(token != tokenizer.unk_token_id for token in ids)


def settle_tokens(tokenizer: PreTrainedTokenizerBase, rows: int | None) -> None:
    """Remove tokens without an embedding that no text needs, and see to it that there is a padding token.

    Padding is masked, so any token will do for it. Some models of text alone share a tokenizer with one that also reads
    images, whose tokens for these have no embedding.

    Args:
        tokenizer: changed in place.
        rows: the number of word embeddings; None: unknown.
    """
    roles = {role: token for role, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    for role in roles.keys() - _ROLES_IN_TEXT:
        index = tokenizer.convert_tokens_to_ids(roles[role])
        if rows is not None and index is not None and index >= rows:
            _remove_token(tokenizer, index)
            if role == "pad_token":
                tokenizer.pad_token = None
    if tokenizer.pad_token_id is None:
        usual = (tokenizer.eos_token, tokenizer.unk_token)
        tokenizer.pad_token = next(filter(None, usual), None) or tokenizer.convert_ids_to_tokens(0)


def _remove_token(tokenizer: PreTrainedTokenizerBase, index: int) -> None:
    """Remove a token, so that a text with its name in it is read like any other text."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return
    state = json.loads(backend.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["id"] != index]
    vocabulary = state["model"].get("vocab")
    if isinstance(vocabulary, dict):
        state["model"]["vocab"] = {token: number for token, number in vocabulary.items() if number != index}
    elif isinstance(vocabulary, list) and index == len(vocabulary) - 1:
        del vocabulary[index]
    tokenizer._tokenizer = type(backend).from_str(json.dumps(state))
