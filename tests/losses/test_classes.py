"""Losses of classes: values by hand and from torch, ignored pixels, gradients, weighted sums."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.builders import mask_example
from vision_lab.core.arguments import ArgumentError
from vision_lab.core.spec import IGNORE_INDEX
from vision_lab.losses.classes import CrossEntropy, Dice, Focal, WeightedSum

WEIGHTS = torch.tensor([0.2, 1.0, 3.0])


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_cross_entropy_is_torchs(weights: Tensor | None):
    logits, batch = mask_example()
    targets = batch.targets.long()
    expected = F.cross_entropy(logits, targets, weight=weights, ignore_index=IGNORE_INDEX)
    loss = CrossEntropy(weight=weights)(logits, targets)
    assert loss.item() == pytest.approx(expected.item())


def test_dice_equals_that_by_hand():
    """Class 2 is not in the ground truth and is left out, like ignored pixels."""
    targets = torch.tensor([[[0, 0, 1, IGNORE_INDEX]]])
    probabilities = torch.tensor([[0.8, 0.5, 0.1, 0.3], [0.1, 0.5, 0.7, 0.3], [0.1, 0.0, 0.2, 0.4]])
    loss = Dice()(probabilities.log()[None, :, None], targets)
    first = 2 * (0.8 + 0.5) / (0.8 + 0.5 + 0.1 + 2)
    second = 2 * 0.7 / (0.1 + 0.5 + 0.7 + 1)
    assert loss.item() == pytest.approx(1 - (first + second) / 2, abs=1e-5)


def test_focal_loss_equals_that_by_hand():
    targets = torch.tensor([[[0, 1, IGNORE_INDEX]]])
    probabilities = torch.tensor([[0.9, 0.5, 0.3], [0.05, 0.25, 0.3], [0.05, 0.25, 0.4]])
    logits = probabilities.log()[None, :, None]
    expected = -(0.1**2 * np.log(0.9) + 0.75**2 * np.log(0.25)) / 2
    assert Focal(gamma=2.0)(logits, targets).item() == pytest.approx(expected, abs=1e-5)
    plain = -(np.log(0.9) + np.log(0.25)) / 2
    assert Focal(gamma=0.0)(logits, targets).item() == pytest.approx(plain, abs=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_the_focal_loss_has_a_finite_gradient_at_certainty(gamma: float):
    logits = torch.tensor([[40.0, 0.0, 0.0]])[:, :, None, None].repeat(1, 1, 2, 2)
    logits.requires_grad_()
    Focal(gamma=gamma)(logits, torch.zeros(1, 2, 2, dtype=torch.int64)).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize(
    "loss",
    [
        CrossEntropy(),
        CrossEntropy(weight=WEIGHTS),
        CrossEntropy(label_smoothing=0.1),
        Dice(),
        Focal(),
        Focal(weight=WEIGHTS),
    ],
    ids=["plain", "weighted", "smoothed", "dice", "focal", "weighted_focal"],
)
def test_a_fully_ignored_mask_has_no_gradient(loss: Callable[[Tensor, Tensor], Tensor]):
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    value = loss(logits, torch.full((1, 4, 4), IGNORE_INDEX))
    value.backward()
    assert value.item() == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


def test_labels_of_images_are_never_ignored():
    """There may be more than 255 classes."""
    logits, targets = torch.randn(3, 300), torch.tensor([1, IGNORE_INDEX, 299])
    expected = F.cross_entropy(logits, targets)
    assert torch.equal(CrossEntropy()(logits, targets), expected)
    assert Focal(gamma=0.0)(logits, targets).item() == pytest.approx(expected.item())


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_smoothed_cross_entropy_is_torchs(weights: Tensor | None):
    logits, batch = mask_example()
    targets = batch.targets.long()
    torchs = nn.CrossEntropyLoss(weight=weights, ignore_index=IGNORE_INDEX, label_smoothing=0.1)
    loss = CrossEntropy(weight=weights, label_smoothing=0.1)(logits, targets)
    assert loss.item() == pytest.approx(torchs(logits, targets).item())


def test_a_weighted_sum_returns_its_terms():
    logits, batch = mask_example()
    targets = batch.targets.long()
    losses = {"cross_entropy": CrossEntropy(), "dice": Dice(), "focal": Focal()}
    loss = WeightedSum(losses, {"dice": 2.0, "focal": 0.0})
    terms = loss(logits, targets)
    assert list(terms) == ["cross_entropy", "dice"]
    assert terms["dice"].item() == pytest.approx(2 * Dice()(logits, targets).item())
    loss.weight = WEIGHTS
    assert torch.equal(losses["cross_entropy"].weight, WEIGHTS)
    assert torch.equal(losses["focal"].weight, WEIGHTS)
    assert torch.equal(loss.weight, WEIGHTS)
    assert not hasattr(WeightedSum({"dice": Dice()}, {}), "weight")


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"lovasz": 1.0}, "weights of dice: there is no loss lovasz"),
        ({"dice": 0.0}, "a number above 0 for at least one"),
    ],
)
def test_unusable_weights_of_losses_are_refused(weights: dict[str, float], message: str):
    with pytest.raises(ArgumentError, match=message):
        WeightedSum({"dice": Dice()}, weights)
