"""Tiles cover a picture once, whatever the sizes."""

import pytest
import torch

from vision_lab.tasks.tiling import tiles


@pytest.mark.parametrize("picture", [(96, 96), (97, 200), (1500, 2000), (96, 1000), (130, 131)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.9])
def test_each_pixel_is_kept_once(picture: tuple[int, int], overlap: float):
    kept = torch.zeros(picture, dtype=torch.int32)
    places = torch.arange(picture[0] * picture[1]).view(picture)
    for window, part in tiles(picture, (96, 96), overlap):
        assert places[window].shape == (96, 96)
        assert torch.equal(places[window][part.in_tile], places[part.in_image])
        kept[part.in_image] += 1
    assert (kept == 1).all()


def test_neighbors_fraction_at_least_the_overlap():
    begins = [window[1].start for window, _ in tiles((96, 1000), (96, 96), 0.25)]
    assert begins == [*range(0, 897, 64), 904]
    assert len(list(tiles((96, 96), (96, 96), 0.25))) == 1


def test_parts_are_cut_in_the_middle_of_overlaps():
    (_, first), (_, second) = tiles((96, 160), (96, 96), 0.25)
    assert (first.in_image[1], second.in_image[1]) == (slice(0, 80), slice(80, 160))
