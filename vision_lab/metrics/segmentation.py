"""Metrics computed from a confusion matrix.

torchmetrics' own confusion matrix takes batch * classes^2 memory in deterministic mode.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from vision_lab.core.spec import IGNORE_INDEX


class Confusion(Metric):
    """Confusion matrix (K, K) of a whole split, target by prediction, from class probabilities.

    It counts integers, so the result does not depend on the order of batches.

    Args:
        num_classes: number of classes K.
    """

    matrix: Tensor
    names: tuple[str, ...] = ()
    """Names of the scalars that ``compute`` returns."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        zeros = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        self.add_state("matrix", zeros, dist_reduce_fx="sum")

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
        update_confusion(self.matrix, probabilities.argmax(dim=1), labels, ignore_index=None)

    def compute(self) -> Any:
        """Return the counts, (K, K) int64."""
        return self.matrix


class MacroF1(Confusion):
    """Mean over classes of 2 TP / (2 TP + FP + FN).

    Classes that occur neither in the targets nor in the predictions are left out.
    """

    names = ("f1",)

    def compute(self) -> Tensor:
        """Return the score in [0, 1]."""
        return _nanmean(dice(self.matrix))


class SegmentationMetrics(Confusion):
    """Metrics of (N, H, W) masks over all pixels of a split, rather than image by image.

    ``miou`` is the mean over classes of intersection over union, ``dice`` that of the Dice
    coefficient, and ``pixel_accuracy`` the fraction of correct pixels. Classes that occur neither
    in the targets nor in the predictions are left out, and so are pixels whose target is 255.
    """

    names = ("miou", "dice", "pixel_accuracy")

    def update(
        self,
        predictions: Tensor,
        targets: Tensor,
    ) -> None:
        """Add a batch.

        Args:
            predictions: (N, H, W) labels.
            targets: (N, H, W) labels.
        """
        update_confusion(self.matrix, predictions, targets, ignore_index=IGNORE_INDEX)

    def compute(self) -> dict[str, Tensor]:
        """Return the scores in [0, 1], and the counts as ``confusion``."""
        return {**segmentation_scores(self.matrix), "confusion": self.matrix.clone()}


def update_confusion(
    matrix: Tensor, predictions: Tensor, targets: Tensor, *, ignore_index: int | None
) -> None:
    """Add predictions to a confusion matrix, in place.

    Args:
        matrix: (K, K) int64 counts, target by prediction.
        predictions: labels of any shape.
        targets: labels of the same shape.
        ignore_index: target that is not counted.
    """
    is_counted = torch.ones_like(targets, dtype=torch.bool)
    if ignore_index is not None:
        is_counted = targets != ignore_index
    cells = torch.where(is_counted, targets.long() * len(matrix) + predictions.long(), 0)
    matrix.view(-1).scatter_add_(0, cells.flatten(), is_counted.flatten().long())


def segmentation_scores(matrix: Tensor) -> dict[str, Tensor]:
    """Compute ``miou``, ``dice`` and ``pixel_accuracy`` in [0, 1] from counts (K, K)."""
    return {
        "miou": _nanmean(intersection_over_union(matrix)),
        "dice": _nanmean(dice(matrix)),
        "pixel_accuracy": matrix.diag().sum() / matrix.sum().clamp(min=1),
    }


def intersection_over_union(matrix: Tensor) -> Tensor:
    """Compute IoU (K,) in [0, 1] from counts (K, K); NaN for classes that do not occur."""
    hits = matrix.diag()
    return hits / (matrix.sum(dim=0) + matrix.sum(dim=1) - hits)


def dice(matrix: Tensor) -> Tensor:
    """Compute Dice (K,), which is F1, in [0, 1] from counts (K, K); NaN for absent classes."""
    return 2 * matrix.diag() / (matrix.sum(dim=0) + matrix.sum(dim=1))


def _nanmean(scores: Tensor) -> Tensor:
    """Return the mean over classes that occur; 0 if there is none, because a NaN ends a run."""
    return scores.nanmean().nan_to_num(0.0)
