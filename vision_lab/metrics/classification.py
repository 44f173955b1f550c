"""Precision-recall and ROC curves of each class against all others.

torchmetrics' binned curves take batch * classes * thresholds memory, or a loop over all of these in
deterministic mode.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

NUM_BINS = 500
"""Number of intervals of [0, 1] into which probabilities are sorted."""


class ScoreHistogram(Metric):
    """Histogram of the probability of each class, over samples of other classes and of its own.

    It counts integers, so the result does not depend on the order of batches.

    Args:
        num_classes: number of classes K.
    """

    counts: Tensor
    names: tuple[str, ...] = ()
    """Names of the scalars that ``compute`` returns."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        zeros = torch.zeros(2, num_classes, NUM_BINS, dtype=torch.int64)
        self.add_state("counts", zeros, dist_reduce_fx="sum")

    def update(
        self,
        probabilities: Tensor,
        labels: Tensor,
    ) -> None:
        """Add a batch.

        Args:
            probabilities: (N, K).
            labels: (N,).
        """
        num_classes = self.counts.shape[1]
        classes = torch.arange(num_classes, device=labels.device)
        is_class = (labels[:, None] == classes).long()
        bins = (probabilities * NUM_BINS).long().clamp(0, NUM_BINS - 1)
        cells = (is_class * num_classes + classes) * NUM_BINS + bins
        self.counts.view(-1).scatter_add_(0, cells.flatten(), torch.ones_like(cells).flatten())

    def compute(self) -> Any:
        """Return the counts, (2, K, ``NUM_BINS``) int64: other classes, then the class itself."""
        return self.counts


class Curve(NamedTuple):
    """A curve over descending thresholds.

    Attributes:
        x: its x coordinates.
        y: its y coordinates.
        area: average precision, or the area under the ROC curve.
    """

    x: Tensor
    y: Tensor
    area: float


def precision_recall_curve(counts: Tensor) -> Curve | None:
    """Compute precision over recall, and average precision.

    Args:
        counts: (2, ``NUM_BINS``) counts of a class, see ``ScoreHistogram``.

    Returns:
        The curve; None if there is no sample of the class.
    """
    false_positives, true_positives = _accumulate(counts)
    if not true_positives[-1]:
        return None
    is_defined = true_positives + false_positives > 0  # precision above the highest score is not
    true_positives, false_positives = true_positives[is_defined], false_positives[is_defined]
    recall = true_positives / true_positives[-1]
    precision = true_positives / (true_positives + false_positives)
    steps = recall.diff(prepend=recall.new_zeros(1))
    return Curve(recall, precision, (steps * precision).sum().item())


def roc_curve(counts: Tensor) -> Curve | None:
    """Compute the true positive rate over the false positive rate, and the area below it.

    Args:
        counts: (2, ``NUM_BINS``) counts of a class, see ``ScoreHistogram``.

    Returns:
        The curve; None if there is no sample of the class, or none of another one.
    """
    false_positives, true_positives = _accumulate(counts)
    if not true_positives[-1] or not false_positives[-1]:
        return None
    zero = true_positives.new_zeros(1)
    x = torch.cat([zero, false_positives / false_positives[-1]])
    y = torch.cat([zero, true_positives / true_positives[-1]])
    return Curve(x, y, torch.trapezoid(y, x).item())


def _accumulate(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Count false and true positives from the largest threshold to the smallest one."""
    false_positives, true_positives = counts.cpu().double().flip(-1).cumsum(-1)
    return false_positives, true_positives
