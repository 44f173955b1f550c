"""Features from integral images."""

import pytest
import torch

from vision_lab.models.classic.haar_features import (
    enumerate_features,
    haar_features,
    has_contrast,
    integral_images,
    rectangle_sums,
)


def make_windows(height: int = 12, width: int = 15) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)


def test_rectangle_sums_are_those_of_the_pixels():
    windows = make_windows()
    rectangles = torch.tensor([[0, 0, 15, 12], [3, 2, 4, 5], [14, 11, 1, 1], [5, 5, 0, 3]])
    sums = rectangle_sums(integral_images(windows), rectangles)
    for column, (x, y, width, height) in enumerate(rectangles.tolist()):
        expected = windows[:, y : y + height, x : x + width].double().sum(dim=(1, 2))
        assert (sums[:, column] - expected).abs().max() < 1e-6


def test_features_are_those_of_an_exhaustive_computation():
    windows = make_windows()
    features = enumerate_features(12, 15, step=3)
    values = haar_features(windows, features)
    for image, row in zip(windows.double(), values, strict=True):
        inner = image[1:-1, 1:-1]
        contrast = inner.std(correction=0) * inner.numel()
        for feature, value in zip(features.tolist(), row.tolist(), strict=True):
            expected = 0.0
            for x, y, width, height, weight in feature:
                x, y, width, height = (int(number) for number in (x, y, width, height))
                expected += weight * float(image[y : y + height, x : x + width].sum())
            assert value == pytest.approx(expected / float(contrast), abs=1e-6)


def test_features_of_equal_pixels_and_of_windows_without_contrast_are_zero():
    features = enumerate_features(24, 24, step=3)
    assert len(features) > 2000
    weights = features[:, :, 2] * features[:, :, 3] * features[:, :, 4]
    assert weights.sum(dim=1).abs().max() == 0
    assert haar_features(torch.full((1, 24, 24), 7, dtype=torch.uint8), features).abs().max() == 0
    x_end, y_end = features[:, :, 0] + features[:, :, 2], features[:, :, 1] + features[:, :, 3]
    assert max(x_end.max(), y_end.max()) <= 24


def test_windows_that_opencv_skips_have_no_contrast():
    pattern = torch.tensor([1, -1]).repeat(12, 6)
    for deviation, expected in ((0, False), (9, False), (12, True)):
        window = (100 + deviation * pattern).to(torch.uint8)[None]
        assert has_contrast(window).tolist() == [expected]


def test_a_step_as_large_as_the_window_leaves_no_features():
    assert enumerate_features(8, 8, step=8).shape == (0, 3, 5)
