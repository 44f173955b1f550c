"""Errors of reconstructed images, by pixel and by image, and how well they reveal anomalies."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


class AnomalyAUROC(Metric):
    """Area under the ROC curve of anomaly scores; NaN if there is only one kind of images.

    It is computed by counting pairs of images, so that it does not depend on their order or on the
    number of threads, as the sum of an area in single precision does.
    """

    scores: list[Tensor]
    are_anomalies: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("scores", [], dist_reduce_fx="cat")
        self.add_state("are_anomalies", [], dist_reduce_fx="cat")

    def update(self, scores: Tensor, are_anomalies: Tensor) -> None:
        """Add a batch.

        Args:
            scores: (N,), higher for anomalies.
            are_anomalies: (N,) bool.
        """
        self.scores.append(scores)
        self.are_anomalies.append(are_anomalies)

    def compute(self) -> Tensor:
        """Compute the probability that an anomaly has a higher score than another image."""
        scores, are_anomalies = dim_zero_cat(self.scores), dim_zero_cat(self.are_anomalies)
        anomalies, others = scores[are_anomalies], scores[~are_anomalies].sort().values
        if not len(anomalies) or not len(others):
            return torch.tensor(torch.nan, device=scores.device)
        lower = torch.searchsorted(others, anomalies)
        lower_or_equal = torch.searchsorted(others, anomalies, right=True)
        wins = (lower + lower_or_equal).sum().double() / 2  # half of each tie
        return (wins / (len(anomalies) * len(others))).float()


def anomaly_scores(reconstructed: Tensor, images: Tensor) -> Tensor:
    """Compute the mean squared error of each image.

    Args:
        reconstructed: (N, C, H, W) uint8.
        images: (N, C, H, W) uint8.

    Returns:
        (N,) in [0, 1].
    """
    return error_maps(reconstructed, images).mean(dim=(1, 2))


def error_maps(reconstructed: Tensor, images: Tensor) -> Tensor:
    """Compute the squared error of each pixel, averaged over channels.

    Args:
        reconstructed: (N, C, H, W) uint8.
        images: (N, C, H, W) uint8.

    Returns:
        (N, H, W) in [0, 1].
    """
    return ((reconstructed.float() - images.float()) / 255).square().mean(dim=1)
