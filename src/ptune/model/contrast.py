"""Learning from few rows: the loss that compares rows with each other, and the head that is fitted afterwards.

A head has to learn from each row alone what its class means. Pairs say more: N rows are N (N - 1) / 2 pairs, each of
one class or of two. SetFit (arXiv 2209.11055) trains all weights of a sentence encoder with them. Here only the prompt
learns.
Afterwards the head is the regularised logistic regression over the vectors of the training rows.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn

# Inverse strength of the logistic regression's regularisation, for vectors of length 1.
INVERSE_STRENGTH = 10.0
# Score of a class without any row.
_NEVER = -20.0


@dataclass(frozen=True)
class PairLoss:
    """The loss of a batch of vectors: those of one class are to be the same, those of two classes at right angles.

    It stands in for `Objective`, with vectors in place of logits. Products of vectors, not cosines, are compared with 1
    and 0. So the vectors get about the same length as well, which the head relies on.

    length: what counts as length 1, such as the mean length of the vectors before training.
    scale: as in `Objective`.
    """

    length: float
    scale: float = 1.0

    def __call__(self, vectors: Tensor, targets: Tensor, row_weights: Tensor | None = None) -> Tensor:
        """Return half the mean squared error of the products over all pairs, [].

        Pairs of one class and pairs of two classes count half each, because the latter are far more numerous. A row and
        itself are a pair too.

        Args:
            vectors: [B, H].
            targets: [B], class indices.
            row_weights: [B], weights of the rows; a pair has the product of its rows' weights. None: all are 1.
        """
        products = vectors @ vectors.T / self.length**2
        same = (targets[:, None] == targets).float()
        weights = torch.ones_like(products) if row_weights is None else row_weights[:, None] * row_weights
        errors = (products - same).square()
        near, far = weights * same, weights * (1 - same)
        return ((errors * near).sum() / near.sum() + (errors * far).sum() / far.sum().clamp_min(1e-6)) / 2


def logistic_regression(
    vectors: Tensor, targets: Tensor, inverse_strength: float, row_weights: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Fit a regularised logistic regression.

    Args:
        vectors: [N, H].
        targets: [N], class indices, at least two different ones.
        inverse_strength: of the regularisation.
        row_weights: [N], weights of the rows; None: all count equally.

    Returns:
        The K classes that occur [K], their weights [K, H] and biases [K], in float64.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # after so many steps it is close enough
        fitted = LogisticRegression(C=inverse_strength, max_iter=1000).fit(
            vectors.double().numpy(), targets.numpy(), None if row_weights is None else row_weights.numpy()
        )
    weight, bias = torch.from_numpy(fitted.coef_), torch.from_numpy(fitted.intercept_)
    if len(weight) == 1:  # two classes have one row: the logit of the second
        weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
    return torch.from_numpy(fitted.classes_), weight, bias


@torch.no_grad()
def fit_head(linear: nn.Linear, vectors: Tensor, targets: Tensor, row_weights: Tensor | None = None) -> None:
    """Set a linear layer to the logistic regression over vectors.

    Args:
        linear: [H] -> [C].
        vectors: [N, H].
        targets: [N], class indices, at least two different ones.
        row_weights: [N], weights of the rows; None: all count equally.
    """
    length = vectors.norm(dim=1).mean()
    classes, weight, bias = logistic_regression(vectors / length, targets, INVERSE_STRENGTH, row_weights)
    linear.weight.zero_()
    linear.bias.fill_(_NEVER)
    linear.weight[classes] = (weight / length).to(linear.weight)
    linear.bias[classes] = bias.to(linear.bias)
