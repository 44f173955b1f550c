"""Losses of reconstructed images, and of the codes they are made from.

Those of images are called with logits, whose sigmoid is the image, and with the image itself.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.functional.image import structural_similarity_index_measure

SSIM_WINDOW = 11
"""Side of the window of SSIM in pixels (Wang 2004)."""


class MeanSquaredError(nn.Module):
    """Mean squared error of pixels."""

    def forward(self, logits: Tensor, images: Tensor) -> Tensor:
        """Compute the mean over pixels.

        Args:
            logits: (N, C, H, W).
            images: (N, C, H, W) in [0, 1].

        Returns:
            A scalar.
        """
        return _mean_over_images(F.mse_loss(logits.sigmoid(), images, reduction="none"))


class PixelCrossEntropy(nn.Module):
    """Binary cross-entropy of pixels, the likelihood of Kingma 2013 (appendix C.1)."""

    def forward(self, logits: Tensor, images: Tensor) -> Tensor:
        """Compute the mean over pixels, in nats.

        Args:
            logits: (N, C, H, W).
            images: (N, C, H, W) in [0, 1].

        Returns:
            A scalar.
        """
        losses = F.binary_cross_entropy_with_logits(logits, images, reduction="none")
        return _mean_over_images(losses)


class StructuralDissimilarity(nn.Module):
    """One minus the structural similarity of images (Wang 2004), in [0, 2]."""

    def forward(self, logits: Tensor, images: Tensor) -> Tensor:
        """Compute the mean over images.

        Args:
            logits: (N, C, H, W).
            images: (N, C, H, W) in [0, 1].

        Returns:
            A scalar.
        """
        window = ssim_window((images.shape[-2], images.shape[-1]))
        similarity = structural_similarity_index_measure(
            logits.float().sigmoid(),
            images.float(),
            data_range=1.0,
            gaussian_kernel=window == SSIM_WINDOW,
            kernel_size=window,
        )
        assert isinstance(similarity, Tensor)
        return 1 - similarity


def _mean_over_images(losses: Tensor) -> Tensor:
    """Average losses of pixels (N, C, H, W), in an order that no number of threads changes."""
    return losses.flatten(1).mean(dim=1).mean()


def ssim_window(image_size: tuple[int, int]) -> int:
    """Return the side of the window of SSIM, which is odd and not larger than the images.

    Args:
        image_size: (height, width) of the images.
    """
    side = min(SSIM_WINDOW, *image_size)
    return side - (side + 1) % 2


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Compute the KL divergence of normal distributions from the standard one, in nats.

    Kingma 2013, appendix B.

    Args:
        mean: (N, D).
        log_variance: (N, D), diagonal.

    Returns:
        A scalar, the sum over the D dimensions and the mean over the N distributions.
    """
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)
    return divergence.sum(dim=1).mean()
