"""From the scores of a detector to probabilities.

Platt: Probabilistic Outputs for Support Vector Machines and Comparisons to Regularized Likelihood
Methods, 1999.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vision_lab.core.extras import import_scipy_optimize

MIN_SCALE = 0.01
"""Lower bound of the scale, so that a higher score always means a higher probability."""


def fit_sigmoid(scores: Tensor, is_correct: Tensor) -> Tensor:
    """Fit a sigmoid that maps scores to probabilities.

    As in the paper, the targets are not quite 0 and 1 (section 2.2): few examples, or those that a
    threshold separates, do not give certainty.

    Args:
        scores: (n,) scores of detections in images that the detector was not fitted to.
        is_correct: (n,) bool.

    Returns:
        (2,) scale and offset: the probability is ``sigmoid(scale * score + offset)``.
    """
    num_correct = is_correct.sum()
    num_wrong = len(scores) - num_correct
    targets = torch.where(is_correct, (num_correct + 1) / (num_correct + 2), 1 / (num_wrong + 2))
    inputs, targets = scores.double(), targets.double()

    def compute_loss(solution: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        logits = inputs * float(solution[0]) + float(solution[1])
        by_logit = (logits.sigmoid() - targets) / len(inputs)
        gradient = torch.stack([by_logit @ inputs, by_logit.sum()])
        return float(F.binary_cross_entropy_with_logits(logits, targets)), gradient.numpy()

    found = import_scipy_optimize("the calibration of scores").minimize(
        compute_loss,
        np.array([1.0, 0.0]),
        jac=True,
        method="L-BFGS-B",
        bounds=[(MIN_SCALE, np.inf), (-np.inf, np.inf)],
    )
    return torch.from_numpy(found.x).float()
