"""Differences of sums over rectangles, computed from integral images.

Viola, Jones: Rapid Object Detection using a Boosted Cascade of Simple Features, 2001.
https://doi.org/10.1109/CVPR.2001.990517
"""

from __future__ import annotations

import torch
from torch import Tensor

MAX_RECTANGLES = 3
"""Maximum number of rectangles of a feature; features of fewer end with empty ones."""

SHAPES: tuple[tuple[int, int, tuple[int, ...]], ...] = (
    (1, 2, (1, -1)),
    (2, 1, (1, -1)),
    (1, 3, (1, -1, 1)),
    (3, 1, (1, -1, 1)),
    (2, 2, (1, -1, -1, 1)),
)
"""Rows, columns and signs of the cells of each shape of feature: edges, lines and a checker."""

MIN_DEVIATION = 10
"""Standard deviation of gray levels up to which OpenCV skips a window."""


def enumerate_features(height: int, width: int, *, step: int) -> Tensor:
    """Return the features of a window, at positions and of sizes that are multiples of a step.

    Args:
        height: height of the window in pixels.
        width: width of the window in pixels.
        step: the step in pixels.

    Returns:
        (F, ``MAX_RECTANGLES``, 5), x, y, width, height and weight of each rectangle. As in OpenCV,
        the whole has the weight 1, and parts of it outweigh that.
    """
    features = []
    for rows, columns, signs in SHAPES:
        for cell_height in range(step, height // rows + 1, step):
            for cell_width in range(step, width // columns + 1, step):
                size = (rows, columns, cell_height, cell_width)
                for y in range(0, height - rows * cell_height + 1, step):
                    for x in range(0, width - columns * cell_width + 1, step):
                        features.append(_feature(x, y, size, signs))
    return torch.tensor(features, dtype=torch.float32).view(-1, MAX_RECTANGLES, 5)


def _feature(
    x: int, y: int, size: tuple[int, int, int, int], signs: tuple[int, ...]
) -> list[tuple[int, int, int, int, int]]:
    """Return a feature as its whole, and the parts in which the whole has the wrong weight."""
    rows, columns, cell_height, cell_width = size
    num_negative = signs.count(-1)
    # A weight with which equal pixels add up to zero: two of three cells weigh as much as the third
    weight = -(len(signs) // num_negative)
    rectangles = [(x, y, columns * cell_width, rows * cell_height, 1)]
    for index, sign in enumerate(signs):
        if sign < 0:
            row, column = divmod(index, columns)
            corner = (x + column * cell_width, y + row * cell_height)
            rectangles.append((*corner, cell_width, cell_height, weight))
    empty = (0, 0, 0, 0, 0)
    return rectangles + [empty] * (MAX_RECTANGLES - len(rectangles))


def integral_images(images: Tensor) -> Tensor:
    """Compute the sums of all pixels above and to the left of each position.

    Args:
        images: (n, H, W).

    Returns:
        (n, H + 1, W + 1) int64.
    """
    sums = images.long().cumsum(dim=1).cumsum(dim=2)
    return torch.nn.functional.pad(sums, (1, 0, 1, 0))


def rectangle_sums(integrals: Tensor, rectangles: Tensor) -> Tensor:
    """Compute the sums of pixels in rectangles.

    Args:
        integrals: (n, H + 1, W + 1) from ``integral_images``.
        rectangles: (R, 4) x, y, width and height.

    Returns:
        (n, R).
    """
    x, y, width, height = rectangles.long().unbind(dim=1)
    stride = integrals.shape[2]
    flat = integrals.flatten(1)
    top, bottom = y * stride, (y + height) * stride
    right = x + width
    return flat[:, bottom + right] - flat[:, bottom + x] - flat[:, top + right] + flat[:, top + x]


def haar_features(windows: Tensor, features: Tensor) -> Tensor:
    """Compute features, divided by the contrast of their windows as in OpenCV.

    Args:
        windows: (n, H, W) uint8.
        features: (F, ``MAX_RECTANGLES``, 5), as of ``enumerate_features``.

    Returns:
        (n, F), zeros for windows without contrast.
    """
    integrals = integral_images(windows)
    values = torch.zeros(len(windows), len(features), dtype=torch.int64)
    for index in range(features.shape[1]):
        weights = features[:, index, 4].long()
        values += weights * rectangle_sums(integrals, features[:, index, :4])
    return values.double().div_(_contrast(windows)[:, None]).float()


def has_contrast(windows: Tensor) -> Tensor:
    """Return which windows OpenCV's search does not skip, (n,) bool."""
    inner_area = (windows.shape[1] - 2) * (windows.shape[2] - 2)
    contrast = _contrast(windows)
    return contrast.isfinite() & (contrast > MIN_DEVIATION * inner_area)


def _contrast(windows: Tensor) -> Tensor:
    """Return the standard deviation of windows times their area, (n,), without their border."""
    inner = windows[:, 1:-1, 1:-1].double()
    area = inner.shape[1] * inner.shape[2]
    squares = area * inner.square().sum(dim=(1, 2)) - inner.sum(dim=(1, 2)).square()
    return torch.where(squares > 0, squares.sqrt(), torch.inf)
