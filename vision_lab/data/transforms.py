"""The few transforms that torchvision does not have by name; the rest are its own, in conf/augment/."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import interpolate
from torchvision import tv_tensors
from torchvision.transforms import v2

from vision_lab.types import IGNORE

BEYOND = {tv_tensors.Image: 0, tv_tensors.Mask: IGNORE}
"""What is put where there is no picture."""


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
    return v2.Compose(
        [
            v2.ScaleJitter(list(size), scale_range=tuple(scale), antialias=True),
            v2.RandomCrop(list(size), pad_if_needed=True, fill=BEYOND),
        ]
    )


def shift(*, size: Sequence[int], pixels: int) -> v2.Transform:
    """A crop of ``size`` of a picture and its mask with a border of so many pixels: (C, *size).

    The border is black, and does not count in the mask (He 2015, section 4.2, with 4 pixels).
    """
    return v2.RandomCrop(list(size), padding=pixels, fill=BEYOND)


def turn(*, degrees: float) -> v2.Transform:
    """A picture and its mask turned by up to so many degrees to either side.

    What lies beyond the picture is black, and does not count in the mask.
    """
    return v2.RandomRotation(degrees, interpolation=v2.InterpolationMode.BILINEAR, fill=BEYOND)


class Bend(v2.Transform):
    """Elastic deformation by random vectors on a 3x3 grid, bicubic in between (Ronneberger 2015, section 3.1).

    What lies beyond the picture is black, and does not count in the mask.

    Args:
        strength: the vectors' standard deviation in parts of the picture's side (10 of 512 pixels in the paper).
    """

    def __init__(self, *, strength: float = 10 / 512) -> None:
        super().__init__()
        self.strength = strength

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        size = list(v2.query_size(flat_inputs))
        coarse = torch.randn(1, 2, 3, 3) * self.strength * 2  # torch's grid goes from -1 to 1
        fine = interpolate(coarse, size, mode="bicubic", align_corners=True)
        return {"displacement": fine.permute(0, 2, 3, 1)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        fill = BEYOND[tv_tensors.Mask if isinstance(inpt, tv_tensors.Mask) else tv_tensors.Image]
        return self._call_kernel(v2.functional.elastic, inpt, **params, fill=fill)
