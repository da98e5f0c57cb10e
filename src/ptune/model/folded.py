"""Classifiers for prediction alone: the prompt is folded once, and lies in memory as the backbone takes it.

A `PromptClassifier` folds its prompt in every call, because training may have changed it. A server that mixes hundreds
of adapters in a batch would spend more time on that than on reading the prompts.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ptune.data.targets import REGRESSION, ProblemType
from ptune.model.backbone import Backbone
from ptune.model.classifier import PromptClassifier
from ptune.model.entry import Entry
from ptune.model.head import PeftHead, TextHead
from ptune.model.hidden import Hidden


class Folded:
    """A folded prompt and its head. Takes the place of a `PromptClassifier` wherever nothing is trained.

    The classifier's prompt is copied and its head is shared, so the classifier itself may go. The copy has the
    backbone's number type, to which every forward pass would convert it.

    Args:
        classifier: in evaluation mode. Later changes of its prompt have no effect here.
    """

    @torch.no_grad()
    def __init__(self, classifier: PromptClassifier) -> None:
        classifier.eval()
        prompt = classifier.prompt()
        self._prompt = torch.empty(prompt.shape, dtype=classifier.backbone.dtype, device=prompt.device)
        self._prompt.copy_(prompt)
        self.backbone: Backbone = classifier.backbone
        self.head: TextHead | PeftHead = classifier.head.requires_grad_(False)
        self.entry: Entry = classifier.entry
        usual = isinstance(self.head, TextHead) and self.head.has_usual_cosine  # as in every adapter
        self.only_layer: nn.Linear | None = self.head.linear if usual else self.head.only_layer  # type: ignore[assignment]
        self.labels = classifier.labels
        self.problem_type: ProblemType = classifier.problem_type
        scale, shift = classifier.target_scale, classifier.target_shift
        in_unit = self.problem_type != REGRESSION or (float(scale) == 1 and float(shift) == 0)  # as in every adapter
        self._unit = None if in_unit else (scale, shift)

    @property
    def bytes(self) -> int:
        """Memory of the prompt and the head."""
        return self._prompt.nbytes + sum(parameter.nbytes for parameter in self.head.parameters())

    def eval(self) -> None:
        """Do nothing: it is always in evaluation mode."""

    def prompt(self) -> Tensor:
        """Return the folded prompt, contiguous: shallow [P, E] or deep [L, 2, P, Hkv]."""
        return self._prompt

    def read(self, hidden: Hidden) -> Tensor:
        """Return the logits [B, C] for hidden states. For a regression they are [B, 1], in the unit of the targets."""
        return self.in_unit(self.head(hidden))

    def in_unit(self, logits: Tensor) -> Tensor:
        """Return logits [B, C] of the head as they are; for a regression, in the unit of the targets."""
        return logits if self._unit is None else logits * self._unit[0] + self._unit[1]
