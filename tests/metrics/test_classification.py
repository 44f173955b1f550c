"""Curves from histograms of scores, against scikit-learn's definitions in torchmetrics."""

import pytest
import torch
from torchmetrics.functional.classification import multiclass_auroc, multiclass_average_precision

from vision_lab.metrics.classification import (
    NUM_BINS,
    ScoreHistogram,
    precision_recall_curve,
    roc_curve,
)


def test_areas_are_those_of_torchmetrics():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (300,), generator=generator)
    logits = torch.randn(300, 4, generator=generator)
    logits[torch.arange(300), labels] += 1
    bins = torch.softmax(logits, dim=1).mul(NUM_BINS).floor()
    probabilities = (bins + 0.5) / NUM_BINS  # centers of the intervals, so that nothing is rounded
    histogram = ScoreHistogram(4)
    for rows in torch.arange(300).split(64):
        histogram.update(probabilities[rows], labels[rows])
    counts = histogram.compute()
    assert counts.sum() == 300 * 4
    precisions = [precision_recall_curve(counts[:, label]).area for label in range(4)]
    areas = [roc_curve(counts[:, label]).area for label in range(4)]
    expected = multiclass_average_precision(probabilities, labels, 4, average=None)
    assert precisions == pytest.approx(expected.tolist(), abs=1e-5)
    expected = multiclass_auroc(probabilities, labels, 4, average=None)
    assert areas == pytest.approx(expected.tolist(), abs=1e-5)


def test_classes_without_samples_have_no_curve():
    histogram = ScoreHistogram(2)
    histogram.update(torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
    counts = histogram.compute()
    assert precision_recall_curve(counts[:, 1]) is None
    assert roc_curve(counts[:, 0]) is None  # no sample of another class
    assert precision_recall_curve(counts[:, 0]).area == 1.0


def test_precision_begins_at_the_highest_score():
    histogram = ScoreHistogram(2)
    histogram.update(torch.tensor([[0.7, 0.3], [0.4, 0.6]]), torch.tensor([0, 1]))
    curve = precision_recall_curve(histogram.compute()[:, 0])
    assert (curve.x[0], curve.y[0]) == (1.0, 1.0)
