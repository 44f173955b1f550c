"""Transforms of our own: sizes, and masks that go along."""

import pytest
import torch
from torchvision import tv_tensors

from vision_lab.data.transforms import central_crop, scale_and_crop, turn_and_deform
from vision_lab.types import IGNORE


def example(height: int, width: int) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
    """The column of each pixel, as a picture's shade and as a mask's class."""
    columns = torch.arange(width, dtype=torch.uint8).expand(height, -1)
    return tv_tensors.Image(columns.expand(3, -1, -1).clone()), tv_tensors.Mask(columns.clone())


def test_the_middle_of_a_picture():
    picture, _ = example(100, 200)
    found = central_crop(size=(56, 56))(picture)
    assert found.shape == (3, 56, 56)
    assert found[0, 0, [0, -1]].float().mean().item() == pytest.approx(99.5, abs=1.5)
    assert (found[0, 0, -1] - found[0, 0, 0]).item() == pytest.approx(56 * 100 / 64, abs=3)


@pytest.mark.parametrize("scale", [(0.5, 0.5), (2.0, 2.0), (0.5, 2.0)])
def test_scale_and_crop(scale: tuple[float, float]):
    torch.manual_seed(0)
    picture, mask = scale_and_crop(size=(64, 48), scale=scale)(*example(60, 60))
    assert (picture.shape, mask.shape) == ((3, 64, 48), (64, 48))
    beyond = mask == IGNORE
    assert beyond.any() == (scale[0] < 1)
    assert (picture[:, beyond] == 0).all()
    assert (picture[0, ~beyond].int() - mask[~beyond].int()).abs().float().mean() < 1.5


@pytest.mark.parametrize("pixels", [2.0, 8.0])
def test_each_pixel_is_moved_by_so_many(pixels: float):
    torch.manual_seed(0)
    picture, mask = example(200, 200)
    moved, along = turn_and_deform(degrees=0, pixels=pixels)(picture, mask)
    inside = along != IGNORE
    shift = (moved[0].float() - picture[0].float())[40:-40, 40:-40]
    assert shift.std().item() == pytest.approx(pixels, rel=0.25)
    assert (moved[0][inside].int() - along[inside].int()).abs().float().mean() < 1.0
    turned, _ = turn_and_deform(degrees=90, pixels=0.01)(picture, mask)
    assert not torch.equal(turned, picture)
