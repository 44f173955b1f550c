"""Errors of reconstructed images, and the AUROC of anomalies."""

import pytest
import torch
from torchmetrics.functional.classification import binary_auroc

from vision_lab.metrics.reconstruction import AnomalyAUROC, anomaly_scores, error_maps


def test_errors_by_pixel_and_image():
    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    reconstructed = images.clone()
    reconstructed[1, :, 2, 3] = 255
    assert anomaly_scores(reconstructed, images).tolist() == [0.0, pytest.approx(1 / 16)]
    assert error_maps(reconstructed, images)[1].nonzero().tolist() == [[2, 3]]


def test_the_auroc_is_torchmetrics_with_ties_and_in_any_order():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 20, (200,), generator=generator) / 20
    are_anomalies = torch.rand(200, generator=generator) < scores
    metric, shuffled = AnomalyAUROC(), AnomalyAUROC()
    for rows in torch.arange(200).split(30):
        metric.update(scores[rows], are_anomalies[rows])
    order = torch.randperm(200, generator=generator)
    shuffled.update(scores[order], are_anomalies[order])
    assert metric.compute() == shuffled.compute()
    expected = binary_auroc(scores, are_anomalies.long()).item()
    assert metric.compute().item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("kind", [False, True])
def test_one_kind_of_images_has_none(kind: bool):
    metric = AnomalyAUROC()
    metric.update(torch.rand(3), torch.full((3,), kind))
    assert metric.compute().isnan()
