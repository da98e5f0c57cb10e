"""Where prompts start: at random, at tokens drawn at random, or at a text.

Input prompts start at the tokens' embeddings. Deep prompts start at the keys and
values that the frozen backbone itself computes for the tokens: a decoder then
behaves as if the text stood in front of the input.
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
    """As many virtual tokens as the text that starts them has, where the user gave no number."""
    if config.init != "text" or "virtual_tokens" in config.model_fields_set:
        return config
    return config.model_copy(update={"virtual_tokens": len(_text_tokens(config, backbone, tokenizer))})


def start_vectors(config: PromptConfig, backbone: Backbone, tokenizer: PreTrainedTokenizerBase | None) -> Tensor | None:
    """What the prompt starts from: [P, E] or, of a deep prompt, [P, L * 2 * Hkv]; None to start at random."""
    if config.init not in ("vocabulary", "text"):
        return None
    table = backbone.word_embeddings.weight.detach()
    tokens = _start_tokens(config, backbone, tokenizer).to(table.device)
    if config.shallow:
        return table[tokens].float()
    return join_layers(_keys_and_values(tokens, backbone, tokenizer))


def join_layers(prompt: Tensor) -> Tensor:
    """[L, 2, P, Hkv] -> [P, L * 2 * Hkv], as adapters store it."""
    return prompt.permute(2, 0, 1, 3).flatten(1)


def _start_tokens(config: PromptConfig, backbone: Backbone, tokenizer: PreTrainedTokenizerBase | None) -> Tensor:
    """Token ids [P]; a text is repeated or cut to P."""
    if config.init == "vocabulary":
        drawn = torch.randint(0, backbone.word_embeddings.weight.shape[0], (config.virtual_tokens,))
        first = first_special_token(backbone, tokenizer)
        if config.shallow and config.pooling == "peft" and first is not None:
            drawn[0] = first  # what the head over position 0 was pretrained to read
        return drawn
    ids = _text_tokens(config, backbone, tokenizer)
    repeats = -(-config.virtual_tokens // len(ids))
    return torch.tensor((ids * repeats)[: config.virtual_tokens])


def first_special_token(backbone: Backbone, tokenizer: PreTrainedTokenizerBase | None) -> int | None:
    """What an encoder's texts begin with (<s>, [CLS]); None of decoders, and where there is no such token."""
    if tokenizer is None or backbone.family.decoder:
        return None
    token = tokenizer.cls_token_id if tokenizer.cls_token_id is not None else tokenizer.bos_token_id
    return None if token is None else int(token)


def _text_tokens(config: PromptConfig, backbone: Backbone, tokenizer: PreTrainedTokenizerBase | None) -> list[int]:
    """Tokens of the text. A decoder's keys and values begin with its beginning token, where its texts do."""
    if tokenizer is None:
        raise ConfigError("init 'text' needs the backbone's tokenizer")
    ids: list[int] = tokenizer(config.init_text, add_special_tokens=False)["input_ids"]
    if not ids:
        raise ConfigError(f"init_text {config.init_text!r} has no tokens; give some words")
    deep = config.method == "deep" or (config.method is None and backbone.family.deep is not None)
    if deep and backbone.family.decoder:
        first = tokenizer("a", verbose=False)["input_ids"][0]
        if first == tokenizer.bos_token_id:
            ids = [first, *ids]
    return ids


def _keys_and_values(tokens: Tensor, backbone: Backbone, tokenizer: PreTrainedTokenizerBase | None) -> Tensor:
    """[L, 2, P, Hkv] of tokens [P]. In an encoder they are read between its special tokens, which are then left out."""
    if backbone.family.decoder or tokenizer is None or tokenizer.cls_token_id is None:
        return backbone.text_prompt(tokens)
    first, last = (
        torch.tensor([token], device=tokens.device) for token in (tokenizer.cls_token_id, tokenizer.sep_token_id)
    )
    return backbone.text_prompt(torch.cat([first, tokens, last]))[:, :, 1:-1]


def make_encoder(config: PromptConfig, backbone: Backbone, tokenizer: PreTrainedTokenizerBase | None) -> PromptEncoder:
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
                f"tie_first is for encoders whose text begins with a special token; backbone '{backbone.name}' "
                f"({backbone.family.name}) has a head over the last token"
            )
        encoder.fixed_first = backbone.word_embeddings.weight.detach()[first].float()
    return encoder
