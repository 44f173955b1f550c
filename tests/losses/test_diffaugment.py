"""Differentiable augmentation: one per image, with gradients."""

import pytest
import torch

from vision_lab.losses.diffaugment import color, cutout, translation

AUGMENTATIONS = {"color": color, "translation": translation, "cutout": cutout}


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_each_augmentation_keeps_shapes_and_gradients(name: str):
    torch.manual_seed(0)
    images = torch.rand(6, 3, 16, 16, requires_grad=True)
    changed = AUGMENTATIONS[name](images)
    assert changed.shape == images.shape
    assert not torch.equal(changed, images)
    (gradients,) = torch.autograd.grad(changed.sum(), images)
    assert gradients.isfinite().all()
    assert (gradients != 0).flatten(1).any(dim=1).all()


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_each_image_has_its_own_augmentation(name: str):
    torch.manual_seed(0)
    same = torch.rand(1, 3, 16, 16).expand(8, -1, -1, -1)
    changed = AUGMENTATIONS[name](same)
    assert len({tuple(image.flatten().tolist()) for image in changed}) > 3


def test_color_augmentation_is_bounded():
    """An image of two gray levels: brightness by 0.5, contrast by half, saturation by two."""
    torch.manual_seed(0)
    gray = torch.tensor([-0.2, 0.2]).view(1, 1, 1, 2).expand(400, 3, 1, 2)
    changed = color(gray)
    means, contrasts = (
        changed.mean(dim=(1, 2, 3)),
        (changed[:, 0, 0, 1] - changed[:, 0, 0, 0]) / 0.4,
    )
    assert means.abs().max() <= 0.5
    assert means.abs().max() > 0.45
    assert contrasts.min() == pytest.approx(0.5, abs=0.03)
    assert contrasts.max() == pytest.approx(1.5, abs=0.03)
    bright = torch.tensor([0.3, 0.0, -0.3]).view(1, 3, 1, 1).expand(400, 3, 1, 1)
    spread = color(bright)
    saturations = (spread[:, 0] - spread[:, 2]).flatten() / 0.6  # by contrast too
    assert saturations.min() < 0.1
    assert 2.5 < saturations.max() <= 3


def test_a_translation_moves_by_whole_pixels():
    torch.manual_seed(0)
    images = torch.zeros(50, 1, 16, 16)
    images[:, 0, 8, 8] = 1
    moved = translation(images)[:, 0].flatten(1).argmax(dim=1)
    rows, columns = moved // 16 - 8, moved % 16 - 8
    assert set(rows.tolist()) == set(columns.tolist()) == {-2, -1, 0, 1, 2}  # an eighth of 16
    assert (translation(torch.ones(50, 1, 16, 16)) == 0).any()  # what comes in


def test_a_cutout_is_at_most_half_of_the_side():
    torch.manual_seed(0)
    gone = (cutout(torch.ones(200, 1, 16, 16)) == 0)[:, 0]
    assert gone.any(dim=2).sum(dim=1).max() == 8
    assert gone.sum(dim=(1, 2)).max() == 64
    assert gone.sum(dim=(1, 2)).min() < 40  # where it extends beyond the image
