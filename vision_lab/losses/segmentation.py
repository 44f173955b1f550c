"""Losses of semantic segmentation; pixels labeled 255 are ignored."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vision_lab.core.spec import IGNORE_INDEX


def cross_entropy(
    logits: Tensor,
    targets: Tensor,
    *,
    weights: Tensor | None = None,
) -> Tensor:
    """Compute the cross-entropy; unlike torch's, it is 0 if all pixels are ignored.

    Args:
        logits: (N, K, H, W).
        targets: (N, H, W) int64.
        weights: (K,) class weights; None for equal ones.

    Returns:
        The weighted mean over pixels, a scalar.
    """
    total = F.cross_entropy(
        logits, targets, weight=weights, ignore_index=IGNORE_INDEX, reduction="sum"
    )
    is_counted = targets != IGNORE_INDEX
    if weights is None:
        count = is_counted.sum()
    else:
        count = (weights[torch.where(is_counted, targets, 0)] * is_counted).sum()
    return total / count.where(count > 0, 1)  # torch's mean is NaN if all pixels are ignored


def focal(
    logits: Tensor, targets: Tensor, *, gamma: float, weights: Tensor | None = None
) -> Tensor:
    """Compute the focal loss (Lin 2017).

    Args:
        logits: (N, K, H, W).
        targets: (N, H, W) int64.
        gamma: focusing parameter, 2 in the paper.
        weights: (K,) class weights; None for equal ones.

    Returns:
        The mean over pixels, a scalar.
    """
    losses = F.cross_entropy(logits, targets, ignore_index=IGNORE_INDEX, reduction="none")
    weighted = F.cross_entropy(
        logits, targets, weight=weights, ignore_index=IGNORE_INDEX, reduction="none"
    )
    # The gradient of a power below 1 is infinite at 0.
    error_probability = (1 - (-losses).exp()).clamp(min=1e-6)
    count = (targets != IGNORE_INDEX).sum().clamp(min=1)
    return (error_probability**gamma * weighted).sum() / count


def dice(logits: Tensor, targets: Tensor) -> Tensor:
    """Compute the Dice loss (Milletari 2016, without squares in the denominator).

    Args:
        logits: (N, K, H, W).
        targets: (N, H, W) int64.

    Returns:
        1 - soft Dice of the whole batch, averaged over the classes in it; a scalar.
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
