"""Initial prompts: random values, random tokens of the vocabulary, or a text.

A prompt at the input starts from the embeddings of the tokens. A deep prompt
starts from the keys and values that the frozen backbone computes for the tokens.
A decoder then behaves as if the text stood in front of the input.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ptune.errors import ConfigError
from ptune.model.backbone import Backbone
from ptune.model.config import PromptConfig
from ptune.model.prompt import PromptEncoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def with_counted_tokens(
    config: PromptConfig, backbone: Backbone, tokenizer: PreTrainedTokenizerBase | None
) -> PromptConfig:
    """Set `virtual_tokens` to the number of tokens of the initial text, unless the user set it.

    Without an initial text the configuration is returned unchanged.
    """
    if config.init != "text" or "virtual_tokens" in config.model_fields_set:
        return config
    return config.model_copy(update={"virtual_tokens": len(_text_tokens(config, backbone, tokenizer))})


def start_vectors(config: PromptConfig, backbone: Backbone, tokenizer: PreTrainedTokenizerBase | None) -> Tensor | None:
    """Return the vectors that the prompt starts from.

    Returns:
        [P, E], or [P, L * 2 * Hkv] for a deep prompt; None if the prompt starts from random values.

    Raises:
        ConfigError: a text is given but no tokenizer, or the text has no tokens.
    """
    if config.init not in ("vocabulary", "text"):
        return None
    table = backbone.word_embeddings.weight.detach()
    tokens = _start_tokens(config, backbone, tokenizer).to(table.device)
    if config.shallow:
        return table[tokens].float()
    return join_layers(_keys_and_values(tokens, backbone, tokenizer))


def join_layers(prompt: Tensor) -> Tensor:
    """Return a deep prompt [L, 2, P, Hkv] in the form that adapters store, [P, L * 2 * Hkv]."""
    return prompt.permute(2, 0, 1, 3).flatten(1)


def _start_tokens(config: PromptConfig, backbone: Backbone, tokenizer: PreTrainedTokenizerBase | None) -> Tensor:
    """Return token ids, [P]. A text is repeated or cut to P tokens."""
    if config.init == "vocabulary":
        sampled = torch.randint(0, backbone.word_embeddings.weight.shape[0], (config.virtual_tokens,))
        first = first_special_token(backbone, tokenizer)
        if config.shallow and config.pooling == "peft" and first is not None:
            sampled[0] = first  # the token that the head over position 0 was pretrained on
        return sampled
    ids = _text_tokens(config, backbone, tokenizer)
    repeats = -(-config.virtual_tokens // len(ids))
    return torch.tensor((ids * repeats)[: config.virtual_tokens])


def first_special_token(backbone: Backbone, tokenizer: PreTrainedTokenizerBase | None) -> int | None:
    """Return the token that an encoder's texts begin with (<s>, [CLS]).

    Returns:
        Its id; None for decoders, and if there is no such token or no tokenizer.
    """
    if tokenizer is None or backbone.family.decoder:
        return None
    token = tokenizer.cls_token_id if tokenizer.cls_token_id is not None else tokenizer.bos_token_id
    return None if token is None else int(token)


def _text_tokens(config: PromptConfig, backbone: Backbone, tokenizer: PreTrainedTokenizerBase | None) -> list[int]:
    """Return the token ids of the initial text.

    For a deep prompt of a decoder they begin with the beginning-of-text token if the tokenizer puts it in front of
    texts: the keys and values of the other tokens depend on it.
    """
    if tokenizer is None:
        raise ConfigError(
            "`init='text'` needs the backbone's tokenizer; pass `tokenizer`, or use another `init`",
            field="init",
            value=config.init,
            expected="normal or vocabulary, or a tokenizer",
        )
    ids: list[int] = tokenizer(config.init_text, add_special_tokens=False)["input_ids"]
    if not ids:
        raise ConfigError(
            f"`init_text` has no tokens: {config.init_text!r}; give at least one word",
            field="init_text",
            value=config.init_text,
            expected="a text with at least one token",
        )
    deep = config.method == "deep" or (config.method is None and backbone.family.deep is not None)
    if deep and backbone.family.decoder:
        first = tokenizer("a", verbose=False)["input_ids"][0]
        if first == tokenizer.bos_token_id:
            ids = [first, *ids]
    return ids


def _keys_and_values(tokens: Tensor, backbone: Backbone, tokenizer: PreTrainedTokenizerBase | None) -> Tensor:
    """Return the keys and values [L, 2, P, Hkv] that the backbone computes for tokens [P].

    An encoder reads the tokens between its special tokens. The keys and values of these are then left out.
    """
    if backbone.family.decoder or tokenizer is None or tokenizer.cls_token_id is None:
        return backbone.text_prompt(tokens)
    first, last = (
        torch.tensor([token], device=tokens.device) for token in (tokenizer.cls_token_id, tokenizer.sep_token_id)
    )
    return backbone.text_prompt(torch.cat([first, tokens, last]))[:, :, 1:-1]


def make_encoder(config: PromptConfig, backbone: Backbone, tokenizer: PreTrainedTokenizerBase | None) -> PromptEncoder:
    """Return a new prompt encoder for a backbone, with its initial values.

    Args:
        config: settled configuration.
        tokenizer: needed for `init='text'` and `tie_first`.

    Raises:
        ConfigError: the initial text cannot be read, or `tie_first` does not work with the backbone.
    """
    slice_width = backbone.embedding_width if config.shallow else backbone.kv_width
    width = slice_width if config.shallow else backbone.layers * 2 * slice_width
    encoder = PromptEncoder(config, width, slice_width)
    start = start_vectors(config, backbone, tokenizer)
    if start is not None:
        encoder.start_from(start)
    if config.tie_first:
        first = first_special_token(backbone, tokenizer)
        if first is None:
            raise ConfigError(
                "`tie_first` needs an encoder whose tokenizer puts a special token in front of texts; backbone "
                f"'{backbone.name}' ({backbone.family.name}) has none; leave `tie_first` out",
                field="tie_first",
                value=True,
                expected="False",
            )
        encoder.fixed_first = backbone.word_embeddings.weight.detach()[first].float()
    return encoder
