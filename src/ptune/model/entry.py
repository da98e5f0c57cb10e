"""How a prompt enters a backbone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Place = Literal["input", "shared", "separate"]


@dataclass(frozen=True)
class Entry:
    """How a prompt enters a backbone.

    place:
        input: in front of the text's word embeddings, as vectors [P, E].
        shared: as keys and values of every layer, under one softmax with the text's.
        separate: as keys and values of every layer, under a softmax of their own (see `ptune.model.attention`).
    shift_text: count the text's positions from P on, as if the prompt were text in front of it. Has no meaning for
        `input`, where the prompt takes positions anyway.
    """

    place: Place
    shift_text: bool = False

    def positions_taken(self, virtual_tokens: int) -> int:
        """Return how many of the backbone's positions the prompt takes away from the text."""
        return virtual_tokens if self.place == "input" or self.shift_text else 0

    def offset(self, virtual_tokens: int) -> int:
        """Return how many hidden states of virtual tokens stand in front of the text's."""
        return virtual_tokens if self.place == "input" else 0
