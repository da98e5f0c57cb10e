"""How a prompt enters a backbone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Place = Literal["input", "shared", "separate"]


@dataclass(frozen=True)
class Entry:
    """How a prompt enters a backbone.

    place:
        input: vectors [P, E] in front of the text's word embeddings.
        shared: keys and values in every layer, under one softmax with those of the text.
        separate: keys and values in every layer, under a separate softmax (see `ptune.model.attention`).
    shift_text: number the text's positions from P on, as if the prompt were text in front of it. It has no effect for
        `input`, where the prompt always takes positions.
    """

    place: Place
    shift_text: bool = False

    def positions_taken(self, virtual_tokens: int) -> int:
        """Return how many of the backbone's positions the prompt takes from the text."""
        return virtual_tokens if self.place == "input" or self.shift_text else 0

    def offset(self, virtual_tokens: int) -> int:
        """Return how many hidden states of virtual tokens come before those of the text."""
        return virtual_tokens if self.place == "input" else 0
