"""The few transforms that torchvision does not have by name; the rest are its own, in conf/augment/."""

from collections.abc import Sequence

from torchvision import tv_tensors
from torchvision.transforms import v2

from vision_lab.types import IGNORE


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
