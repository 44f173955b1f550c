"""Division of a large image into overlapping tiles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import ceil
from typing import NamedTuple

Window = tuple[slice, slice]
"""Rows and columns."""

TILE_ALIGNMENT = 32
"""Tiles start at multiples of this, except the last one: it is the largest stride of the networks,
whose feature maps of tiles are then aligned with those of the whole image."""


class TilePart(NamedTuple):
    """The part of a tile whose prediction is used.

    Attributes:
        in_image: its rows and columns in the image.
        in_tile: its rows and columns in the tile.
    """

    in_image: Window
    in_tile: Window


class _Interval(NamedTuple):
    """A tile along one axis."""

    start: int
    in_image: slice
    in_tile: slice


def tiles(
    image_size: Sequence[int], tile_size: Sequence[int], overlap: float
) -> Iterator[tuple[Window, TilePart]]:
    """Divide an image into tiles.

    The parts that are used cover the image exactly once; their borders are in the middle of the
    overlaps.

    Args:
        image_size: (height, width) in pixels, not smaller than a tile.
        tile_size: (height, width) in pixels.
        overlap: minimum overlap of adjacent tiles, as a fraction of their side.

    Yields:
        The rows and columns of each tile, and the part of it that is used.
    """
    height, width = tile_size
    for row in _divide(image_size[0], height, overlap):
        for column in _divide(image_size[1], width, overlap):
            window = (
                slice(row.start, row.start + height),
                slice(column.start, column.start + width),
            )
            in_image = (row.in_image, column.in_image)
            yield window, TilePart(in_image, (row.in_tile, column.in_tile))


def _divide(
    length: int,
    side: int,
    overlap: float,
) -> list[_Interval]:
    """Divide one axis."""
    stride = int(side * (1 - overlap))
    if stride >= TILE_ALIGNMENT:
        stride -= stride % TILE_ALIGNMENT
    stride = max(1, stride)
    count = ceil((length - side) / stride) + 1
    starts = [min(index * stride, length - side) for index in range(count)]
    middles = [(first + side + second) // 2 for first, second in pairwise(starts)]
    borders = [0, *middles, length]
    intervals = []
    for start, (first, last) in zip(starts, pairwise(borders), strict=True):
        in_tile = slice(first - start, last - start)
        intervals.append(_Interval(start, slice(first, last), in_tile))
    return intervals
