"""A classifier as a text encoder: vectors instead of logits."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ptune.model.backbone import Backbone
from ptune.model.classifier import PromptClassifier
from ptune.model.entry import Entry
from ptune.model.head import PeftHead, TextHead, pool
from ptune.model.hidden import Hidden


@dataclass(frozen=True)
class PooledVectors:
    """A classifier whose `read` returns the vectors that its linear layer would read, [B, H].

    It takes the place of the classifier in `ptune.model.mixed` and `ptune.inference.engine`.
    """

    model: PromptClassifier

    @property
    def backbone(self) -> Backbone:
        return self.model.backbone

    @property
    def head(self) -> TextHead | PeftHead:
        return self.model.head

    @property
    def labels(self) -> list[str]:
        return self.model.labels

    @property
    def entry(self) -> Entry:
        return self.model.entry

    def prompt(self) -> Tensor:
        return self.model.prompt()

    def eval(self) -> None:
        self.model.eval()

    @property
    def only_layer(self) -> None:
        """There is none: `read` returns vectors."""

    def in_unit(self, logits: Tensor) -> Tensor:
        return logits

    def read(self, hidden: Hidden) -> Tensor:
        head = self.model.head
        if isinstance(head, TextHead):
            return head.vectors(hidden)
        return pool(hidden, self.model.config.pooling or "mean").float()
