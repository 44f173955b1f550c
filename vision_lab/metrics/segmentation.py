"""Measures from one count of truth by prediction; torchmetrics' own costs batch x classes^2 in deterministic mode."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from vision_lab.core.spec import IGNORE_INDEX


class Confusion(Metric):
    """Counts (K, K) of truth by prediction over a whole split.

    Takes (N, K) probabilities and (N,) labels. Whole numbers are added, so the order of adding does not matter.
    """

    matrix: Tensor
    names: tuple[str, ...] = ()
    """Of the scalars that it comes to."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.add_state(
            "matrix", torch.zeros(classes, classes, dtype=torch.int64), dist_reduce_fx="sum"
        )

    def update(self, probabilities: Tensor, labels: Tensor) -> None:
        """Count a batch."""
        update_confusion(self.matrix, probabilities.argmax(dim=1), labels, ignore=None)

    def compute(self) -> Any:
        """The counts so far."""
        return self.matrix


class MacroF1(Confusion):
    """The mean over classes of 2 TP / (2 TP + FP + FN); a class that is neither there nor said does not count."""

    names = ("f1",)

    def compute(self) -> Tensor:
        """The score so far, in [0, 1]."""
        return _mean(dice(self.matrix))


class SegmentationMetrics(Confusion):
    """How well (N, H, W) masks agree, over all pixels of a split together rather than picture by picture.

    ``miou``, the mean over classes of the intersection of truth and prediction over their union; ``dice``, that of
    twice the intersection over their sum; ``pixel_accuracy``, the part of pixels that are right; and the counts. A
    class that is neither there nor said does not count, nor does a pixel whose truth is 255.
    """

    names = ("miou", "dice", "pixel_accuracy")

    def update(self, said: Tensor, truth: Tensor) -> None:
        """Count a batch."""
        update_confusion(self.matrix, said, truth, ignore=IGNORE_INDEX)

    def compute(self) -> dict[str, Tensor]:
        """The scores so far, in [0, 1]."""
        return {**segmentation_scores(self.matrix), "confusion": self.matrix.clone()}


def update_confusion(matrix: Tensor, said: Tensor, truth: Tensor, *, ignore: int | None) -> None:
    """Add to counts (K, K) of truth by prediction.

    Args:
        matrix: int64; what is added to.
        said: labels of any shape.
        truth: as many.
        ignore: a truth that is not counted.
    """
    known = torch.ones_like(truth, dtype=torch.bool) if ignore is None else truth != ignore
    cells = torch.where(known, truth.long() * len(matrix) + said.long(), 0)
    matrix.view(-1).scatter_add_(0, cells.flatten(), known.flatten().long())


def segmentation_scores(matrix: Tensor) -> dict[str, Tensor]:
    """``miou``, ``dice`` and ``pixel_accuracy`` of counts (K, K), in [0, 1]."""
    return {
        "miou": _mean(intersection_over_union(matrix)),
        "dice": _mean(dice(matrix)),
        "pixel_accuracy": matrix.diag().sum() / matrix.sum().clamp(min=1),
    }


def intersection_over_union(matrix: Tensor) -> Tensor:
    """(K,) of counts (K, K), in [0, 1]; NaN for a class that is neither there nor said."""
    hits = matrix.diag()
    return hits / (matrix.sum(dim=0) + matrix.sum(dim=1) - hits)


def dice(matrix: Tensor) -> Tensor:
    """(K,) of counts (K, K), in [0, 1], which is also F1; NaN for a class that is neither there nor said."""
    return 2 * matrix.diag() / (matrix.sum(dim=0) + matrix.sum(dim=1))


def _mean(scores: Tensor) -> Tensor:
    """Over the classes that count; 0 where there is none, since a NaN would stop a run that has nothing to measure."""
    return scores.nanmean().nan_to_num(0.0)
