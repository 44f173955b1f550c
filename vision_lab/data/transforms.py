"""The few transforms that torchvision does not have by name; the rest are its own, in conf/augment/."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision import tv_tensors
from torchvision.transforms import v2

from vision_lab.core.arguments import Fraction, Positive, Range
from vision_lab.core.spec import IGNORE_INDEX

PAD_FILL = {tv_tensors.Image: 0, tv_tensors.Mask: IGNORE_INDEX}
"""What is put where there is no picture."""


def resize_center_crop(
    *, size: Sequence[int], fraction: Annotated[float, Range(gt=0, le=1)] = 0.875
) -> v2.Transform:
    """What ImageNet's recipes evaluate on: the middle of a picture, (C, H, W) -> (C, *size).

    Args:
        size: (height, width) in pixels.
        fraction: how much of the picture's shorter side the crop covers: 224 of 256 pixels in Krizhevsky 2012.
    """
    return v2.Compose(
        [v2.Resize(round(max(size) / fraction), antialias=True), v2.CenterCrop(list(size))]
    )


def scale_jitter_crop(
    *, size: Sequence[int], scale: tuple[Positive, Positive] = (0.5, 2.0)
) -> v2.Transform:
    """A picture and its mask, fitted to ``size``, then made larger or smaller, and a crop of it: (C, *size).

    What lies beyond the picture is black, and does not count in the mask (Chen 2017, section 4.1).

    Args:
        size: (height, width) in pixels.
        scale: the least and the most, drawn evenly.
    """
    return v2.Compose(
        [
            v2.ScaleJitter(list(size), scale_range=tuple(scale), antialias=True),
            v2.RandomCrop(list(size), pad_if_needed=True, fill=PAD_FILL),
        ]
    )


def pad_and_crop(*, size: Sequence[int], pixels: Annotated[int, Range(ge=0)]) -> v2.Transform:
    """A crop of ``size`` of a picture and its mask with a border of so many pixels: (C, *size).

    The border is black, and does not count in the mask (He 2015, section 4.2, with 4 pixels).
    """
    return v2.RandomCrop(list(size), padding=pixels, fill=PAD_FILL)


def rotate(*, degrees: Annotated[float, Range(ge=0, le=180)]) -> v2.Transform:
    """A picture and its mask turned by up to so many degrees to either side.

    What lies beyond the picture is black, and does not count in the mask.
    """
    return v2.RandomRotation(degrees, interpolation=v2.InterpolationMode.BILINEAR, fill=PAD_FILL)


class MultiSampleTransform(nn.Module):
    """A transform that takes other samples too.

    Called with a picture and its target, fitted to the batch's size, and a function that gives so many other samples,
    fitted too; fewer where some cannot be read.
    """


class Mosaic(MultiSampleTransform):
    """Four samples in one picture, and of that a part of the usual size (Bochkovskiy 2020, section 3.3).

    Args:
        size: (height, width) in pixels of the batch's pictures.
        p: how often; else the picture stays as it is.
    """

    def __init__(self, *, size: Sequence[int], p: Fraction = 0.5) -> None:
        super().__init__()
        self.size = (size[0], size[1])
        self.p = p

    def forward(
        self, picture: Tensor, target: Any, others: Callable[[int], list[Any]]
    ) -> tuple[Tensor, Any]:
        drawn, down, right = torch.rand(3).tolist()
        samples = [(picture, target), *(others(3) if drawn < self.p else ())]
        if len(samples) < 4:
            return picture, target
        height, width = self.size
        canvas = picture.new_zeros(picture.shape[0], 2 * height, 2 * width)
        columns: dict[str, list[Tensor]] = {}
        for place, (each, objects) in enumerate(samples):
            row, column = place // 2 * height, place % 2 * width
            canvas[:, row : row + height, column : column + width] = each
            moved = objects["boxes"] + torch.tensor([column, row, column, row])
            for name, values in {**objects, "boxes": moved}.items():
                columns.setdefault(name, []).append(values)
        together: dict[str, Any] = {name: torch.cat(values) for name, values in columns.items()}
        together["boxes"] = tv_tensors.BoundingBoxes(
            together["boxes"], format="XYXY", canvas_size=(2 * height, 2 * width)
        )
        # A window around the point where the four meet.
        window = (
            round((0.25 + 0.5 * down) * height),
            round((0.25 + 0.5 * right) * width),
            height,
            width,
        )
        together["boxes"] = v2.functional.crop(together["boxes"], *window)
        return v2.functional.crop(tv_tensors.Image(canvas), *window), together


class ElasticDeformation(v2.Transform):
    """Elastic deformation by random vectors on a 3x3 grid, bicubic in between (Ronneberger 2015, section 3.1).

    What lies beyond the picture is black, and does not count in the mask.

    Args:
        strength: the vectors' standard deviation in parts of the picture's side (10 of 512 pixels in the paper).
    """

    def __init__(self, *, sigma: Annotated[float, Range(ge=0, le=1)] = 10 / 512) -> None:
        super().__init__()
        self.sigma = sigma

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        size = list(v2.query_size(flat_inputs))
        coarse = torch.randn(1, 2, 3, 3) * self.sigma * 2  # torch's grid goes from -1 to 1
        fine = interpolate(coarse, size, mode="bicubic", align_corners=True)
        return {"displacement": fine.permute(0, 2, 3, 1)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        fill = PAD_FILL[tv_tensors.Mask if isinstance(inpt, tv_tensors.Mask) else tv_tensors.Image]
        return self._call_kernel(v2.functional.elastic, inpt, **params, fill=fill)
