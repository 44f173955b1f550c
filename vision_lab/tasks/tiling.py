"""How a large picture is cut into tiles that overlap, and which part of each is kept."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from math import ceil
from typing import NamedTuple

Window = tuple[slice, slice]
"""Rows and columns."""


TILE_ALIGNMENT = 32
"""Tiles begin at multiples of this many pixels where they are large enough, but for the last: networks step by so
much at most, so that a tile's maps lie on those of the whole picture."""


class TilePart(NamedTuple):
    """The part of a tile that is kept.

    Attributes:
        outer: its rows and columns in the picture.
        inner: in the tile.
    """

    in_image: Window
    in_tile: Window


def tiles(
    picture: Sequence[int], size: Sequence[int], overlap: float
) -> Iterator[tuple[Window, TilePart]]:
    """All tiles; their parts that are kept cover the picture once, and are cut in the middle of overlaps.

    Args:
        picture: (height, width) in pixels, not smaller than a tile.
        size: of a tile.
        overlap: the part of a side that a tile shares with the next at least.
    """
    rows, columns = (
        _cuts(length, side, overlap) for length, side in zip(picture, size, strict=True)
    )
    for row in rows:
        for column in columns:
            (top, inner_rows, outer_rows), (left, inner_columns, outer_columns) = row, column
            window = (slice(top, top + size[0]), slice(left, left + size[1]))
            yield window, TilePart((outer_rows, outer_columns), (inner_rows, inner_columns))


def _cuts(length: int, side: int, overlap: float) -> list[tuple[int, slice, slice]]:
    """(begin of a tile, what is kept of it, where that lies) along one axis."""
    stride = int(side * (1 - overlap))
    stride = max(1, stride - stride % TILE_ALIGNMENT if stride >= TILE_ALIGNMENT else stride)
    begins = [
        min(place * stride, length - side) for place in range(ceil((length - side) / stride) + 1)
    ]
    cuts = [0, *((one + side + other) // 2 for one, other in itertools.pairwise(begins)), length]
    return [
        (begin, slice(first - begin, last - begin), slice(first, last))
        for begin, first, last in zip(begins, cuts, cuts[1:], strict=False)
    ]
