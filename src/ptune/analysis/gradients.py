"""Integrated gradients at the word embeddings (Sundararajan et al., arXiv 1703.01365).

The embeddings of a row go in a straight line from those of a row without text to its own. The gradients along the line
add up to how much each token changes the output. Their sum over all tokens is the difference between the outputs at
both ends (completeness), which shows whether the steps are small enough.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from ptune.backends.openvino.backbone import CompiledBackbone
from ptune.data.batch import Inputs, collate, pack
from ptune.data.encode import Encoded
from ptune.errors import ConfigError
from ptune.model.backbone import Backbone
from ptune.model.classifier import PromptClassifier
from ptune.model.ensemble import Model, combine, members_of
from ptune.model.mixed import start_logits

STEPS, MOST_STEPS = 32, 512
NEAR, NEAR_IN_HALF = 0.02, 0.1  # share of the difference that the sum may miss, in float32 and in shorter numbers
_ROWS = 16  # rows of a forward pass
Output = Callable[[Tensor], Tensor]  # from logits [B, C] to the explained number [B]


@dataclass(frozen=True)
class Attributions:
    """How much each token changes an output.

    tokens: [T], for each token of the row.
    value: the output for the row.
    baseline: the output for the row without text.
    """

    tokens: Tensor
    value: float
    baseline: float

    @property
    def gap(self) -> float:
        """How much the sum of the attributions misses the difference of the outputs."""
        return abs(float(self.tokens.sum()) - (self.value - self.baseline))


def integrated_gradients(
    model: Model, row: Encoded, is_text: Sequence[bool], neutral: int, output: Output, steps: int | None = None
) -> Attributions:
    """Return how much each token of a row changes an output.

    Args:
        model: a classifier or an ensemble.
        row: the row.
        is_text: [T], which tokens belong to the text. The others stay as they are.
        neutral: the id of the token that stands for no text, such as the padding token.
        output: what is explained.
        steps: points on the line. None: as many as it takes for the sum to be right, from STEPS to MOST_STEPS.

    Raises:
        ConfigError: the backbone has no gradients, because it runs in OpenVINO or does not look up its embeddings.
    """
    if isinstance(model.backbone, CompiledBackbone):
        raise ConfigError(
            "a backbone that runs in OpenVINO has no gradients; use `method='leave-out'`, or load the adapter without "
            "`precision`",
            field="method",
            expected="leave-out",
        )
    problem = _Problem(members_of(model), model, row, is_text, neutral, output)
    count, near = steps or STEPS, NEAR if model.backbone.dtype == torch.float32 else NEAR_IN_HALF
    while True:
        found = problem.solve(count)
        span = abs(found.value - found.baseline)
        if steps or count >= MOST_STEPS or found.gap <= near * max(span, 0.1):
            return found
        count *= 4


class _Problem:
    """One row whose output is explained."""

    def __init__(
        self,
        members: list[PromptClassifier],
        model: Model,
        row: Encoded,
        is_text: Sequence[bool],
        neutral: int,
        output: Output,
    ) -> None:
        self.members = members
        self.problem_type = model.problem_type
        self.backbone = model.backbone
        self.output = output
        model.eval()
        with torch.no_grad():
            self.prompts = [member.prompt().contiguous() for member in members]
            device = self.backbone.device
            self.inputs = collate(pack([row]), [0], neutral).to(device)
            ids = self.inputs.input_ids
            blank = torch.where(torch.tensor(list(is_text), device=device), neutral, ids)
            self.own, self.blank = (self.backbone.word_embeddings(tokens)[0] for tokens in (ids, blank))

    def solve(self, steps: int) -> Attributions:
        """Return the attributions with so many steps, by the midpoint rule."""
        points = (torch.arange(steps, device=self.own.device) + 0.5) / steps
        total = torch.zeros_like(self.own, dtype=torch.float32)
        for part in points.split(_ROWS):
            line = self._between(part).requires_grad_(True)
            (gradient,) = torch.autograd.grad(self._outputs(line).sum(), line, allow_unused=True)
            if gradient is None:
                raise ConfigError(
                    f"backbone '{self.backbone.name}' does not let gradients reach its word embeddings; use "
                    "`method='leave-out'`",
                    field="method",
                    expected="leave-out",
                )
            total += gradient.float().sum(dim=0)
        attributions = (total / steps * (self.own - self.blank).float()).sum(dim=1)
        with torch.no_grad():
            ends = self._outputs(self._between(torch.tensor([1.0, 0.0], device=self.own.device)))
        return Attributions(attributions.cpu(), float(ends[0]), float(ends[1]))

    def _between(self, points: Tensor) -> Tensor:
        """Return embeddings [S, T, E] on the line; a point of 1 is the row, and 0 the row without text."""
        return self.blank + points[:, None, None].to(self.own.dtype) * (self.own - self.blank)

    def _outputs(self, embeddings: Tensor) -> Tensor:
        """Return the output [S] for embeddings [S, T, E]."""
        rows = len(embeddings)
        inputs = self.inputs.select([0] * rows)
        logits = []
        for member, prompt in zip(self.members, self.prompts, strict=True):
            with _embedded(self.backbone, embeddings, inputs):
                logits.append(start_logits([member], [prompt], [0] * rows, inputs).result()[0].float())
        return self.output(combine(torch.stack(logits), self.problem_type))


@contextmanager
def _embedded(backbone: Backbone, embeddings: Tensor, inputs: Inputs) -> Iterator[None]:
    """Let the backbone look up these embeddings [S, T, E] for a batch. Calls of other threads are left alone."""
    thread = threading.get_ident()

    def replace(_module: object, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
        same = threading.get_ident() == thread and arguments[0].shape == inputs.input_ids.shape
        return embeddings if same else output

    handle = backbone.word_embeddings.register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()
