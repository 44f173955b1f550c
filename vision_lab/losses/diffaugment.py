"""Differentiable augmentation of real and generated images, before the discriminator.

Zhao, Liu, Lin, Zhu, Han: Differentiable Augmentation for Data-Efficient GAN Training, 2020.
https://arxiv.org/abs/2006.10738

With few images a discriminator soon memorizes them. If only real images were augmented, the
generator would learn to imitate the augmentations; if both are, with gradients that reach the
generator, it does not. torchvision's transforms draw one set of parameters for a whole batch; these
draw one for each image, on the device of the images.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_SHIFT = 1 / 8
"""Maximum translation in each direction, as a fraction of the side."""

CUTOUT_SIZE = 1 / 2
"""Side of the square that is cut out, as a fraction of the image's side."""


def color(images: Tensor) -> Tensor:
    """Change brightness by up to 0.5, saturation by a factor in [0, 2], contrast in [0.5, 1.5].

    Args:
        images: (N, C, H, W) in [-1, 1].
    """
    brightness, saturation, contrast = torch.rand(3, len(images), 1, 1, 1, device=images.device)
    images = images + brightness - 0.5
    gray = images.mean(dim=1, keepdim=True)
    images = (images - gray) * 2 * saturation + gray
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return (images - mean) * (0.5 + contrast) + mean


def translation(images: Tensor) -> Tensor:
    """Shift images by up to ``MAX_SHIFT``, padding with 0.

    Args:
        images: (N, C, H, W) in [-1, 1].
    """
    count, _, height, width = images.shape
    max_down, max_right = round(height * MAX_SHIFT), round(width * MAX_SHIFT)
    padded = F.pad(images, (max_right, max_right, max_down, max_down))
    random = torch.rand(2, count, 1, device=images.device)
    rows = torch.arange(height, device=images.device) + (random[0] * (2 * max_down + 1)).long()
    columns = torch.arange(width, device=images.device) + (random[1] * (2 * max_right + 1)).long()
    batch = torch.arange(count, device=images.device)[:, None, None]
    channels_last = padded.permute(0, 2, 3, 1)
    return channels_last[batch, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def cutout(images: Tensor) -> Tensor:
    """Set a square of side ``CUTOUT_SIZE``, centered anywhere in the image, to 0 (DeVries 2017).

    Args:
        images: (N, C, H, W) in [-1, 1].
    """
    count, _, height, width = images.shape
    center = torch.rand(2, count, 1, device=images.device)
    rows = torch.arange(height, device=images.device) + 0.5
    columns = torch.arange(width, device=images.device) + 0.5
    keep_rows = (rows - center[0] * height).abs() > height * CUTOUT_SIZE / 2
    keep_columns = (columns - center[1] * width).abs() > width * CUTOUT_SIZE / 2
    return images * (keep_rows[:, None, :, None] | keep_columns[:, None, None, :])
