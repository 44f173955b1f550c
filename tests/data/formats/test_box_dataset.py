"""Boxes from files: three formats give the same dataset; invalid boxes are clipped or dropped, and named."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.data import annotation_files
from tests.data.annotation_files import BOXES, NAMES, SIZES
from vision_lab.core.batch import BoxTargets, letterbox_size
from vision_lab.core.errors import DataError, UnreadableFile
from vision_lab.core.spec import DataSpec
from vision_lab.data.fingerprint import fingerprint
from vision_lab.data.formats import coco, voc_xml, yolo_txt
from vision_lab.data.formats.box_dataset import BoxDataset
from vision_lab.data.transformed_dataset import TransformedDataset, collate
from vision_lab.data.transforms import Mosaic

READ: dict[str, Callable[..., BoxDataset | None]] = {
    "coco": lambda root, **k: coco.boxes(
        str(root), **{"split": "train", "class_names": NAMES, "on_error": "raise", **k}
    ),
    "voc_detect": lambda root, **k: voc_xml.boxes(
        str(root),
        **{"split": "train", "class_names": NAMES, "pixel_offset": 1, "on_error": "raise", **k},
    ),
    "yolo_txt": lambda root, **k: yolo_txt.boxes(
        str(root), **{"split": "train", "class_names": NAMES, "on_error": "raise", **k}
    ),
}


def box_spec(size: tuple[int, int] = (40, 40)) -> DataSpec:
    return DataSpec(
        target_type="boxes",
        class_names=NAMES,
        num_classes=3,
        image_size=size,
        channels=3,
        mean=(0.5,),
        std=(0.25,),
    )


def examples(dataset: BoxDataset, **changes) -> TransformedDataset:
    settings = {
        "spec": box_spec(),
        "transforms": [],
        "seed": 0,
        "label_map": None,
        "max_pixels": 10_000,
    }
    return TransformedDataset(dataset, **{**settings, **changes})


def made(name: str, root: Path, **changes) -> BoxDataset:
    found = READ[name](annotation_files.FORMATS[name](root), **changes)
    assert found is not None
    return found


def by_image(dataset: BoxDataset, size: tuple[int, int] = (40, 40)) -> dict[str, BoxTargets]:
    read = examples(dataset, spec=box_spec(size))
    return {Path(str(read[0, k][2].path)).stem: read[0, k][1] for k in range(len(read))}


@pytest.mark.parametrize("name", READ)
def test_all_formats_read_the_same_boxes(name: str, tmp_path: Path):
    found = by_image(made(name, tmp_path))
    assert found.keys() == SIZES.keys()
    for image, (width, height) in SIZES.items():
        rows, columns = letterbox_size((height, width), (40, 40))
        scale = torch.tensor([columns / width, rows / height] * 2)
        wanted = torch.tensor([box for _, box in BOXES[image]], dtype=torch.float32).reshape(-1, 4)
        objects = found[image]
        torch.testing.assert_close(objects.boxes, wanted * scale)
        assert objects.labels.tolist() == [NAMES.index(kind) for kind, _ in BOXES[image]]
        assert objects.area.tolist() == ((wanted[:, 2:] - wanted[:, :2]).prod(dim=1)).tolist()
        assert not objects.crowd.any()
        assert not objects.difficult.any()


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("coco", coco.category_names),
        ("voc_detect", voc_xml.class_names),
        ("yolo_txt", yolo_txt.class_names),
    ],
)
def test_the_classes_are_read_from_the_files(
    name: str, names: Callable[[str], list[str]], tmp_path: Path
):
    assert tuple(names(str(annotation_files.FORMATS[name](tmp_path)))) == NAMES


BROKEN = {
    "a": [
        ("ash", (8, 4, 40, 30)),
        ("ash", (40, 30, 8, 4)),
        ("cedar", (60, 20, 100, 40)),
        ("beech", (10, 10, 10, 30)),
        ("oak", (5, 5, 20, 20)),
        ("ash", (90, 50, 120, 70)),
        ("ash", (-0.05, 0, 20, 40.02)),
        ("ash", (float("nan"), 2, 20, 20)),
    ],
    "b": [("beech", (0, 0, 60, 60))],
    "c": [],
    "d": [],
}

SAID = (
    "is inverted",
    "extends beyond",
    "has no area",
    "has a class that is not",
    "is outside the image",
    "is not finite",
)


@pytest.mark.parametrize("name", READ)
def test_invalid_boxes_are_clipped_or_dropped_and_named(name: str, tmp_path: Path):
    root = annotation_files.FORMATS[name](tmp_path, BROKEN)
    dataset = READ[name](root, on_error="skip")
    assert dataset is not None
    assert len(dataset) == 4
    objects = by_image(dataset, (80, 80))["a"]
    assert objects.labels.tolist() == [0, 2, 0]
    torch.testing.assert_close(objects.boxes[1], torch.tensor([60.0, 20.0, 80.0, 40.0]))  # clipped
    assert len(dataset.issues) == 6
    for fault, message in zip(dataset.issues, SAID, strict=True):
        assert Path(fault.path).stem == "a"
        assert Path(fault.source).is_file()
        assert message in fault.problem
        assert fault.problem.endswith("clipped" if message == "extends beyond" else "dropped")
    with pytest.raises(
        DataError, match=r"(?s)6 annotations are invalid:\n.*a\.png: box 2 .*data\.on_error=skip"
    ):
        READ[name](root, on_error="raise")


def test_coco_crowds_areas_and_polygons(tmp_path: Path):
    root = annotation_files.coco(tmp_path)
    file = root / "annotations" / "instances_train.json"
    content = json.loads(file.read_text())
    content["annotations"][0] |= {
        "iscrowd": 1,
        "area": 77.5,
        "segmentation": {"counts": "broken", "size": [1, 1]},
    }
    del content["annotations"][1]["area"]
    content["annotations"][2]["bbox"] = None
    file.write_text(json.dumps(content))
    dataset = READ["coco"](root, on_error="skip")
    assert dataset is not None
    objects = by_image(dataset)["a"]
    assert objects.crowd.tolist() == [True, False]
    assert objects.area.tolist() == [77.5, 60 * 30]
    assert [fault.problem.split(" is ")[1] for fault in dataset.issues] == ["not finite: dropped"]


def test_difficult_objects_and_splits_of_voc(tmp_path: Path):
    root = annotation_files.voc(tmp_path / "VOCdevkit" / "VOC2012")
    file = root / "Annotations" / "d.xml"
    file.write_text(file.read_text().replace("<difficult>0", "<difficult>1", 1))
    lists = root / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("d\na\n")
    (lists / "val.txt").write_text("b\n")
    train, val = READ["voc_detect"](tmp_path), READ["voc_detect"](tmp_path, split="val")
    assert train is not None
    assert val is not None
    assert READ["voc_detect"](tmp_path, split="test") is None
    assert [path.stem for path in train.paths] == ["d", "a"]
    assert [path.stem for path in val.paths] == ["b"]
    assert by_image(train)["d"].difficult.tolist() == [True, False, False]


def test_images_of_a_test_list_are_not_in_train(tmp_path: Path):
    root = annotation_files.voc(tmp_path)
    lists = root / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "test.txt").write_text("b\n")
    train = READ["voc_detect"](tmp_path)
    assert [path.stem for path in train.paths] == ["a", "c", "d"]
    (lists / "trainval.txt").write_text("a -1\nd  1\n")
    train, val = READ["voc_detect"](tmp_path), READ["voc_detect"](tmp_path, split="val")
    assert [path.stem for path in train.paths] == ["a", "d"]
    assert val is None


def test_a_split_file_of_missing_images_is_reported(tmp_path: Path):
    root = annotation_files.voc(tmp_path)
    lists = root / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\nd\nnothing\n")
    (root / "Annotations" / "d.xml").write_text('<?xml version="1.0" encoding="foo"?><annotation/>')
    assert voc_xml.class_names(str(root)) == ["ash", "cedar"]
    dataset = READ["voc_detect"](tmp_path, on_error="skip")
    assert [path.stem for path in dataset.paths] == ["a"]
    assert [Path(fault.source).name for fault in dataset.issues] == ["d.xml", "nothing.xml"]


@pytest.mark.parametrize("name", READ)
def test_a_dataset_without_valid_boxes_is_refused(name: str, tmp_path: Path):
    gone = {
        **annotation_files.BOXES,
        **{key: [("oak", box) for _, box in rows] for key, rows in annotation_files.BOXES.items()},
    }
    with pytest.raises(DataError, match=r"(?s)annotations are invalid.*No box is valid\."):
        READ[name](annotation_files.FORMATS[name](tmp_path, gone), on_error="skip")


def test_an_image_with_two_annotation_files_is_used_once(tmp_path: Path):
    root = annotation_files.voc(tmp_path)
    text = (root / "Annotations" / "a.xml").read_text()
    (root / "Annotations" / "again.xml").write_text(text)
    dataset = READ["voc_detect"](root, on_error="skip")
    assert [path.stem for path in dataset.paths] == ["a", "b", "c", "d"]
    assert [fault.problem for fault in dataset.issues] == [
        "is listed more than once: only the first entry is used"
    ]


def test_boxes_without_an_annotated_size_are_not_compared_with_it(tmp_path: Path):
    root = annotation_files.coco(tmp_path)
    file = root / "annotations" / "instances_train.json"
    file.write_text(
        file.read_text().replace('"width": 80, "height": 40', '"width": 0, "height": 0')
    )
    assert by_image(READ["coco"](root))["a"].labels.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("names: {1: cat, 3: dog}", ["unused 0", "cat", "unused 2", "dog"]),
        (
            "names: {'10': z, '2': b}",
            ["unused 0", "unused 1", "b", *[f"unused {k}" for k in range(3, 10)], "z"],
        ),
        ("names: [a, b]", ["a", "b"]),
    ],
)
def test_yolo_class_names_are_ordered_by_label(text: str, wanted: list[str], tmp_path: Path):
    (tmp_path / "data.yaml").write_text(text)
    assert yolo_txt.class_names(str(tmp_path)) == wanted


def test_invalid_yolo_class_names_are_refused(tmp_path: Path):
    (tmp_path / "classes.txt").write_text("a\n\nb\n")
    assert yolo_txt.class_names(str(tmp_path)) == ["a", "unused 1", "b"]
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "data.yaml").write_text("names: {cat: 1}")
    with pytest.raises(DataError, match=r"names must be a list"):
        yolo_txt.class_names(str(tmp_path / "one"))


def test_yolo_image_lists_are_refused(tmp_path: Path):
    root = annotation_files.yolo(tmp_path)
    (root / "data.yaml").write_text("names: [ash, beech, cedar]\ntrain: train.txt\n")
    with pytest.raises(DataError, match=r"has train: train\.txt; it must be a folder, not a list"):
        READ["yolo_txt"](root)


def test_pixel_offset_0_for_files_that_count_from_0(tmp_path: Path):
    whole = by_image(made("voc_detect", tmp_path, pixel_offset=0), (80, 80))["a"]
    assert whole.boxes[0].tolist() == [9, 5, 40, 30]


def test_yolo_folders_and_polygons(tmp_path: Path):
    root = annotation_files.yolo(tmp_path)
    for split in ("train", "valid"):
        for kind in ("images", "labels"):
            (root / split / kind).mkdir(parents=True)
    for kind, end in (("images", "png"), ("labels", "txt")):
        (root / kind / f"a.{end}").rename(root / "train" / kind / f"a.{end}")
        (root / kind / f"b.{end}").rename(root / "valid" / kind / f"b.{end}")
    (root / "data.yaml").write_text(
        "names: [ash, beech, cedar]\ntrain: ../train/images\nval: ../valid/images\n"
    )
    (root / "train/labels/a.txt").write_text("1 0.1 0.25 0.5 0.5 0.3 0.75\n")
    train, val = READ["yolo_txt"](root), READ["yolo_txt"](root, split="val")
    assert train is not None
    assert val is not None
    assert READ["yolo_txt"](root, split="test") is None
    assert by_image(train, (80, 80))["a"].boxes.tolist() == [[8, 10, 40, 30]]
    assert [path.stem for path in val.paths] == ["b"]


@pytest.mark.parametrize(
    ("name", "file", "text", "message"),
    [
        (
            "voc_detect",
            "Annotations/a.xml",
            "<annotation><object>",
            "cannot be read (no element found",
        ),
        (
            "voc_detect",
            "Annotations/a.xml",
            "<annotation><object><name>ash</name></object></annotation>",
            "no bndbox/xmin",
        ),
        ("yolo_txt", "labels/a.txt", "0 0.5 0.5 0.2\n", "line 1 has 4 numbers"),
        (
            "yolo_txt",
            "labels/a.txt",
            "0 0.5 0.5 0.2 0.2\nash 0.5 0.5 0.2 0.2\n",
            "line 2 does not consist of numbers",
        ),
    ],
)
def test_an_unreadable_annotation_file_is_named_and_its_image_skipped(
    name: str, file: str, text: str, message: str, tmp_path: Path
):
    root = annotation_files.FORMATS[name](tmp_path)
    (root / file).write_text(text)
    dataset = READ[name](root, on_error="skip")
    assert dataset is not None
    assert [path.stem for path in dataset.paths] == ["b", "c", "d"]
    (fault,) = dataset.issues
    assert message in fault.problem
    assert fault.source == str(root / file)
    with pytest.raises(DataError, match="1 annotations are invalid"):
        READ[name](root, on_error="raise")


@pytest.mark.parametrize("name", READ)
def test_a_folder_without_images_lists_the_extensions(name: str, tmp_path: Path):
    for root in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(DataError, match=str(tmp_path)):
            READ[name](root)


def test_an_annotated_size_is_compared_with_the_image_when_it_is_read(tmp_path: Path):
    """Valid annotations of another image size."""
    dataset = made("coco", tmp_path)
    annotation_files.image(tmp_path / "train" / "a.png", (40, 20))
    read = examples(dataset)[0, 0]
    assert isinstance(read, UnreadableFile)
    assert read.reason == "its annotation is for 80 x 40 pixels, the image has 40 x 20"
    annotation_files.image(tmp_path / "train" / "a.png", (40, 80))
    turned = examples(dataset)[0, 0]
    assert isinstance(turned, UnreadableFile)
    assert turned.reason.endswith("the image has 40 x 80; is it rotated by its EXIF tag?")


class OneOfYours:
    """A dataset of one black image of 40 x 20 pixels with a given target."""

    def __init__(self, **target) -> None:
        self.target = target

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int):
        return torch.zeros(3, 20, 40, dtype=torch.uint8), self.target


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (
            {"boxes": [[20, 10, 80, 40]], "labels": [0]},
            "its box [20, 10, 80, 40] is not in the image of 40",
        ),
        ({"boxes": [[9, 9, 5, 15]], "labels": [0]}, "its box [9, 9, 5, 15] is not in the image"),
        (
            {"boxes": [[1, 1, 5, 5]], "labels": [3]},
            "its 1 boxes have labels [3]: each requires one from 0 to 2",
        ),
        ({"boxes": [[1, 1, 5, 5]], "labels": [0, 1]}, "its 1 boxes have labels [0, 1]"),
        (
            {"boxes": [[1, 1, 5, 5]], "labels": [0], "crowd": [0, 1]},
            "it has 1 boxes, but 2 values of crowd",
        ),
    ],
)
def test_boxes_of_custom_datasets_are_checked_against_the_image(target: dict, message: str):
    read = examples(OneOfYours(**target))[0, 0]
    assert isinstance(read, UnreadableFile)
    assert message in read.reason


def test_crowds_may_be_integers():
    _, objects, _ = examples(
        OneOfYours(boxes=[[1, 1, 5, 5], [2, 2, 9, 9]], labels=[0, 1], crowd=[0, 1])
    )[0, 0]
    assert objects.crowd.tolist() == [False, True]
    assert len(objects[~objects.crowd]) == 1


def test_datasets_are_pickled_to_spawned_workers(tmp_path: Path):
    read = pickle.loads(
        pickle.dumps(examples(made("coco", tmp_path), transforms=[Mosaic(size=(40, 40), p=1.0)]))
    )
    assert len(read[0, 0][1].boxes) > 0


def test_images_are_letterboxed_with_the_mean(tmp_path: Path):
    read = examples(made("voc_detect", tmp_path))
    image, objects, sample = read[0, 0]
    assert image.shape == (3, 40, 40)
    assert sample.size == (40, 80)
    assert sample.content_size == (20, 40)
    assert (image[:, 20:] == 127).all()
    assert objects.boxes.tolist() == [[4, 2, 20, 15], [10, 5, 40, 20]]
    batch = collate([read[0, k] for k in range(4)])
    assert batch.images.shape == (4, 3, 40, 40)
    assert [len(each) for each in batch.targets] == [2, 1, 0, 3]


def test_boxes_outside_the_crop_are_removed_with_their_columns(tmp_path: Path):
    """All columns, for any transform."""

    class Left(torch.nn.Module):
        def forward(self, image, target):
            from torchvision.transforms.v2 import functional as F

            return F.crop(image, 0, 0, 48, 18), {
                k: F.crop(v, 0, 0, 48, 18) if k == "boxes" else v for k, v in target.items()
            }

    read = examples(made("voc_detect", tmp_path), transforms=[Left()])
    _, objects, _ = read[0, 3]
    assert objects.labels.tolist() == [2, 0]  # the one from 32 on is gone
    assert (
        len(objects.boxes) == len(objects.crowd) == len(objects.difficult) == len(objects.area) == 2
    )
    assert objects.area.tolist() == [32 * 24, 16 * 36]  # as the file has it


def test_a_mosaic_contains_four_images_and_their_boxes(tmp_path: Path):
    dataset = made("yolo_txt", tmp_path)
    read = examples(dataset, transforms=[Mosaic(size=(40, 40), p=1.0)])
    first, again, other = read[0, 1], read[0, 1], read[1, 1]
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1].boxes, again[1].boxes)
    assert not torch.equal(first[0], other[0])
    assert first[0].shape == (3, 40, 40)
    for image, objects, _ in (first, other):
        assert image.dtype == torch.uint8
        assert (objects.boxes >= 0).all()
        assert (objects.boxes <= 40).all()
        assert (objects.boxes[:, 2:] - objects.boxes[:, :2] >= 1).all()
    never = examples(dataset, transforms=[Mosaic(size=(40, 40), p=0.0)])[0, 1]
    assert torch.equal(never[0], examples(dataset)[0, 1][0])


def test_a_changed_box_changes_the_fingerprint(tmp_path: Path):
    one = fingerprint(made("coco", tmp_path), has_labels=False)
    file = tmp_path / "annotations" / "instances_train.json"
    file.write_text(file.read_text().replace("[8, 4, ", "[9, 4, "))
    dataset = READ["coco"](tmp_path)
    assert dataset is not None
    assert fingerprint(dataset, has_labels=False) != one


@pytest.mark.parametrize(
    ("size", "into", "wanted"),
    [
        ((40, 80), (40, 40), (20, 40)),
        ((100, 50), (64, 64), (64, 32)),
        ((3, 1000), (32, 32), (1, 32)),
        ((7, 7), (64, 32), (32, 32)),
    ],
)
def test_fitted(size: tuple[int, int], into: tuple[int, int], wanted: tuple[int, int]):
    assert letterbox_size(size, into) == wanted
