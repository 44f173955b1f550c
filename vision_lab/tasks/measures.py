"""Measures that cost torchmetrics batch x classes^2 numbers in deterministic mode; here they cost classes^2."""

import torch
from torch import Tensor
from torchmetrics import Metric


class Confusion(Metric):
    """Counts (K, K) of truth by prediction over a whole split.

    Takes (N, K) probabilities and (N,) labels. Whole numbers are added, so the order of adding does not matter.
    """

    matrix: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.add_state("matrix", torch.zeros(classes, classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, labels: Tensor) -> None:
        """Count a batch."""
        cells = labels * self.classes + probabilities.argmax(dim=1)
        self.matrix.view(-1).scatter_add_(0, cells, torch.ones_like(cells))

    def compute(self) -> Tensor:
        """The counts so far."""
        return self.matrix


class MacroF1(Confusion):
    """The mean over classes of 2 TP / (2 TP + FP + FN); a class that is neither there nor said does not count."""

    def compute(self) -> Tensor:
        """The score so far, in [0, 1]."""
        hits = self.matrix.diag()
        seen = self.matrix.sum(dim=0) + self.matrix.sum(dim=1)
        return (2 * hits[seen > 0] / seen[seen > 0]).mean()
