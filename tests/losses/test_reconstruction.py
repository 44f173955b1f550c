"""Losses of reconstructed images, against their definitions."""

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Normal
from torch.distributions import kl_divergence as divergence_of

from vision_lab.losses.reconstruction import (
    MeanSquaredError,
    PixelCrossEntropy,
    StructuralDissimilarity,
    kl_divergence,
    ssim_window,
)

LOSSES = [MeanSquaredError(), PixelCrossEntropy(), StructuralDissimilarity()]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize("size", [(4, 6), (16, 32)])
def test_gradients_lead_to_the_image(loss, size: tuple[int, int]):
    torch.manual_seed(0)
    images = torch.rand(2, 3, *size) * 0.8 + 0.1
    logits = torch.zeros_like(images).requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.1)
    first = loss(logits, images).item()
    for _ in range(200):
        optimizer.zero_grad()
        loss(logits, images).backward()
        optimizer.step()
    assert loss(logits, images).item() < first
    assert (logits.sigmoid() - images).abs().mean() < 0.15


def test_values():
    logits, images = torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), 0.25)
    assert MeanSquaredError()(logits, images).item() == pytest.approx(0.0625)
    assert PixelCrossEntropy()(logits, images).item() == pytest.approx(
        torch.tensor(2.0).log().item()
    )
    same = torch.rand(2, 3, 16, 16) * 0.9 + 0.05
    assert StructuralDissimilarity()(same.logit(), same).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(
    ("size", "side"), [((3, 9), 3), ((4, 4), 3), ((11, 12), 11), ((96, 96), 11), ((10, 40), 9)]
)
def test_windows_are_odd_and_not_larger_than_images(size: tuple[int, int], side: int):
    assert ssim_window(size) == side


def test_the_divergence_is_that_of_normal_distributions():
    mean, log_variance = torch.randn(5, 3), torch.randn(5, 3)
    expected = divergence_of(Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0))
    found = kl_divergence(mean, log_variance)
    assert found.item() == pytest.approx(expected.sum(dim=1).mean().item(), rel=1e-5)
    assert kl_divergence(torch.zeros(2, 3), torch.zeros(2, 3)).item() == 0
    assert F.relu(found) == found
