"""Scenes are reproducible; their splits share nothing; masks and boxes agree."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from vision_lab.core.errors import ConfigurationError
from vision_lab.core.spec import IGNORE_INDEX
from vision_lab.data.bundled.scene_classes import GARMENTS, class_names, get_labels
from vision_lab.data.bundled.scenes import BACKGROUNDS_FILE, MIN_VISIBLE_FRACTION, Scene, Scenes


def scenes(**changes) -> Scenes:
    return Scenes(
        **(
            {
                "split": "train",
                "num_images": 40,
                "image_size": (96, 96),
                "label_set": "grouped",
                "seed": 0,
            }
            | changes
        )
    )


def test_a_scene_is_a_function_of_seed_and_index():
    image, mask = scenes()[7]
    assert image.shape == (3, 96, 96)
    assert mask.shape == (96, 96)
    assert image.dtype == mask.dtype == torch.uint8
    again = scenes(num_images=8)
    again[3]
    assert torch.equal(again[7][0], image)
    assert torch.equal(again[7][1], mask)
    for other in (scenes()[8], scenes(seed=1)[7], scenes(split="val")[7]):
        assert not torch.equal(other[0], image)
    assert scenes(image_size=(64, 80))[0][0].shape == (3, 64, 80)


def test_the_splits_share_neither_garments_nor_photographs():
    made = {split: scenes(split=split) for split in ("train", "val", "test")}
    assert {split: len(each.garments) for split, each in made.items()} == {
        "train": 5000,
        "val": 1000,
        "test": 1000,
    }
    # A few of Fashion-MNIST's images are in it twice.
    seen = {
        split: {garment.numpy().tobytes() for garment in each.garments}
        for split, each in made.items()
    }
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        assert len(seen[one] & seen[other]) <= 1, (one, other)
    for each in made.values():
        assert np.bincount(each.garment_classes).tolist() == [len(each.garment_classes) // 10] * 10
    with np.load(BACKGROUNDS_FILE) as archive:
        names = [name.partition("_") for name in archive]
    assert len({name for _, _, name in names}) == len(names) == 10
    assert {split: len(each.photographs) for split, each in made.items()} == {
        "train": 6,
        "val": 2,
        "test": 2,
    }


def test_mask_instances_and_boxes_agree():
    whole = scenes()
    for index in range(40):
        scene = whole.scene(index)
        mask, boxes = scene.mask(), scene.boxes()
        assert 1 <= len(scene.labels) == len(boxes) <= 5
        assert torch.equal(mask == 0, scene.instances == 0)
        for number, (label, hidden, box) in enumerate(
            zip(scene.labels, scene.hidden, boxes, strict=True), start=1
        ):
            seen = scene.instances == number
            assert (mask[seen] == (IGNORE_INDEX if hidden else label + 1)).all()
            left, top, right, bottom = box.int().tolist()
            inside = torch.zeros_like(seen)
            inside[top:bottom, left:right] = True
            assert not (seen & ~inside).any()
            if seen.any():
                assert seen[top:bottom, left:right].any(dim=0).all() or seen[top].any()
                assert all(
                    line.any()
                    for line in (seen[top], seen[bottom - 1], seen[:, left], seen[:, right - 1])
                )


def test_a_garment_occludes_those_behind_it():
    """Two garments of equal size: the second one hides the first."""
    instances = torch.tensor([[1, 2, 2, 2, 0]], dtype=torch.uint8)
    scene = Scene(torch.zeros(3, 1, 5, dtype=torch.uint8), instances, (0, 3), (True, False))
    assert scene.mask().tolist() == [[IGNORE_INDEX, 4, 4, 4, 0]]
    assert scene.boxes().tolist() == [[0, 0, 1, 1], [1, 0, 4, 1]]
    nothing = replace(scene, instances=torch.zeros_like(instances))
    assert nothing.boxes().tolist() == [[0, 0, 0, 0]] * 2


def test_garments_with_few_visible_pixels_are_hidden():
    whole = scenes(num_images=300)
    made = [whole.scene(index) for index in range(300)]
    hidden = [scene for scene in made if any(scene.hidden)]
    assert 10 < len(hidden) < 150
    for scene in hidden:
        assert (scene.mask() == IGNORE_INDEX).any() or all(
            not (scene.instances == number + 1).any() for number, h in enumerate(scene.hidden) if h
        )
    assert MIN_VISIBLE_FRACTION == 0.4


@pytest.mark.parametrize("size", [(8, 4000), (4000, 8)])
def test_long_and_narrow_images(size: tuple[int, int]):
    image, _ = scenes(image_size=size)[0]
    assert image.shape == (3, *size)


def test_classes():
    assert class_names("grouped", "masks") == [
        "background",
        "top",
        "trouser",
        "dress",
        "shoe",
        "bag",
    ]
    assert class_names("all", "boxes") == list(GARMENTS)
    assert get_labels("grouped") == [0, 1, 0, 2, 0, 3, 0, 3, 4, 3]
    assert get_labels("all") == list(range(10))
    whole = scenes(label_set="all")
    seen = {label for index in range(40) for label in whole.scene(index).labels}
    assert max(seen) > 5
    with pytest.raises(ConfigurationError, match=r"data\.label_set=some: type grouped or all"):
        class_names("some", "masks")


def test_an_index_beyond_the_last_is_refused():
    with pytest.raises(IndexError):
        scenes().scene(40)
