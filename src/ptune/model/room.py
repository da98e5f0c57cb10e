"""The number of tokens that a text may have next to a prompt."""

from __future__ import annotations

from ptune.model.backbone import Backbone
from ptune.model.config import PromptConfig

# The limit if neither the backbone's configuration nor the tokenizer has one (BLOOM), or if the tokenizer's is larger:
# long enough for documents, short enough for memory.
UNLIMITED = 2048


def text_room(config: PromptConfig, backbone: Backbone, tokenizer_limit: int | None = None) -> int:
    """Return the largest number of tokens that a text may have, including special tokens.

    Args:
        config: settled configuration, whose virtual tokens may take positions.
        backbone: the backbone, which may have a limit.
        tokenizer_limit: used if the backbone has no limit. A tokenizer without a limit gives 1e30.
    """
    positions = backbone.max_positions
    if positions is None:
        positions = min(tokenizer_limit or UNLIMITED, UNLIMITED)
    return positions - config.positions_taken
