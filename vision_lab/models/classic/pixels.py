"""Images as OpenCV takes them."""

from __future__ import annotations

from math import ceil

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vision_lab.core.extras import import_opencv

Pixels = NDArray[np.uint8]
"""(H, W) or (H, W, 3) uint8."""


def to_pixels(image: Tensor) -> Pixels:
    """Convert an image (C, H, W) uint8 for OpenCV; all but one or three channels are averaged."""
    if image.shape[0] == 3:
        return np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    if image.shape[0] == 1:
        return np.ascontiguousarray(image[0].numpy())
    return np.ascontiguousarray(image.float().mean(dim=0).round().to(torch.uint8).numpy())


def resize(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Resize an image.

    Args:
        pixels: the image.
        size: (height, width) in pixels.
    """
    cv2 = import_opencv("this model")
    shrinks = size[0] < pixels.shape[0] or size[1] < pixels.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, (size[1], size[0]), interpolation=method))


def pad(pixels: Pixels, amount: int) -> Pixels:
    """Repeat the border of an image.

    Args:
        pixels: the image.
        amount: pixels to add on each side.
    """
    widths = [(amount, amount), (amount, amount), (0, 0)]
    return np.pad(pixels, widths[: pixels.ndim], mode="edge")


def crop_window(pixels: Pixels, box: Tensor, size: tuple[int, int]) -> Pixels:
    """Crop a box and resize it; beyond the image, its border is repeated.

    Where the box is larger than the result, areas are averaged, as in ``resize``.

    Args:
        pixels: the image.
        box: (4,), (x1, y1, x2, y2) in pixels.
        size: (height, width) of the result in pixels.
    """
    cv2 = import_opencv("this model")
    x1, y1, x2, y2 = box.tolist()
    height, width = size
    # Samples for each pixel of the result, not further apart than the pixels of the image.
    rows, columns = max(1, ceil((y2 - y1) / height)), max(1, ceil((x2 - x1) / width))
    x_scale, y_scale = (x2 - x1) / (width * columns), (y2 - y1) / (height * rows)
    # From the center of each sample to that of a pixel of the image.
    matrix = np.array(
        [[x_scale, 0, x1 + 0.5 * x_scale - 0.5], [0, y_scale, y1 + 0.5 * y_scale - 0.5]]
    )
    samples = cv2.warpAffine(
        pixels,
        matrix,
        (width * columns, height * rows),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(cv2.resize(samples, (width, height), interpolation=cv2.INTER_AREA))
