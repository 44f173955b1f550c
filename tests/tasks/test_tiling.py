"""Tiles cover an image exactly once, for any size."""

import pytest
import torch

from vision_lab.tasks.tiling import tiles


@pytest.mark.parametrize("image", [(96, 96), (97, 200), (1500, 2000), (96, 1000), (130, 131)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.9])
def test_tiles_keep_each_pixel_once(image: tuple[int, int], overlap: float):
    kept = torch.zeros(image, dtype=torch.int32)
    places = torch.arange(image[0] * image[1]).view(image)
    for window, part in tiles(image, (96, 96), overlap):
        assert places[window].shape == (96, 96)
        assert torch.equal(places[window][part.in_tile], places[part.in_image])
        kept[part.in_image] += 1
    assert (kept == 1).all()


def test_adjacent_tiles_share_at_least_the_overlap():
    begins = [window[1].start for window, _ in tiles((96, 1000), (96, 96), 0.25)]
    assert begins == [*range(0, 897, 64), 904]
    assert len(list(tiles((96, 96), (96, 96), 0.25))) == 1


def test_tiles_are_joined_in_the_middle_of_overlaps():
    (_, first), (_, second) = tiles((96, 160), (96, 96), 0.25)
    assert (first.in_image[1], second.in_image[1]) == (slice(0, 80), slice(80, 160))
