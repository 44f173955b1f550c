"""Masks from COCO files: polygons, run lengths, crowds, overlaps, and invalid files."""

import json
from pathlib import Path

import pytest
from PIL import Image

from vision_lab.core.errors import DataError, UnreadableFileError
from vision_lab.core.spec import IGNORE_INDEX
from vision_lab.data.formats.coco import CocoMaskDataset, category_names, coco_masks

NAMES = ["background", "cat", "dog"]


def box(left: int, top: int, right: int, bottom: int) -> list[list[int]]:
    return [[left, top, right, top, right, bottom, left, bottom]]


def annotated(root: Path, *objects: dict, **changes) -> Path:
    """One image of 6x4 pixels with objects, and one without."""
    content = {
        "images": [
            {"id": 5, "file_name": "b.png", "height": 4, "width": 6},
            {"id": 2, "file_name": "a.png", "height": 4, "width": 6},
        ],
        "categories": [{"id": 18, "name": "dog"}, {"id": 17, "name": "cat"}],
        "annotations": [
            {"id": k, "image_id": 5, "iscrowd": 0, **each} for k, each in enumerate(objects)
        ],
    } | changes
    (root / "annotations").mkdir(exist_ok=True)
    (root / "train").mkdir(exist_ok=True)
    (root / "annotations" / "train.json").write_text(json.dumps(content))
    for name in ("a.png", "b.png"):
        Image.new("RGB", (6, 4)).save(root / "train" / name)
    return root


def masks(root: Path) -> CocoMaskDataset:
    made = coco_masks(str(root), split="train", class_names=NAMES, max_pixels=100, on_error="raise")
    assert made is not None
    return made


def test_polygons_become_masks(tmp_path: Path):
    annotated(tmp_path, {"category_id": 18, "segmentation": box(0, 0, 2, 4)})
    (path, empty), (other, mask) = masks(tmp_path)[0], masks(tmp_path)[1]
    assert (path.name, other.name) == ("a.png", "b.png")  # by number
    assert not empty.any()
    assert mask.tolist() == [[2, 2, 0, 0, 0, 0]] * 4


def test_run_lengths_as_numbers_and_as_text(tmp_path: Path):
    counts = {"size": [4, 6], "counts": [4, 8, 12]}  # down the columns: the second and the third
    annotated(tmp_path, {"category_id": 17, "segmentation": counts})
    assert masks(tmp_path)[1][1].tolist() == [[0, 1, 1, 0, 0, 0]] * 4
    annotated(tmp_path, {"category_id": 17, "segmentation": {"size": [4, 6], "counts": "48<"}})
    assert masks(tmp_path)[1][1].tolist() == [[0, 1, 1, 0, 0, 0]] * 4


def test_smaller_objects_are_drawn_on_top_and_crowds_ignored(tmp_path: Path):
    small = {"category_id": 17, "segmentation": box(1, 0, 2, 4)}
    large = {"category_id": 18, "segmentation": box(0, 0, 3, 4)}
    crowd = {
        "category_id": 17,
        "iscrowd": 1,
        "segmentation": {"size": [4, 6], "counts": [8, 12, 4]},
    }
    for order in ([small, large, crowd], [crowd, large, small]):
        annotated(tmp_path, *order)
        assert masks(tmp_path)[1][1].tolist() == [[2, 1, 2, IGNORE_INDEX, IGNORE_INDEX, 0]] * 4


def test_an_object_with_several_polygons(tmp_path: Path):
    annotated(tmp_path, {"category_id": 17, "segmentation": box(0, 0, 1, 4) + box(4, 0, 6, 4)})
    assert masks(tmp_path)[1][1].tolist() == [[1, 0, 0, 0, 1, 1]] * 4


def test_class_names_are_ordered_by_category_id(tmp_path: Path):
    assert category_names(str(annotated(tmp_path))) == ["cat", "dog"]
    assert (
        coco_masks(str(tmp_path), split="val", class_names=NAMES, max_pixels=100, on_error="raise")
        is None
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"categories": [{"id": 1, "name": "cow"}]},
            "has categories that are not in data.spec.class_names: cow",
        ),
        ({"images": 3}, "is not a COCO file: it has no list of images"),
        ({"categories": []}, "it has no list of categories"),
        (
            {"categories": [{"id": 1, "name": 7}]},
            "entry 0 of categories requires a key name of type str",
        ),
        (
            {"images": [{"id": 5, "file_name": "b.png"}]},
            "entry 0 of images requires a key height of type int and",
        ),
        (
            {"annotations": ["x"]},
            "entry 0 of annotations requires a key image_id of type int",
        ),
        (
            {"images": [{"id": k, "file_name": "b.png", "height": 4, "width": 6} for k in (5, 6)]},
            "lists more than once: ",
        ),
        (
            {"annotations": [{"id": 9, "image_id": 77, "category_id": 18}]},
            "annotation 9 belongs to image 77",
        ),
        (
            {"images": [{"id": 5, "file_name": "c.png", "height": 4, "width": 6}]},
            "lists 1 of 1 images that do not exist: ",
        ),
    ],
)
def test_invalid_files_are_named(tmp_path: Path, changes: dict, message: str):
    annotated(tmp_path, **changes)
    with pytest.raises(DataError) as caught:
        masks(tmp_path)
    assert message in str(caught.value)


def test_missing_images_are_skipped_on_request(tmp_path: Path):
    annotated(tmp_path)
    (tmp_path / "train" / "a.png").unlink()
    made = coco_masks(
        str(tmp_path), split="train", class_names=NAMES, max_pixels=100, on_error="skip"
    )
    assert len(made) == 2  # met by name as it is read
    with pytest.raises(DataError, match=r"lists 1 of 2 images that do not exist: .*a\.png"):
        masks(tmp_path)


def test_invalid_json_is_named(tmp_path: Path):
    annotated(tmp_path)
    (tmp_path / "annotations" / "train.json").write_text("{")
    with pytest.raises(DataError, match=r"train\.json is not JSON"):
        masks(tmp_path)
    with pytest.raises(
        DataError,
        match=r"has no COCO annotations \(searched annotations/instances_train2017",
    ):
        masks(tmp_path / "train")


def test_an_image_that_is_too_large_is_not_drawn(tmp_path: Path):
    annotated(tmp_path, {"category_id": 17, "segmentation": box(0, 0, 1, 4)})
    made = coco_masks(
        str(tmp_path), split="train", class_names=NAMES, max_pixels=23, on_error="raise"
    )
    with pytest.raises(
        UnreadableFileError,
        match=r"the image has 6 x 4 pixels according to the file, more than data\.max_pixels",
    ):
        made[1]


@pytest.mark.parametrize(
    ("segmentation", "why"),
    [
        ([[1, 2]], "a polygon requires x and y of three or more points"),
        ([], "a polygon requires x and y of three or more points"),
        ({"size": [6, 4], "counts": [24]}, "the RLE has size [6, 4], the image [4, 6]"),
        ({"size": [4, 6], "counts": [25]}, "the RLE has 25 pixels, not 24"),
        (7, "not subscriptable"),
        ({"size": [4, 6], "counts": "abc"}, "RLE string is malformed"),
        ([[1e9, 5, 1e12, 5, 40, 40]], "a polygon is far outside the image"),
        ([[float("nan"), 0, 2, 0, 2, 4]], "a polygon is far outside the image"),
    ],
)
def test_unreadable_images_are_not_drawn_but_named(tmp_path: Path, segmentation: object, why: str):
    annotated(tmp_path, {"category_id": 17, "segmentation": segmentation})
    with pytest.raises(UnreadableFileError) as caught:
        masks(tmp_path)[1]
    assert caught.value.unreadable.path.endswith("train/b.png")
    assert (
        f"its annotations in {tmp_path / 'annotations' / 'train.json'} cannot be rasterized"
        in str(caught.value)
    )
    assert why in str(caught.value)
