"""Distance transforms of sampled functions, by which parts are placed.

Felzenszwalb, Huttenlocher: Distance Transforms of Sampled Functions, 2012.
https://doi.org/10.4086/toc.2012.v008a019

As in the paper, a transform of two dimensions is one of each dimension after the other. Each of
them compares all pairs of positions at once, since the maps of parts have tens of cells: the lower
envelope of parabolas, which takes linear time, would be a loop over them in Python.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class PartPlacements(NamedTuple):
    """The best placement of each part for each anchor.

    Attributes:
        scores: (P, R, C), the score of the part less its deformation cost.
        rows: (P, R, C) int64 row of the part.
        columns: (P, R, C) int64 column of the part.
    """

    scores: Tensor
    rows: Tensor
    columns: Tensor


def place_parts(
    scores: Tensor, deformation: Tensor, anchor_rows: Tensor, anchor_columns: Tensor
) -> PartPlacements:
    """Find the best placement of each part for each anchor.

    Maximizes ``scores[y, x] - (a dx + b dy + c dx^2 + d dy^2)`` over all positions, where (dx, dy)
    is the displacement of the part from its anchor. A part takes ``rows * C * columns`` floats.

    Args:
        scores: (P, rows, columns) score of each part at each position.
        deformation: (P, 4) a, b, c and d of each part.
        anchor_rows: (P, R) rows of the anchors of each part.
        anchor_columns: (P, C) columns of the anchors of each part.
    """
    placed = []
    for part, costs in enumerate(deformation.tolist()):
        a, b, c, d = costs
        best, columns = _transform(scores[part], anchor_columns[part], linear=a, quadratic=c)
        best, rows = _transform(best.T, anchor_rows[part], linear=b, quadratic=d)
        placed.append(PartPlacements(best.T, rows.T, columns.gather(0, rows.T)))
    return PartPlacements(*(torch.stack(column) for column in zip(*placed, strict=True)))


def _transform(
    scores: Tensor, anchors: Tensor, *, linear: float, quadratic: float
) -> tuple[Tensor, Tensor]:
    """Transform each row of a map.

    Args:
        scores: (rows, n).
        anchors: (A,) positions in a row.
        linear: cost of a displacement.
        quadratic: cost of its square.

    Returns:
        The best value for each anchor, (rows, A), and the position that it comes from.
    """
    positions = torch.arange(scores.shape[1])
    displacement = (positions - anchors[:, None]).to(scores.dtype)  # from anchor to part
    costs = linear * displacement + quadratic * displacement.square()
    best = (scores[:, None, :] - costs).max(dim=2)
    return best.values, best.indices
