"""Images given from Python: paths, PIL images, arrays and tensors, one or many."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vision_lab.core.errors import DataError
from vision_lab.core.files import expand_home
from vision_lab.modes.predict import find_images


@dataclass(frozen=True)
class GivenImages:
    """A map-style dataset of (image, None).

    Attributes:
        images: paths, PIL images, arrays or tensors.
    """

    images: Sequence[Any]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, None]:
        return self.images[index], None


def collect_images(images: Any) -> tuple[GivenImages, bool]:
    """Convert what a caller gives as images to a dataset.

    Args:
        images: a path, a PIL image, an array (H, W) or (H, W, C) or a tensor (C, H, W), each a
            single image; or a folder, a glob, a sequence of images, an array (N, H, W, C) or a
            tensor (N, C, H, W). Integers have 8 or 16 bits; floats are in [0, 1].

    Returns:
        The dataset, and whether a single image was given.

    Raises:
        DataError: if there are no images, or they are of another type.
    """
    if isinstance(images, str | os.PathLike):
        path = expand_home(images)
        if path.is_file():
            return GivenImages([path]), True
        return GivenImages(find_images(str(images), prefix="")), False
    if isinstance(images, Image.Image):
        return GivenImages([images]), True
    if isinstance(images, np.ndarray | Tensor):
        is_single = images.ndim < 4
        given = [images] if is_single else list(images)
        return _require_some([_to_integers(image) for image in given]), is_single
    if not isinstance(images, Iterable):
        raise DataError(
            f"images must be paths, PIL images, arrays or tensors, not {type(images).__name__}"
        )
    collected: list[Any] = []
    for image in images:
        dataset, is_single = collect_images(image)
        if not is_single:
            raise DataError("a sequence of images must contain single images, not batches")
        collected += dataset.images
    return _require_some(collected), False


def _require_some(images: Sequence[Any]) -> GivenImages:
    if not images:
        raise DataError("there are no images to predict")
    return GivenImages(images)


def _to_integers(image: np.ndarray[Any, Any] | Tensor) -> np.ndarray[Any, Any] | Tensor:
    """Convert floats in [0, 1] to 8 bits.

    Raises:
        DataError: if there are other values.
    """
    if isinstance(image, np.ndarray):
        image = np.ascontiguousarray(image)  # torch has no negative strides
    values = image if isinstance(image, Tensor) else torch.from_numpy(image)
    if not values.is_floating_point():
        return image
    if not bool(((values >= 0) & (values <= 1)).all()):
        raise DataError(
            f"images of floats must be in [0, 1], but these are from {values.min():.3g} to "
            f"{values.max():.3g}: divide by 255, and do not normalize (the task does)"
        )
    integers = (values.float() * 255).round().to(torch.uint8)
    return integers if isinstance(image, Tensor) else integers.numpy()
