"""Several prompts over one frozen backbone, in one forward pass.

Rows with different prompts can share a batch, because each row may have its own
prompt: shallow [B, P, E] or deep [L, 2, B, P, Hkv]. Training uses this to train
several seeds at once. `PromptEnsemble` predicts the mean of its members'
probabilities (prompt ensembling, arXiv 2104.08691).
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
    """Several classifiers that act as one. They share a backbone, a configuration and labels.

    Args:
        members: M classifiers over the same backbone.
    """

    def __init__(self, members: Sequence[PromptClassifier]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    @property
    def first(self) -> PromptClassifier:
        """The first member, for everything that the members share."""
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
        """Compute the logits of every member for every row of a batch, in one forward pass.

        Args:
            prompts: the folded prompt of each member, from `prompts()`.
            inputs: B rows.

        Returns:
            The logits, [M, B, C].
        """
        members, rows = len(self.members), len(inputs)
        repeated = inputs if members == 1 else inputs.select(list(range(rows)) * members)
        owners = [member for member in range(members) for _ in range(rows)]
        logits = start_logits(list(self.members), prompts, owners, repeated).result()  # type: ignore[arg-type]
        return torch.stack([logits[member] for member in range(members)])

    def trainable_state(self) -> dict[str, Tensor]:
        """Return the trainable states of all members. Each name begins with the member's number."""
        return {
            f"{number}.{name}": tensor
            for number, member in enumerate(self.members)
            for name, tensor in member.trainable_state().items()  # type: ignore[operator]
        }

    def load_trainable_state(self, state: dict[str, Tensor]) -> None:
        """Load a state that `trainable_state` returned."""
        for number, member in enumerate(self.members):
            prefix = f"{number}."
            member_state = {name.removeprefix(prefix): x for name, x in state.items() if name.startswith(prefix)}
            member.load_trainable_state(member_state)  # type: ignore[operator]

    def trainable_parameters(self) -> tuple[int, int]:
        """Return the number of trained parameters and of all parameters, counted over all members."""
        return self.first.trainable_parameters(len(self.members))


Model = PromptClassifier | PromptEnsemble


def members_of(model: Model) -> list[PromptClassifier]:
    """Return the members of an ensemble, or the one model that there is."""
    return [*model.members] if isinstance(model, PromptEnsemble) else [model]  # type: ignore[list-item]


def combine(logits: Tensor, problem_type: ProblemType = SINGLE) -> Tensor:
    """Return logits [N, C] that combine the members' logits [M, N, C].

    For classification these are the logits of the members' mean probabilities; for a regression, the mean of the
    members' outputs. The logits of a single member are returned unchanged.
    """
    if len(logits) == 1:
        return logits[0]
    if problem_type == REGRESSION:
        return logits.mean(dim=0)
    if problem_type == MULTI:
        return logits.sigmoid().mean(dim=0).logit(eps=1e-6)
    return logits.log_softmax(dim=-1).logsumexp(dim=0) - math.log(len(logits))
