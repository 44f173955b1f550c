"""The few transforms that torchvision does not have by name; the rest are its own, in conf/augment/."""

from collections.abc import Sequence
from math import pi

from torchvision import tv_tensors
from torchvision.transforms import v2

from vision_lab.types import IGNORE

SMOOTH = 10.0
"""Pixels over which elastic deformations are smoothed: larger ones take long."""


def central_crop(*, size: Sequence[int], fraction: float = 0.875) -> v2.Transform:
    """What ImageNet's recipes evaluate on: the middle of a picture, (C, H, W) -> (C, *size).

    Args:
        size: (height, width) in pixels.
        fraction: how much of the picture's shorter side the crop covers: 224 of 256 pixels in Krizhevsky 2012.
    """
    return v2.Compose([v2.Resize(round(max(size) / fraction), antialias=True), v2.CenterCrop(list(size))])


def scale_and_crop(*, size: Sequence[int], scale: Sequence[float] = (0.5, 2.0)) -> v2.Transform:
    """A picture and its mask, fitted to ``size``, then made larger or smaller, and a crop of it: (C, *size).

    What lies beyond the picture is black, and does not count in the mask (Chen 2017, section 4.1).

    Args:
        size: (height, width) in pixels.
        scale: the least and the most, drawn evenly.
    """
    beyond = {tv_tensors.Image: 0, tv_tensors.Mask: IGNORE}
    return v2.Compose(
        [
            v2.ScaleJitter(list(size), scale_range=tuple(scale), antialias=True),
            v2.RandomCrop(list(size), pad_if_needed=True, fill=beyond),
        ]
    )


def turn_and_deform(*, degrees: float, pixels: float) -> v2.Transform:
    """A picture and its mask turned and bent elastically (Ronneberger 2015, section 3.1).

    What lies beyond the picture is black, and does not count in the mask.

    Args:
        degrees: the most it is turned to either side.
        pixels: how far each moves up or down, and left or right: the standard deviation (10 in the paper).
    """
    beyond = {tv_tensors.Image: 0, tv_tensors.Mask: IGNORE}
    bilinear = v2.InterpolationMode.BILINEAR
    # torchvision moves a pixel by alpha / 2 times noise from [-1, 1], whose deviation smoothing makes small.
    alpha = pixels * 2 * (3**0.5 * 2 * pi**0.5 * SMOOTH)
    return v2.Compose(
        [
            v2.RandomRotation(degrees, interpolation=bilinear, fill=beyond),
            v2.ElasticTransform(alpha=alpha, sigma=SMOOTH, fill=beyond),
        ]
    )
