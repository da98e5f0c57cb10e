"""How many tokens a text may have beside a prompt."""

from __future__ import annotations

from ptune.model.backbone import Backbone
from ptune.model.config import PromptConfig

# Where neither configuration nor tokenizer knows a limit (BLOOM): long enough for documents, kind to memory.
UNLIMITED = 2048


def text_room(config: PromptConfig, backbone: Backbone, tokenizer_limit: int | None = None) -> int:
    """Return the most tokens of a text, special tokens included.

    Args:
        config: settled; its virtual tokens may take positions.
        tokenizer_limit: used where the backbone knows no limit; a tokenizer that knows none says 1e30.
    """
    positions = backbone.max_positions
    if positions is None:
        positions = min(tokenizer_limit or UNLIMITED, UNLIMITED)
    return positions - config.positions_taken
