"""The few transforms that torchvision does not have by name; the rest are its own, in conf/augment/."""

from collections.abc import Sequence

from torchvision.transforms import v2


def central_crop(*, size: Sequence[int], fraction: float = 0.875) -> v2.Transform:
    """What ImageNet's recipes evaluate on: the middle of a picture, (C, H, W) -> (C, *size).

    Args:
        size: (height, width) in pixels.
        fraction: how much of the picture's shorter side the crop covers: 224 of 256 pixels in Krizhevsky 2012.
    """
    return v2.Compose([v2.Resize(round(max(size) / fraction), antialias=True), v2.CenterCrop(list(size))])
