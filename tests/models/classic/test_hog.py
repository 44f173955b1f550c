"""HOG features, and their pyramid."""

import cv2
import numpy as np
import pytest
import torch

from tests.models.classic.frames import noise
from vision_lab.models.classic.hog import HOG_CHANNELS, compute_hog, hog_pyramid


def test_blocks_are_at_their_positions():
    """Those of the whole image are those of a window that is cut out of it, except at its border."""
    pixels = cv2.GaussianBlur(noise(64, 48), (0, 0), 3)
    blocks = compute_hog(pixels, cell_size=8)
    assert blocks.shape == (HOG_CHANNELS, 7, 5)
    part = compute_hog(np.ascontiguousarray(pixels[16:48, 8:40]), cell_size=8)
    assert part.shape == (HOG_CHANNELS, 3, 3)
    torch.testing.assert_close(part[:, 1, 1], blocks[:, 3, 2], atol=0.05, rtol=0)
    assert not torch.allclose(part[:, 1, 1], blocks[:, 2, 3], atol=0.05, rtol=0)


@pytest.mark.parametrize("size", [(5, 40), (40, 5), (8, 8), (16, 16)])
def test_small_images_have_few_blocks_or_none(size: tuple[int, int]):
    blocks = compute_hog(noise(*size), cell_size=8)
    assert blocks.shape == (HOG_CHANNELS, max(size[0] // 8 - 1, 0), max(size[1] // 8 - 1, 0))


def test_levels_know_where_their_cells_are():
    levels = hog_pyramid(noise(64, 96), cell_size=8, scales=[1.0, 0.5], padding_cells=2)
    assert [tuple(level.blocks.shape[1:]) for level in levels] == [(11, 15), (7, 9)]
    boxes = torch.tensor([[2.0, 2.0, 10.0, 10.0], [2.0, 6.0, 6.0, 6.0]])
    assert levels[0].to_image(boxes)[0].tolist() == [0.0, 0.0, 64.0, 64.0]
    assert levels[1].to_image(boxes)[1].tolist() == [0.0, 64.0, 64.0, 64.0]


def test_sizes_of_levels_are_whole_pixels_and_scales_are_exact():
    (level,) = hog_pyramid(noise(31, 47), cell_size=4, scales=[0.6], padding_cells=0)
    assert level.scale.tolist() == pytest.approx([28 / 47, 19 / 31] * 2)
    whole = torch.tensor([[0.0, 0.0, 28 / 4, 19 / 4]])
    assert level.to_image(whole)[0].tolist() == pytest.approx([0.0, 0.0, 47.0, 31.0])
