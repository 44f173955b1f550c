"""Transforms: sizes, and masks that follow their images."""

import pytest
import torch
from torchvision import tv_tensors

from vision_lab.core.spec import IGNORE_INDEX
from vision_lab.data.transforms import (
    ElasticDeformation,
    pad_and_crop,
    resize_center_crop,
    rotate,
    scale_jitter_crop,
)


def example(height: int, width: int) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
    """The column of each pixel, as gray level of the image and label of the mask."""
    columns = torch.arange(width, dtype=torch.uint8).expand(height, -1)
    return tv_tensors.Image(columns.expand(3, -1, -1).clone()), tv_tensors.Mask(columns.clone())


def test_the_center_crop():
    image, _ = example(100, 200)
    found = resize_center_crop(size=(56, 56))(image)
    assert found.shape == (3, 56, 56)
    assert found[0, 0, [0, -1]].float().mean().item() == pytest.approx(99.5, abs=1.5)
    assert (found[0, 0, -1] - found[0, 0, 0]).item() == pytest.approx(56 * 100 / 64, abs=3)


@pytest.mark.parametrize("scale", [(0.5, 0.5), (2.0, 2.0), (0.5, 2.0)])
def test_scale_jitter_and_crop(scale: tuple[float, float]):
    torch.manual_seed(0)
    image, mask = scale_jitter_crop(size=(64, 48), scale=scale)(*example(60, 60))
    assert (image.shape, mask.shape) == ((3, 64, 48), (64, 48))
    beyond = mask == IGNORE_INDEX
    assert beyond.any() == (scale[0] < 1)
    assert (image[:, beyond] == 0).all()
    assert (image[0, ~beyond].int() - mask[~beyond].int()).abs().float().mean() < 1.5


@pytest.mark.parametrize("strength", [0.01, 0.04])
def test_the_displacement_has_the_documented_size(strength: float):
    """Over many samples, in columns of an image 200 pixels wide."""
    image, mask = example(200, 200)
    shifts = []
    for seed in range(40):
        torch.manual_seed(seed)
        moved, along = ElasticDeformation(sigma=strength)(image, mask)
        inside = (along != IGNORE_INDEX) & (along > 3) & (along < 196)
        inside[:30], inside[-30:] = False, False  # where the image is mixed with what lies beyond
        assert (moved[0][inside].int() - along[inside].int()).abs().float().mean() < 1.0
        shifts.append((moved[0].float() - image[0])[inside])
    # At the nine points it is the strength; in between, where they cancel, less.
    assert 0.4 * strength * 200 < torch.cat(shifts).std().item() < strength * 200
    assert ElasticDeformation(sigma=strength)(*example(8, 8))[0].shape == (3, 8, 8)


def test_pixels_from_outside_are_ignored():
    torch.manual_seed(1)
    for transform in (
        rotate(degrees=90),
        pad_and_crop(size=(64, 64), pixels=9),
        ElasticDeformation(sigma=0.1),
    ):
        image, mask = transform(
            tv_tensors.Image(torch.full((3, 64, 64), 9, dtype=torch.uint8)),
            tv_tensors.Mask(torch.full((64, 64), 3, dtype=torch.uint8)),
        )
        assert set(mask.unique().tolist()) == {3, IGNORE_INDEX}
        assert (image[:, mask == 3].float().mean() - 9).abs() < 0.5
