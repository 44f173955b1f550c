"""A linear support vector machine."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vision_lab.core.extras import import_scipy_optimize

MAX_ITERATIONS = 200

TOLERANCE = 1e-6
"""Change of the loss, relative to its size, at which the optimization ends."""


def fit_linear_svm(
    features: Tensor,
    is_positive: Tensor,
    *,
    penalty: float,
    minimum: Tensor,
) -> tuple[Tensor, Tensor]:
    """Fit a linear classifier by the squared hinge loss (Fan 2008, LIBLINEAR's L2-loss SVM).

    Minimizes half the squared norm of the weight plus ``penalty`` times the mean loss of positive
    and that of negative examples, so that the numbers of both do not matter.

    Args:
        features: (n, D).
        is_positive: (n,) bool.
        penalty: weight of the losses, LIBLINEAR's C times the number of examples of a class.
        minimum: (D,) lower bounds of the weights, minus infinity for none.

    Returns:
        The weight (D,) and the bias, a scalar: examples with ``features @ weight + bias > 0`` are
        classified as positive.
    """
    signs = torch.where(is_positive, 1.0, -1.0)
    num_positive = is_positive.sum().clamp(min=1)
    num_negative = (~is_positive).sum().clamp(min=1)
    importance = penalty * torch.where(is_positive, 1 / num_positive, 1 / num_negative)

    def compute_loss(solution: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weight = torch.from_numpy(solution[:-1]).float()
        hinge = (1 - signs * (features @ weight + float(solution[-1]))).clamp(min=0)
        by_score = -2 * importance * hinge * signs
        loss = 0.5 * float(weight.square().sum()) + float((importance * hinge.square()).sum())
        gradient = torch.cat([weight + by_score @ features, by_score.sum()[None]])
        return loss, gradient.double().numpy()

    lower = np.append(minimum.double().numpy(), -np.inf)
    start = lower.clip(min=0)
    optimizer = import_scipy_optimize("a support vector machine")
    found = optimizer.minimize(
        compute_loss,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=[(low, np.inf) for low in lower],
        options={"maxiter": MAX_ITERATIONS, "ftol": TOLERANCE},
    )
    solution = torch.from_numpy(found.x).float()
    return solution[:-1], solution[-1]
