"""A classifier without one of its virtual tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ptune.model.hidden import Hidden
from ptune.model.vectors import PooledVectors


@dataclass(frozen=True)
class WithoutToken(PooledVectors):
    """A classifier that answers without one of its virtual tokens.

    Like `PooledVectors` it takes the place of the classifier in `ptune.model.mixed` and `ptune.inference.engine`, but
    it gives logits.

    Attributes:
        token: index of the virtual token, from 0. The prompt has at least two.
    """

    token: int

    def prompt(self) -> Tensor:
        folded: Tensor = self.model.prompt_encoder()
        return self.model.entering(torch.cat([folded[: self.token], folded[self.token + 1 :]]))

    def read(self, hidden: Hidden) -> Tensor:
        return self.model.read(hidden)
