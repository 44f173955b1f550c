"""How far a JPEG file may be reduced while it is decoded, for the transforms that follow.

A photograph of 12 megapixels that becomes an image of 224 pixels need not be decoded at full size:
libjpeg computes 1/2, 1/4 or 1/8 of its sides directly from the coefficients. The rule is a function
of the image, the transforms and their random numbers alone:

- The transform that sets the size is the first one that is neither a flip nor a change of colors:
  ``Resize``, ``RandomResizedCrop`` or ``ScaleJitter``, or the final resizing to
  ``spec.image_size``. Before any other transform, images are decoded at full size.
- Each pixel that it returns is made of at least ``OVERSAMPLING`` pixels, in both directions.
- A crop is moved to whole pixels of the reduced image, by at most half of one.
- Whole images with masks or boxes are reduced only by divisors of both sides, so that each target
  stays exactly on its pixels.

Targets are never reduced: the transform that sets the size brings both to the same one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch.utils._pytree import tree_map
from torchvision import tv_tensors
from torchvision.transforms import v2

from vision_lab.core.spec import DataSpec
from vision_lab.data.image_io import Reduction
from vision_lab.data.transforms import MultiSampleTransform

REDUCTIONS: tuple[Reduction, ...] = (8, 4, 2)

OVERSAMPLING = 1.5
"""Pixels per pixel of the result, at least.

With 1.0, photographs differ by up to 3.4 gray levels from those that were decoded at full size
(mean of the absolute differences); with 1.5 by up to 1.6.
"""

COLOR_AND_FLIPS = (
    v2.RandomHorizontalFlip,
    v2.RandomVerticalFlip,
    v2.ColorJitter,
    v2.RandomGrayscale,
    v2.RandomPhotometricDistort,
)
"""Transforms whose result does not depend on the resolution, and that leave it as it is."""

Size = tuple[int, int]


class Plan(NamedTuple):
    """How to decode an image, and the parameters of the transform that sets its size."""

    reduction: Reduction = 1
    parameters: dict[str, Any] | None = None
    """Parameters in pixels of the original image; None if the transform has none."""


class ReductionPlanner:
    """Plans the reduction of images before their transforms.

    Args:
        transforms: the transforms.
        image_size: (height, width) to which images are resized at the end.
        letterbox: whether they are resized with their aspect ratio, into ``image_size``.
        keep_pixels: whether targets refer to pixels, as masks and boxes do.
    """

    def __init__(
        self,
        transforms: Sequence[Any],
        *,
        image_size: Size,
        letterbox: bool,
        keep_pixels: bool,
    ) -> None:
        self.image_size = image_size
        self.letterbox = letterbox
        self.keep_pixels = keep_pixels
        self.transform = _find_resizing(transforms)
        """The transform that sets the size; None for the final resizing."""

    def plan(self, size: Size) -> Plan:
        """Choose the reduction of an image, and draw the parameters of its crop.

        Args:
            size: (height, width) of the original image in pixels.
        """
        transform = self.transform
        if transform is None:
            return Plan(self._reduce_whole(size, self._final_scale(size)))
        if type(transform) is v2.Resize and transform.max_size is None:
            return Plan(self._reduce_whole(size, _resize_scale(transform.size, size)))
        if type(transform) is v2.ScaleJitter:
            parameters = _draw_parameters(transform, size)
            scale = _resize_scale(parameters["size"], size)
            return Plan(self._reduce_whole(size, scale), parameters)
        if type(transform) is v2.RandomResizedCrop:
            parameters = _draw_parameters(transform, size)
            crop = parameters["height"], parameters["width"]
            reduction = _largest_reduction(_resize_scale(transform.size, crop))
            return Plan(reduction, _align_crop(parameters, size, reduction))
        return Plan()

    def _reduce_whole(self, size: Size, scale: float) -> Reduction:
        reduction = _largest_reduction(scale)
        while self.keep_pixels and (size[0] % reduction or size[1] % reduction):
            reduction = cast(Reduction, reduction // 2)
        return reduction

    def _final_scale(self, size: Size) -> float:
        scales = [new / old for new, old in zip(self.image_size, size, strict=True)]
        return min(scales) if self.letterbox else max(scales)


def make_planner(spec: DataSpec, transforms: Sequence[Any]) -> ReductionPlanner:
    """Create the planner of images of a spec.

    Args:
        spec: spec of the data.
        transforms: their transforms, without ``Compose``.
    """
    return ReductionPlanner(
        transforms,
        image_size=spec.image_size,
        letterbox=spec.target_type == "boxes",
        keep_pixels=spec.target_type in ("masks", "boxes"),
    )


def apply_planned(
    transform: v2.Transform,
    plan: Plan,
    image: tv_tensors.Image,
    target: Any,
) -> tuple[tv_tensors.Image, Any]:
    """Apply a transform with parameters that were drawn before its image was decoded.

    Args:
        transform: the transform.
        plan: the plan of the image, with parameters.
        image: the image, reduced.
        target: its target, which is not.
    """
    assert plan.parameters is not None
    own = dict(plan.parameters)
    for name in ("top", "left", "height", "width"):
        if name in own:
            own[name] //= plan.reduction

    def apply(leaf: Any) -> Any:
        if isinstance(leaf, tv_tensors.Mask | tv_tensors.BoundingBoxes):
            return transform.transform(leaf, plan.parameters)
        return leaf

    return transform.transform(image, own), tree_map(apply, target)


def flatten_transforms(transforms: Sequence[Any]) -> list[Any]:
    """Replace each ``Compose`` by its transforms, so that the one that sets the size is found."""
    flat = []
    for transform in transforms:
        if type(transform) is v2.Compose:
            flat += flatten_transforms(transform.transforms)
        else:
            flat.append(transform)
    return flat


def _find_resizing(transforms: Sequence[Any]) -> Any:
    for transform in transforms:
        if isinstance(transform, MultiSampleTransform):  # its images are resized before
            return None
        if type(transform) not in COLOR_AND_FLIPS:
            return transform
    return None


def _draw_parameters(transform: v2.Transform, size: Size) -> dict[str, Any]:
    """Draw the random parameters of a transform for an image that is not decoded yet."""
    return transform.make_params([tv_tensors.Image(torch.empty((1, *size), device="meta"))])


def _resize_scale(new: Sequence[int], old: Size) -> float:
    """Return the output pixels per input pixel, in the direction that has more of them.

    Args:
        new: (height, width) after resizing, or the new length of the shorter side.
        old: (height, width) before.
    """
    if len(new) == 1:
        return new[0] / min(old)
    return max(new[0] / old[0], new[1] / old[1])


def _largest_reduction(scale: float) -> Reduction:
    for reduction in REDUCTIONS:
        if reduction * scale * OVERSAMPLING <= 1:
            return reduction
    return 1


def _align_crop(
    parameters: dict[str, Any],
    size: Size,
    reduction: Reduction,
) -> dict[str, Any]:
    """Move a crop to whole pixels of the reduced image.

    Args:
        parameters: ``top``, ``left``, ``height`` and ``width`` in pixels of the original image.
        size: (height, width) of the original image.
        reduction: divisor of its sides.

    Returns:
        The parameters, which are multiples of ``reduction``.
    """
    if reduction == 1:
        return parameters
    aligned = dict(parameters)
    for start, length, total in (("top", "height", size[0]), ("left", "width", size[1])):
        available = total // reduction
        pixels = min(round(parameters[length] / reduction), available)
        first = min(round(parameters[start] / reduction), available - pixels)
        aligned[start], aligned[length] = first * reduction, pixels * reduction
    return aligned
