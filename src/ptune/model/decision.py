"""Which labels of a multi-label task apply, given their probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ptune.errors import ConfigError

HALF = 0.5


@dataclass(frozen=True)
class Decision:
    """The rule that turns the probabilities of a multi-label task into labels.

    Attributes:
        thresholds: for each label, the probability above which it applies; empty: 0.5 for all labels.
        at_least_one: whether the most probable label applies where no label is above its threshold.
    """

    thresholds: tuple[float, ...] = ()
    at_least_one: bool = False

    def by_label(self, labels: Sequence[str]) -> dict[str, float]:
        """Return the threshold of each label."""
        return dict(zip(labels, self.thresholds or (HALF,) * len(labels), strict=True))

    def with_threshold(self, threshold: float | Mapping[str, float], labels: Sequence[str]) -> Decision:
        """Return a rule with another threshold for all labels, or for those that a mapping names.

        Raises:
            ConfigError: a label is unknown, or a threshold is not between 0 and 1.
        """
        by_label = threshold if isinstance(threshold, Mapping) else dict.fromkeys(labels, threshold)
        for label, value in by_label.items():
            if label not in labels:
                raise ConfigError(
                    f"`threshold` names label '{label}', but the labels are {', '.join(labels)}", field="threshold"
                )
            if not 0 < value < 1:
                raise ConfigError(
                    f"`threshold` is {value}; a probability between 0 and 1 is expected, such as `threshold=0.3`",
                    field="threshold",
                    value=value,
                    expected="a probability between 0 and 1",
                )
        strict = not isinstance(threshold, Mapping)
        return Decision(tuple({**self.by_label(labels), **by_label}.values()), self.at_least_one and not strict)

    def applies(self, logits: Tensor) -> Tensor:
        """Return which labels apply, bool [N, C], for logits [N, C]."""
        probabilities = logits.sigmoid()
        if not self.thresholds:
            chosen = probabilities > HALF
        else:
            chosen = probabilities.double() > torch.tensor(self.thresholds, dtype=torch.double, device=logits.device)
        if self.at_least_one:
            none = ~chosen.any(dim=1)
            chosen[none, logits[none].argmax(dim=1)] = True
        return chosen
