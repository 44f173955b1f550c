"""Segmentation metrics of a whole split, counted by hand."""

import pytest
import torch

from vision_lab.core.spec import IGNORE_INDEX
from vision_lab.metrics.segmentation import (
    Confusion,
    MacroF1,
    SegmentationMetrics,
    dice,
    intersection_over_union,
)

TRUTH = torch.tensor(
    [[[0, 0, 1], [1, 1, IGNORE_INDEX]], [[0, 0, 0], [0, 3, IGNORE_INDEX]]], dtype=torch.uint8
)
PREDICTIONS = torch.tensor([[[0, 1, 1], [1, 0, 3]], [[0, 0, 0], [0, 1, 1]]], dtype=torch.uint8)
"""Class 2 is neither in the ground truth nor predicted; class 3 is in the ground truth only."""


def test_weights_equal_those_by_hand():
    """Two batches of one image: IoU of class 0 is 5/7, of 1 2/5, of 3 0/1; class 2 is left out."""
    measure = SegmentationMetrics(4)
    for prediction, truth in zip(PREDICTIONS, TRUTH, strict=True):
        measure.update(prediction[None], truth[None])
    found = measure.compute()
    assert found["confusion"].tolist() == [[5, 1, 0, 0], [1, 2, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]]
    assert found["miou"].item() == pytest.approx((5 / 7 + 2 / 5 + 0) / 3)
    assert found["dice"].item() == pytest.approx((10 / 12 + 4 / 7 + 0) / 3)
    assert found["pixel_accuracy"].item() == pytest.approx(7 / 10)


def test_metrics_are_not_means_over_batches():
    """An image with few pixels of a class has little weight."""
    measure, single = SegmentationMetrics(4), []
    for prediction, truth in zip(PREDICTIONS.clamp(max=1), TRUTH.clamp(max=1), strict=True):
        measure.update(prediction[None], truth[None])
        alone = SegmentationMetrics(4)
        alone.update(prediction[None], truth[None])
        single.append(alone.compute()["miou"].item())
    assert measure.compute()["miou"].item() != pytest.approx(sum(single) / 2, abs=0.01)


def test_absent_classes_have_no_metrics():
    matrix = torch.tensor([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
    assert intersection_over_union(matrix)[2].isnan()
    assert intersection_over_union(matrix)[:2].tolist() == pytest.approx([3 / 4, 4 / 5])
    assert dice(matrix)[:2].tolist() == pytest.approx([6 / 7, 8 / 9])


def test_ignored_masks_have_a_loss_of_zero():
    measure = SegmentationMetrics(3)
    measure.update(
        torch.zeros(1, 2, 2, dtype=torch.uint8),
        torch.full((1, 2, 2), IGNORE_INDEX, dtype=torch.uint8),
    )
    assert {name: value.sum().item() for name, value in measure.compute().items()} == {
        "miou": 0,
        "dice": 0,
        "pixel_accuracy": 0,
        "confusion": 0,
    }


def test_probabilities_and_labels():
    many = Confusion(300)
    many.update(torch.eye(300)[[254, 255, 256]], torch.tensor([254, 255, 256]))
    assert many.compute().sum() == 3  # 255 is a class like any other where there are labels
    measure = Confusion(3)
    measure.update(torch.eye(3)[[0, 1, 1]], torch.tensor([0, 1, 2]))
    assert measure.compute().tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 0]]
    f1 = MacroF1(3)
    f1.update(torch.eye(3)[[0, 1, 1]], torch.tensor([0, 1, 2]))
    assert f1.compute().item() == pytest.approx((1 + 2 / 3 + 0) / 3)
