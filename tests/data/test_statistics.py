"""Class frequencies of labels and masks, by hand."""

import pytest
import torch

from vision_lab.data.statistics import (
    count_pixels,
    describe_single_class,
    inverse_frequencies,
    median_frequencies,
)


def test_weights_of_labels_have_mean_one_over_the_images():
    labels = [0, 0, 0, 1]
    weights = inverse_frequencies(labels, 3)
    assert weights.tolist() == pytest.approx([4 / 6, 2.0, 2.0])
    assert weights[labels].mean().item() == pytest.approx(1)


def test_weights_of_pixels_are_relative_to_the_median():
    """Class 0 has 3/4 of the pixels of its images, class 1 half of its only image, class 2 none."""
    counts = torch.tensor([[50.0, 50, 0], [100, 0, 0]])
    median = (0.75 + 0.5) / 2
    expected = [median / 0.75, median / 0.5, 0.0]
    assert median_frequencies(counts).tolist() == pytest.approx(expected)


def test_pixels_are_counted_with_those_that_are_ignored():
    lookup = torch.full((256,), 255, dtype=torch.int64)
    lookup[[0, 7]] = torch.tensor([0, 1])
    masks = [(None, torch.tensor([[0, 0, 7, 9]])), (None, torch.tensor([[7, 7, 7, 7]]))]
    counts = count_pixels(masks, lookup, num_classes=2, max_samples=10)
    assert counts.tolist() == [[2, 1, 1], [0, 4, 0]]
    assert len(count_pixels(masks, lookup, num_classes=2, max_samples=1)) == 1


def test_masks_of_a_single_class_are_described():
    text = describe_single_class(torch.tensor([6.0, 0, 2]), ["sky", "sea"])
    assert text == "no class but sky, and 25 % of their pixels are ignored"
    assert describe_single_class(torch.tensor([6.0, 1, 2]), ["sky", "sea"]) is None
    assert describe_single_class(torch.tensor([6.0, 0]), ["sky"]) is None
