"""HOG features, their pyramid, and the linear support vector machine on them."""

import cv2
import numpy as np
import pytest
import torch

from vision_lab.models.classic.hog import (
    HOG_CHANNELS,
    compute_hog,
    crop_window,
    hog_pyramid,
    to_pixels,
)
from vision_lab.models.classic.linear_svm import fit_linear_svm


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)


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


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_of_any_channels(channels: int):
    image = torch.randint(0, 255, (channels, 32, 32), dtype=torch.uint8)
    assert compute_hog(to_pixels(image), cell_size=8).shape == (HOG_CHANNELS, 3, 3)


def test_levels_know_where_their_cells_are():
    levels = hog_pyramid(noise(64, 96), cell_size=8, scales=[1.0, 0.5], padding_cells=2)
    assert [tuple(level.blocks.shape[1:]) for level in levels] == [(11, 15), (7, 9)]
    assert levels[0].to_image(torch.tensor([2.0, 10.0])).tolist() == [0.0, 64.0]
    assert levels[1].to_image(torch.tensor([2.0, 6.0])).tolist() == [0.0, 64.0]


def test_windows_are_cut_out_and_resized():
    pixels = noise(40, 60)
    crop = crop_window(pixels, torch.tensor([10.0, 5.0, 30.0, 25.0]), (20, 20))
    assert np.array_equal(crop, pixels[5:25, 10:30])
    outside = crop_window(pixels, torch.tensor([-10.0, 0.0, 10.0, 20.0]), (20, 20))
    assert np.array_equal(outside[:, 10:], pixels[:20, :10])
    assert (outside[:, :10] == pixels[:20, :1]).all()
    smaller = crop_window(pixels, torch.tensor([0.0, 0.0, 60.0, 40.0]), (20, 30))
    assert smaller.shape == (20, 30, 3)


def test_the_support_vector_machine_has_the_largest_margin():
    """Of four points on a line, the inner two decide."""
    features = torch.tensor([[-3.0], [-1.0], [1.0], [3.0]])
    is_positive = torch.tensor([False, False, True, True])
    weight, bias = fit_linear_svm(features, is_positive, penalty=1e5)
    assert weight.item() == pytest.approx(1, abs=1e-2)
    assert bias.item() == pytest.approx(0, abs=1e-2)


def test_the_numbers_of_examples_of_each_kind_do_not_matter():
    generator = torch.Generator().manual_seed(0)
    positives = torch.randn(50, 5, generator=generator) + 1
    negatives = torch.randn(50, 5, generator=generator) - 1
    is_positive = torch.arange(100) < 50
    once = fit_linear_svm(torch.cat([positives, negatives]), is_positive, penalty=10.0)
    features = torch.cat([positives, negatives.repeat(4, 1)])
    often = fit_linear_svm(features, torch.arange(250) < 50, penalty=10.0)
    torch.testing.assert_close(once[0], often[0], atol=1e-2, rtol=0)
    scores = features @ once[0] + once[1]
    assert (scores[:50] > 0).float().mean() > 0.9
