"""Differentiable augmentation: each picture its own change, shapes kept, slopes that reach the pictures."""

import pytest
import torch

from vision_lab.core.errors import ConfigurationError
from vision_lab.losses.diffaugment import (
    AUGMENTATIONS,
    color,
    cutout,
    get_augmentations,
    translation,
)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_each_change_keeps_shapes_and_lets_slopes_through(name: str):
    torch.manual_seed(0)
    pictures = torch.rand(6, 3, 16, 16, requires_grad=True)
    changed = AUGMENTATIONS[name](pictures)
    assert changed.shape == pictures.shape
    assert not torch.equal(changed, pictures)
    (slopes,) = torch.autograd.grad(changed.sum(), pictures)
    assert slopes.isfinite().all()
    assert (slopes != 0).flatten(1).any(dim=1).all()


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_each_picture_has_its_own(name: str):
    torch.manual_seed(0)
    same = torch.rand(1, 3, 16, 16).expand(8, -1, -1, -1)
    changed = AUGMENTATIONS[name](same)
    assert len({tuple(picture.flatten().tolist()) for picture in changed}) > 3


def test_how_far_colours_go():
    """Of a picture of two shades: its mean by 0.5, its contrast by half, its saturation to twice."""
    torch.manual_seed(0)
    grey = torch.tensor([-0.2, 0.2]).view(1, 1, 1, 2).expand(400, 3, 1, 2)
    changed = color(grey)
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
    pictures = torch.zeros(50, 1, 16, 16)
    pictures[:, 0, 8, 8] = 1
    moved = translation(pictures)[:, 0].flatten(1).argmax(dim=1)
    rows, columns = moved // 16 - 8, moved % 16 - 8
    assert set(rows.tolist()) == set(columns.tolist()) == {-2, -1, 0, 1, 2}  # an eighth of 16
    assert (translation(torch.ones(50, 1, 16, 16)) == 0).any()  # what comes in


def test_a_cut_is_half_the_side_at_most():
    torch.manual_seed(0)
    gone = (cutout(torch.ones(200, 1, 16, 16)) == 0)[:, 0]
    assert gone.any(dim=2).sum(dim=1).max() == 8
    assert gone.sum(dim=(1, 2)).max() == 64
    assert gone.sum(dim=(1, 2)).min() < 40  # where it extends beyond the image


def test_names():
    assert get_augmentations([]) == []
    for wrong in (["blur"], "colour"):
        with pytest.raises(
            ConfigurationError,
            match=r"task\.diffaugment=.*: type a list of color, translation, cutout",
        ):
            get_augmentations(wrong)
