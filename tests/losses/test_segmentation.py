"""Losses of segmentation: values by hand and from torch, ignored pixels, gradients."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.builders import mask_example
from vision_lab.core.spec import IGNORE_INDEX
from vision_lab.losses.segmentation import cross_entropy, dice, focal

WEIGHTS = torch.tensor([0.2, 1.0, 3.0])


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_cross_entropy_is_torchs(weights: Tensor | None):
    logits, batch = mask_example()
    targets = batch.targets.long()
    expected = F.cross_entropy(logits, targets, weight=weights, ignore_index=IGNORE_INDEX)
    loss = cross_entropy(logits, targets, weights=weights)
    assert loss.item() == pytest.approx(expected.item())


def test_dice_equals_that_by_hand():
    """Class 2 is not in the ground truth and is left out, like ignored pixels."""
    targets = torch.tensor([[[0, 0, 1, IGNORE_INDEX]]])
    probabilities = torch.tensor([[0.8, 0.5, 0.1, 0.3], [0.1, 0.5, 0.7, 0.3], [0.1, 0.0, 0.2, 0.4]])
    loss = dice(probabilities.log()[None, :, None], targets)
    first = 2 * (0.8 + 0.5) / (0.8 + 0.5 + 0.1 + 2)
    second = 2 * 0.7 / (0.1 + 0.5 + 0.7 + 1)
    assert loss.item() == pytest.approx(1 - (first + second) / 2, abs=1e-5)


def test_focal_loss_equals_that_by_hand():
    targets = torch.tensor([[[0, 1, IGNORE_INDEX]]])
    probabilities = torch.tensor([[0.9, 0.5, 0.3], [0.05, 0.25, 0.3], [0.05, 0.25, 0.4]])
    logits = probabilities.log()[None, :, None]
    expected = -(0.1**2 * np.log(0.9) + 0.75**2 * np.log(0.25)) / 2
    assert focal(logits, targets, gamma=2.0).item() == pytest.approx(expected, abs=1e-5)
    plain = -(np.log(0.9) + np.log(0.25)) / 2
    assert focal(logits, targets, gamma=0.0).item() == pytest.approx(plain, abs=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_the_focal_loss_has_a_finite_gradient_at_certainty(gamma: float):
    logits = torch.tensor([[40.0, 0.0, 0.0]])[:, :, None, None].repeat(1, 1, 2, 2)
    logits.requires_grad_()
    focal(logits, torch.zeros(1, 2, 2, dtype=torch.int64), gamma=gamma).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize(
    "loss",
    [
        cross_entropy,
        partial(cross_entropy, weights=WEIGHTS),
        dice,
        partial(focal, gamma=2.0),
        partial(focal, gamma=2.0, weights=WEIGHTS),
    ],
    ids=["cross_entropy", "weighted_cross_entropy", "dice", "focal", "weighted_focal"],
)
def test_a_fully_ignored_mask_has_no_gradient(loss: Callable[[Tensor, Tensor], Tensor]):
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    value = loss(logits, torch.full((1, 4, 4), IGNORE_INDEX))
    value.backward()
    assert value.item() == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()
