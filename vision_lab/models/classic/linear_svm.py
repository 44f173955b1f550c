"""A linear support vector machine."""

from __future__ import annotations

import torch
from torch import Tensor

MAX_ITERATIONS = 200

TOLERANCE = 1e-6
"""Change of the loss, relative to its scale, at which the optimization ends."""


def fit_linear_svm(
    features: Tensor, is_positive: Tensor, *, penalty: float, weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Fit a linear classifier by the squared hinge loss (Fan 2008, LIBLINEAR's L2-loss SVM).

    Minimizes half the squared norm of the weight plus ``penalty`` times the mean loss of positive
    and that of negative examples, so that the numbers of both do not matter.

    Args:
        features: (n, D).
        is_positive: (n,) bool.
        penalty: weight of the losses, LIBLINEAR's C times the number of examples.
        weight: (D + 1,) initial weight and bias; None for zeros.

    Returns:
        The weight (D,) and the bias, a scalar: examples with ``features @ weight + bias > 0`` are
        classified as positive.
    """
    signs = torch.where(is_positive, 1.0, -1.0)
    num_positive = is_positive.sum().clamp(min=1)
    num_negative = (~is_positive).sum().clamp(min=1)
    importance = penalty * torch.where(is_positive, 1 / num_positive, 1 / num_negative)
    start = torch.zeros(features.shape[1] + 1) if weight is None else weight
    solution = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [solution],
        max_iter=MAX_ITERATIONS,
        tolerance_change=TOLERANCE,
        line_search_fn="strong_wolfe",
    )

    def compute_loss() -> Tensor:
        optimizer.zero_grad()
        margins = signs * (features @ solution[:-1] + solution[-1])
        losses = importance * (1 - margins).clamp(min=0).square()
        loss = 0.5 * solution[:-1].square().sum() + losses.sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(compute_loss)
    found = solution.detach()
    return found[:-1], found[-1]
