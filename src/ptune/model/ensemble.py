"""Several prompts over one frozen backbone, in one forward pass.

Rows of different prompts share a batch, since every row may have a prompt of
its own: shallow [B, P, E] or deep [L, 2, B, P, Hkv]. Training uses that to
train several seeds at once; `PromptEnsemble` answers with the mean of its
members' probabilities (prompt ensembling, arXiv 2104.08691).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ptune.data.batch import Inputs
from ptune.data.targets import MULTI, REGRESSION, SINGLE, ProblemType
from ptune.model.backbone import Backbone
from ptune.model.classifier import PromptClassifier
from ptune.model.config import PromptConfig
from ptune.model.mixed import start_logits


class PromptEnsemble(nn.Module):
    """Classifiers that share a backbone, a configuration and labels, as one classifier.

    Args:
        members: M classifiers over the same backbone.
    """

    def __init__(self, members: Sequence[PromptClassifier]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    @property
    def first(self) -> PromptClassifier:
        return self.members[0]  # type: ignore[return-value]

    @property
    def backbone(self) -> Backbone:
        return self.first.backbone

    @property
    def config(self) -> PromptConfig:
        return self.first.config

    @property
    def problem_type(self) -> ProblemType:
        return self.first.problem_type

    @property
    def labels(self) -> list[str]:
        return self.first.labels

    def prompts(self) -> list[Tensor]:
        """Return the folded prompt of each member."""
        return [member.prompt() for member in self.members]  # type: ignore[operator]

    def member_logits(self, prompts: Sequence[Tensor], inputs: Inputs) -> Tensor:
        """Return the logits [M, B, C] of every member for every row of a batch, all in one forward pass."""
        members, rows = len(self.members), len(inputs)
        repeated = inputs if members == 1 else inputs.select(list(range(rows)) * members)
        owners = [member for member in range(members) for _ in range(rows)]
        logits = start_logits(list(self.members), prompts, owners, repeated).result()  # type: ignore[arg-type]
        return torch.stack([logits[member] for member in range(members)])

    def trainable_state(self) -> dict[str, Tensor]:
        """The members' states, their names prefixed by the member's number."""
        return {
            f"{number}.{name}": tensor
            for number, member in enumerate(self.members)
            for name, tensor in member.trainable_state().items()  # type: ignore[operator]
        }

    def load_trainable_state(self, state: dict[str, Tensor]) -> None:
        """Put back what `trainable_state` gave, exactly."""
        for number, member in enumerate(self.members):
            prefix = f"{number}."
            own = {name.removeprefix(prefix): x for name, x in state.items() if name.startswith(prefix)}
            member.load_trainable_state(own)  # type: ignore[operator]

    def trainable_parameters(self) -> tuple[int, int]:
        """(trained, all), over all members."""
        return self.first.trainable_parameters(len(self.members))


Model = PromptClassifier | PromptEnsemble


def combine(logits: Tensor, problem_type: ProblemType = SINGLE) -> Tensor:
    """Members' logits [M, N, C] -> [N, C]: those of their mean probabilities; of a regression their mean.

    One member's stay as they are.
    """
    if len(logits) == 1:
        return logits[0]
    if problem_type == REGRESSION:
        return logits.mean(dim=0)
    if problem_type == MULTI:
        return logits.sigmoid().mean(dim=0).logit(eps=1e-6)
    return logits.log_softmax(dim=-1).logsumexp(dim=0) - math.log(len(logits))
