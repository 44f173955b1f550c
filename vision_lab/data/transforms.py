"""Transforms that torchvision lacks, or that combine its own; all others are in conf/augment/."""

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
"""Fill values outside the image: black, and the ignore index in masks."""


def resize_center_crop(
    *, size: Sequence[int], fraction: Annotated[float, Range(gt=0, le=1)] = 0.875
) -> v2.Transform:
    """Resize and crop the center of an image, as in evaluation on ImageNet.

    Args:
        size: (height, width) of the crop in pixels.
        fraction: fraction of the shorter side that the crop covers (224 of 256 pixels in
            Krizhevsky 2012).
    """
    return v2.Compose(
        [v2.Resize(round(max(size) / fraction), antialias=True), v2.CenterCrop(list(size))]
    )


def scale_jitter_crop(
    *, size: Sequence[int], scale: tuple[Positive, Positive] = (0.5, 2.0)
) -> v2.Transform:
    """Resize an image and its mask to ``size`` times a random factor, and crop (Chen 2017).

    Padding is black, and ignored in the mask.

    Args:
        size: (height, width) of the crop in pixels.
        scale: range of the factor, which is uniformly distributed.
    """
    return v2.Compose(
        [
            v2.ScaleJitter(list(size), scale_range=tuple(scale), antialias=True),
            v2.RandomCrop(list(size), pad_if_needed=True, fill=PAD_FILL),
        ]
    )


def pad_and_crop(*, size: Sequence[int], pixels: Annotated[int, Range(ge=0)]) -> v2.Transform:
    """Pad an image and its mask, and crop at random (He 2015, section 4.2, with 4 pixels).

    Padding is black, and ignored in the mask.

    Args:
        size: (height, width) of the crop in pixels.
        pixels: padding on each side.
    """
    return v2.RandomCrop(list(size), padding=pixels, fill=PAD_FILL)


def rotate(*, degrees: Annotated[float, Range(ge=0, le=180)]) -> v2.Transform:
    """Rotate an image and its mask by a random angle.

    Padding is black, and ignored in the mask.

    Args:
        degrees: maximum angle in either direction.
    """
    return v2.RandomRotation(degrees, interpolation=v2.InterpolationMode.BILINEAR, fill=PAD_FILL)


class MultiSampleTransform(nn.Module):
    """A transform that uses other samples too.

    It is called with an image and its target, both resized for the batch, and a function that
    returns a number of other random samples, resized too; fewer if some are unreadable.
    """


class Mosaic(MultiSampleTransform):
    """Combination of four samples, cropped to the size of one (Bochkovskiy 2020, section 3.3).

    Args:
        size: (height, width) of the batch images in pixels.
        p: probability of the transform.
    """

    def __init__(
        self,
        *,
        size: Sequence[int],
        p: Fraction = 0.5,
    ) -> None:
        super().__init__()
        self.size = (size[0], size[1])
        self.p = p

    def forward(
        self, image: Tensor, target: Any, read_random: Callable[[int], list[Any]]
    ) -> tuple[Tensor, Any]:
        """Combine a sample with three others.

        Args:
            image: (C, H, W), of the size of the batch images.
            target: columns of its boxes.
            read_random: returns a number of random samples.
        """
        probability, down, right = torch.rand(3).tolist()
        samples = [(image, target)]
        if probability < self.p:
            samples += read_random(3)
        if len(samples) < 4:
            return image, target
        height, width = self.size
        canvas = image.new_zeros(image.shape[0], 2 * height, 2 * width)
        columns: dict[str, list[Tensor]] = {}
        for index, (sample_image, sample_target) in enumerate(samples):
            top, left = index // 2 * height, index % 2 * width
            canvas[:, top : top + height, left : left + width] = sample_image
            boxes = sample_target["boxes"] + torch.tensor([left, top, left, top])
            for name, values in {**sample_target, "boxes": boxes}.items():
                columns.setdefault(name, []).append(values)
        combined: dict[str, Any] = {name: torch.cat(values) for name, values in columns.items()}
        # The crop contains the point where the four images meet.
        top, left = round((0.25 + 0.5 * down) * height), round((0.25 + 0.5 * right) * width)
        boxes = tv_tensors.BoundingBoxes(
            combined["boxes"], format="XYXY", canvas_size=(2 * height, 2 * width)
        )
        combined["boxes"] = v2.functional.crop(boxes, top, left, height, width)
        cropped = v2.functional.crop(tv_tensors.Image(canvas), top, left, height, width)
        return cropped, combined


class ElasticDeformation(v2.Transform):
    """Elastic deformation by random vectors on a 3x3 grid, with bicubic interpolation.

    See section 3.1 of Ronneberger 2015. Padding is black, and ignored in the mask.

    Args:
        sigma: standard deviation of the vectors, as a fraction of the side (10 of 512 pixels in the
            paper).
    """

    def __init__(self, *, sigma: Annotated[float, Range(ge=0, le=1)] = 10 / 512) -> None:
        super().__init__()
        self.sigma = sigma

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        size = list(v2.query_size(flat_inputs))
        coarse = torch.randn(1, 2, 3, 3) * self.sigma * 2  # torch's grid extends from -1 to 1
        dense = interpolate(coarse, size, mode="bicubic", align_corners=True)
        return {"displacement": dense.permute(0, 2, 3, 1)}

    def transform(
        self,
        inpt: Any,
        params: dict[str, Any],
    ) -> Any:
        fill = PAD_FILL[tv_tensors.Mask if isinstance(inpt, tv_tensors.Mask) else tv_tensors.Image]
        return self._call_kernel(v2.functional.elastic, inpt, **params, fill=fill)
