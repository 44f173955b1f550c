"""Placement of parts by distance transforms."""

import torch

from vision_lab.models.classic.distance_transform import place_parts


def test_placements_are_those_of_an_exhaustive_search():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(3, 7, 6, generator=generator, dtype=torch.float64)
    costs = torch.tensor(
        [[0.1, -0.2, 0.05, 0.3], [0.0, 0.0, 0.01, 0.01], [-0.3, 0.1, 1.0, 0.5]],
        dtype=torch.float64,
    )
    rows = torch.tensor([[0, 2, 4], [1, 3, 5], [2, 4, 6]])
    columns = torch.tensor([[0, 2], [3, 5], [1, 3]])
    placed = place_parts(scores, costs, rows, columns)
    assert placed.scores.shape == (3, 3, 2)
    for part in range(3):
        a, b, c, d = costs[part].tolist()
        for i, anchor_row in enumerate(rows[part].tolist()):
            for j, anchor_column in enumerate(columns[part].tolist()):
                found = {}
                for y in range(7):
                    for x in range(6):
                        dy, dx = y - anchor_row, x - anchor_column
                        cost = a * dx + b * dy + c * dx**2 + d * dy**2
                        found[y, x] = float(scores[part, y, x]) - cost
                best = max(found, key=lambda place: found[place])
                assert abs(float(placed.scores[part, i, j]) - found[best]) < 1e-6
                assert (int(placed.rows[part, i, j]), int(placed.columns[part, i, j])) == best
