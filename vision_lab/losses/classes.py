"""Losses of classes, of images or of pixels.

They are modules like torch's: called with logits and targets, with class weights as ``weight``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vision_lab.core.arguments import ArgumentError, NonNegative, Range
from vision_lab.core.spec import IGNORE_INDEX
from vision_lab.losses.class_weights import set_class_weights


class CrossEntropy(nn.CrossEntropyLoss):
    """Cross-entropy; unlike torch's, it is 0 if all pixels are ignored.

    Args:
        label_smoothing: fraction of the target that is distributed evenly over all classes
            (Szegedy 2015).
        weight: (K,) class weights; None for equal ones.
    """

    def __init__(
        self,
        *,
        label_smoothing: Annotated[float, Range(ge=0, lt=1)] = 0.0,
        weight: Tensor | None = None,
    ) -> None:
        super().__init__(weight=weight, label_smoothing=label_smoothing)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compute the weighted mean over images or pixels.

        Args:
            logits: (N, K) or (N, K, H, W).
            targets: (N,) or (N, H, W) int64; pixels of 255 are ignored.

        Returns:
            A scalar.
        """
        if targets.ndim == 1:  # labels of images are never ignored
            return super().forward(logits, targets)
        total = F.cross_entropy(
            logits,
            targets,
            weight=self.weight,
            ignore_index=IGNORE_INDEX,
            label_smoothing=self.label_smoothing,
            reduction="sum",
        )
        is_counted = targets != IGNORE_INDEX
        if self.weight is None:
            count = is_counted.sum()
        else:
            count = (self.weight[torch.where(is_counted, targets, 0)] * is_counted).sum()
        return total / count.where(count > 0, 1)  # torch's mean is NaN if all pixels are ignored


class Focal(nn.Module):
    """Focal loss (Lin 2017), which weights a pixel or image less the better it is classified.

    Args:
        gamma: focusing parameter; 0 for cross-entropy.
        weight: (K,) class weights; None for equal ones.
    """

    weight: Tensor | None

    def __init__(
        self,
        *,
        gamma: NonNegative = 2.0,
        weight: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.gamma = gamma
        self.register_buffer("weight", weight)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compute the mean over images or pixels.

        Args:
            logits: (N, K) or (N, K, H, W).
            targets: (N,) or (N, H, W) int64; pixels of 255 are ignored.

        Returns:
            A scalar.
        """
        ignored = IGNORE_INDEX if targets.ndim > 1 else -1
        losses = F.cross_entropy(logits, targets, ignore_index=ignored, reduction="none")
        weighted = F.cross_entropy(
            logits,
            targets,
            weight=self.weight,
            ignore_index=ignored,
            reduction="none",
        )
        # The gradient of a power below 1 is infinite at 0.
        error_probability = (1 - (-losses).exp()).clamp(min=1e-6)
        count = (targets != ignored).sum().clamp(min=1)
        return (error_probability**self.gamma * weighted).sum() / count


class Dice(nn.Module):
    """Dice loss of pixels (Milletari 2016, without squares in the denominator)."""

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compute 1 - soft Dice of the whole batch, averaged over the classes in it.

        Args:
            logits: (N, K, H, W).
            targets: (N, H, W) int64; pixels of 255 are ignored.

        Returns:
            A scalar.
        """
        is_counted = targets != IGNORE_INDEX
        labels = torch.where(is_counted, targets, 0)
        probabilities = logits.softmax(dim=1) * is_counted[:, None]
        zeros = probabilities.new_zeros(logits.shape[1])
        target_probabilities = probabilities.gather(1, labels[:, None]).flatten()
        intersection = zeros.index_add(0, labels.flatten(), target_probabilities)
        counted = is_counted.flatten().to(probabilities.dtype)
        pixels = zeros.index_add(0, labels.flatten(), counted)
        total = (probabilities.sum(dim=(0, 2, 3)) + pixels).clamp(min=1e-6)
        is_present = pixels > 0
        return ((1 - 2 * intersection / total) * is_present).sum() / is_present.sum().clamp(min=1)


class WeightedSum(nn.Module):
    """Several losses, each with a weight; those of weight 0 are not computed.

    Args:
        losses: the losses by name.
        weights: their weights by the same names; 1 for those left out.

    Raises:
        ArgumentError: if a weight has no loss, or all weights are 0.
    """

    def __init__(
        self,
        losses: Mapping[str, nn.Module],
        weights: Mapping[str, NonNegative],
    ) -> None:
        super().__init__()
        unknown = sorted(set(weights) - set(losses))
        if unknown:
            needed = f"weights of {', '.join(losses)}: there is no loss {unknown[0]}"
            raise ArgumentError("weights", dict(weights), needed)
        self.weights = {name: weights.get(name, 1.0) for name in losses}
        if not any(self.weights.values()):
            raise ArgumentError("weights", dict(weights), "a number above 0 for at least one")
        self.losses = nn.ModuleDict(losses)

    @property
    def weight(self) -> Tensor | None:
        """Class weights (K,) of the losses that have them."""
        for loss in self.losses.values():
            if hasattr(loss, "weight"):
                return cast("Tensor | None", loss.weight)
        raise AttributeError("none of these losses has class weights")

    @weight.setter
    def weight(self, weight: Tensor | None) -> None:
        for loss in self.losses.values():
            if hasattr(loss, "weight"):
                set_class_weights(loss, weight)

    def forward(self, logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Compute the weighted losses.

        Args:
            logits: logits of the task.
            targets: targets of the task.

        Returns:
            Scalars by name, to be summed.
        """
        terms = {}
        for name, loss in self.losses.items():
            if self.weights[name]:
                terms[name] = self.weights[name] * loss(logits, targets)
        return terms
