"""Histograms of oriented gradients, and pyramids of them.

Dalal, Triggs: Histograms of Oriented Gradients for Human Detection, 2005.
https://doi.org/10.1109/CVPR.2005.177
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vision_lab.core.extras import import_opencv
from vision_lab.models.classic.pixels import Pixels, pad, resize

BLOCK_CELLS = 2
"""Height and width of a block in cells, within which histograms are normalized."""

NUM_BINS = 9
"""Number of orientations from 0 to 180 degrees."""

HOG_CHANNELS = NUM_BINS * BLOCK_CELLS**2
"""Numbers that describe a block."""


class Level(NamedTuple):
    """A level of a pyramid.

    Attributes:
        blocks: (``HOG_CHANNELS``, rows, columns), a block for each cell but the last.
        scale: (4,) pixels of the resized image per pixel of the image, of x, y, x and y: sizes are
            rounded, so that both directions differ.
        padding: pixels of the resized image that were added on each side.
        cell_size: side of a cell in pixels of the resized image.
    """

    blocks: Tensor
    scale: Tensor
    padding: int
    cell_size: int

    def to_image(self, boxes: Tensor) -> Tensor:
        """Convert boxes (n, 4) from cells to pixels of the image."""
        return (boxes * self.cell_size - self.padding) / self.scale


def compute_hog(pixels: Pixels, *, cell_size: int) -> Tensor:
    """Compute the normalized histograms of all blocks of an image.

    Args:
        pixels: an image, whose last rows and columns are left out if they fill no cell.
        cell_size: side of a cell in pixels.

    Returns:
        (``HOG_CHANNELS``, rows, columns), for each cell but the last in both directions the block
        that begins there; of no size if the image is smaller than a block.
    """
    cv2 = import_opencv("this model")
    rows, columns = pixels.shape[0] // cell_size, pixels.shape[1] // cell_size
    if rows < BLOCK_CELLS or columns < BLOCK_CELLS:
        return torch.zeros(HOG_CHANNELS, max(rows - 1, 0), max(columns - 1, 0))
    size = (columns * cell_size, rows * cell_size)
    block = (BLOCK_CELLS * cell_size, BLOCK_CELLS * cell_size)
    cell = (cell_size, cell_size)
    descriptor = cv2.HOGDescriptor(size, block, cell, cell, NUM_BINS)
    window = np.ascontiguousarray(pixels[: size[1], : size[0]])
    histograms = torch.from_numpy(descriptor.compute(window))
    by_column = histograms.view(columns - 1, rows - 1, HOG_CHANNELS)
    return by_column.permute(2, 1, 0).contiguous()


def hog_pyramid(
    pixels: Pixels,
    *,
    cell_size: int,
    scales: list[float],
    padding_cells: int,
) -> list[Level]:
    """Compute HOG at several scales of an image.

    Args:
        pixels: the image.
        cell_size: side of a cell in pixels of the resized image.
        scales: factors by which the image is resized.
        padding_cells: number of cells to add on each side, so that objects at the border are found.
    """
    levels = []
    padding = padding_cells * cell_size
    for scale in scales:
        height, width = pixels.shape[:2]
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        actual = torch.tensor([size[1] / width, size[0] / height]).repeat(2)
        padded = pad(resize(pixels, size), padding)
        levels.append(Level(compute_hog(padded, cell_size=cell_size), actual, padding, cell_size))
    return levels
