"""Mask files: values, pairing with images, and invalid masks."""

import re
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pytest
from PIL import Image

from vision_lab.core.errors import ConfigurationError, DataError, UnreadableFileError
from vision_lab.data.formats.image_masks import ImageMaskDataset, MaskEncoding, image_masks
from vision_lab.data.image_io import InvalidImageError

CLASSES = np.array([[0, 1, 2], [2, 1, 0]], dtype=np.uint8)


def saved(path: Path, values: np.ndarray, mode: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    if mode == "P":
        image = Image.fromarray(values, mode="P")
        image.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0] + [0] * 3 * 253)
    image.save(path)
    return path


def read(path: Path, values: MaskEncoding) -> list[list[int]]:
    return values.read(path, max_pixels=10**6).tolist()


@pytest.mark.parametrize("mode", [None, "P"])
def test_indices_and_palettes(tmp_path: Path, mode: str | None):
    with_border = np.where(CLASSES == 2, 255, CLASSES).astype(np.uint8)
    path = saved(tmp_path / "a.png", with_border, mode)
    assert read(path, MaskEncoding(2)) == [[0, 1, 255], [255, 1, 0]]


def test_black_and_white(tmp_path: Path):
    path = saved(tmp_path / "a.png", np.array([[0, 255], [255, 0]], dtype=np.uint8))
    assert read(path, MaskEncoding(2, class_values=[0, 255])) == [[0, 1], [1, 0]]
    assert read(path, MaskEncoding(2, class_values=[255, 0])) == [[1, 0], [0, 1]]
    rgb = saved(tmp_path / "b.png", np.repeat(np.array([[[0], [255]]], dtype=np.uint8), 3, axis=2))
    assert read(rgb, MaskEncoding(2, class_values=[0, 255])) == [[0, 1]]  # gray in three channels
    assert read(path, MaskEncoding(2, class_values=[0, 255], ignored_values=())) == [[0, 1], [1, 0]]
    one_bit = tmp_path / "c.png"
    Image.fromarray(np.array([[0, 255]], dtype=np.uint8)).convert("1").save(one_bit)
    assert read(one_bit, MaskEncoding(2)) == [[0, 1]]
    assert read(one_bit, MaskEncoding(2, class_values=[0, 255])) == [
        [0, 1]
    ]  # as every viewer shows it
    deep = saved(tmp_path / "d.png", np.array([[0, 40000]], dtype=np.uint16))
    assert read(deep, MaskEncoding(2, class_values=[0, 40000])) == [[0, 1]]


def test_class_values_may_be_palette_colors(tmp_path: Path):
    path = saved(tmp_path / "a.png", CLASSES, "P")
    assert read(path, MaskEncoding(3, class_values=[[0, 200, 0], [200, 0, 0], [9, 9, 9]])) == [
        [2, 1, 0],
        [0, 1, 2],
    ]


def test_class_values_may_be_colors(tmp_path: Path):
    colors = np.array([[0, 0, 0], [128, 64, 0], [64, 0, 128]], dtype=np.uint8)
    values = MaskEncoding(2, class_values=[[64, 0, 128], [128, 64, 0]], ignored_values=[0])
    path = saved(tmp_path / "a.png", colors[CLASSES])
    assert read(path, values) == [[255, 1, 0], [0, 1, 255]]
    gray = saved(tmp_path / "b.png", np.zeros((1, 2), dtype=np.uint8))
    assert read(gray, values) == [[255, 255]]  # a file that happens to have no color in it


def test_a_mask_value_without_a_class_is_refused(tmp_path: Path):
    path = saved(tmp_path / "a.png", np.array([[0, 3, 200]], dtype=np.uint8))
    with pytest.raises(InvalidImageError) as caught:
        read(path, MaskEncoding(2))
    assert str(caught.value) == (
        "its values 3, 200 stand for no class; it contains 0, 3, 200: type data.class_values=[0,255,...], one for each "
        "class, and data.ignored_values=[...] for ignored ones"
    )
    path = saved(tmp_path / "b.png", np.array([[[1, 2, 3], [0, 0, 0]]], dtype=np.uint8))
    with pytest.raises(
        InvalidImageError,
        match=r"values \[0,0,0\], \[1,2,3\] stand for no class; it contains \[0,0,0\], \[1,2,3\]",
    ):
        read(path, MaskEncoding(2))
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16), dtype=np.uint8)).save(
        tmp_path / "c.jpg"
    )
    with pytest.raises(
        InvalidImageError, match=r"and \d+ more: JPEG changes values, so masks must be PNG$"
    ):
        read(tmp_path / "c.jpg", MaskEncoding(2, class_values=[0, 255]))


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ([0], "data.class_values has 1 entries for 2 classes"),
        (
            [0, [1, 1, 1]],
            "type numbers for all classes, or colors [red,green,blue] for all classes",
        ),
        (
            [[0, 0], [1, 1]],
            "data.class_values=[[0, 0], [1, 1]]: type a list of whole numbers of 0 or more, or of colors",
        ),
        (5, "data.class_values=5: type a list of whole numbers"),
        ([0, -1], "data.class_values=[0, -1]: type a list of whole numbers"),
        ([0.0, 1.0], "data.class_values=[0.0, 1.0]: type a list of whole numbers"),
        ([4, 4], "data.class_values contains a value twice"),
    ],
)
def test_values_without_information_are_refused(written: list, message: str):
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        MaskEncoding(2, class_values=written)


def test_an_invalid_color_is_refused(tmp_path: Path):
    path = saved(tmp_path / "a.png", np.array([[[0, 0, 1], [0, 0, 0]]], dtype=np.uint8))
    with pytest.raises(InvalidImageError, match=r"values \[0,0,0\], \[0,0,1\] stand for no class"):
        read(path, MaskEncoding(2))
    with pytest.raises(
        ConfigurationError,
        match=r"data\.ignored_values=\[\[1, 2\]\]: type a list of whole numbers of 0 or more, or of colors",
    ):
        MaskEncoding(2, ignored_values=[[1, 2]])


def test_two_files_of_one_name(tmp_path: Path):
    filled(tmp_path / "images")
    filled(tmp_path / "masks")
    Image.new("RGB", (3, 2)).save(tmp_path / "images" / "b.jpg")
    with pytest.raises(
        DataError, match=r"images/b\.jpg and .*images/b\.png have the same name: rename one of them"
    ):
        found(tmp_path)


def found(root: Path, **changes) -> ImageMaskDataset | None:
    arguments = {
        "split": "train",
        "image_dir": "images",
        "mask_dir": "masks",
        "mask_suffix": "",
        "num_classes": 3,
        "class_values": None,
        "ignored_values": [255],
        "max_pixels": 10**6,
        "on_error": "raise",
    }
    return image_masks(str(root), **(arguments | changes))


def filled(folder: Path, names: str = "a b c", suffix: str = "") -> None:
    for name in names.split():
        saved(folder / f"{name}{suffix}.png", CLASSES)


def test_image_and_mask_folders(tmp_path: Path):
    filled(tmp_path / "images")
    filled(tmp_path / "masks", "c a b d", "_seg")
    made = found(tmp_path, mask_suffix="_seg")
    assert [(one.name, other.name) for one, other in made.samples] == [
        ("a.png", "a_seg.png"),
        ("b.png", "b_seg.png"),
        ("c.png", "c_seg.png"),
    ]
    path, mask = made[1]
    assert path.name == "b.png"
    assert mask.tolist() == CLASSES.tolist()
    assert found(tmp_path, split="val", mask_suffix="_seg") is None


def test_images_and_masks_in_one_folder_and_unicode_names(tmp_path: Path):
    filled(tmp_path / "both", "a b a_mask b_mask")
    made = found(tmp_path, image_dir="both", mask_dir="both", mask_suffix="_mask")
    assert [(one.name, other.name) for one, other in made.samples] == [
        ("a.png", "a_mask.png"),
        ("b.png", "b_mask.png"),
    ]
    filled(tmp_path / "images", normalize("NFC", "é"))
    filled(tmp_path / "masks", normalize("NFD", "é"))
    assert len(found(tmp_path, mask_suffix=None, ignored_values=None)) == 1


@pytest.mark.parametrize("shape", ["{split}/{kind}", "{kind}/{split}"])
def test_splits(tmp_path: Path, shape: str):
    for split, names in (("train", "a b"), ("validation", "c")):
        for kind in ("images", "masks"):
            filled(tmp_path / shape.format(split=split, kind=kind), names)
    assert len(found(tmp_path)) == 2
    assert [path.name for path, _ in found(tmp_path, split="val").samples] == ["c.png"]
    assert found(tmp_path, split="test") is None


def test_camvid_layout(tmp_path: Path):
    for split, names in (("train", "a b"), ("test", "c")):
        filled(tmp_path / split, names)
        filled(tmp_path / f"{split}annot", names)
    layout = {"image_dir": "{split}", "mask_dir": "{split}annot"}
    assert len(found(tmp_path, **layout)) == 2
    assert len(found(tmp_path, split="test", **layout)) == 1
    assert found(tmp_path, split="val", **layout) is None


def test_images_without_masks_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    filled(tmp_path / "images", "a b c d")
    filled(tmp_path / "masks", "a c e")
    with pytest.raises(DataError) as caught:
        found(tmp_path)
    images = tmp_path / "images"
    assert str(caught.value) == (
        f"2 of 4 images have no mask of the same name in {tmp_path / 'masks'}: {images / 'b.png'}, {images / 'd.png'}\n"
        "That folder contains a.png, c.png, e.png. Fix that, type data.mask_suffix=... if the names "
        "of masks have a suffix (_mask), or type data.on_error=skip to skip "
        "such images and list them."
    )
    made = found(tmp_path, on_error="skip")
    assert len(made) == 4
    with pytest.raises(UnreadableFileError, match=r"masks/b\.png: there is no such file"):
        made[1]
    assert f"ignored 1 masks without an image in {tmp_path / 'masks'}: e.png" in caplog.text


def test_a_mask_without_the_suffix_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    filled(tmp_path / "images", "a b")
    filled(tmp_path / "masks", "a_mask b_mask a")
    assert len(found(tmp_path, mask_suffix="_mask")) == 2
    assert f"ignored 1 masks without an image in {tmp_path / 'masks'}: a.png" in caplog.text


def test_missing_folders_are_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"there is no folder .*nowhere: type data\.root="):
        found(tmp_path / "nowhere")
    filled(tmp_path / "image")
    filled(tmp_path / "label")
    with pytest.raises(
        DataError,
        match=r"has no folder images: its folders are image, label; type data\.image_dir=<name of the folder",
    ):
        found(tmp_path)
    with pytest.raises(
        DataError, match=r"has no folder masks: its folders are image, label; type data\.mask_dir="
    ):
        found(tmp_path, image_dir="image")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty contains no images"):
        found(tmp_path, image_dir="empty", mask_dir="label")


def test_an_invalid_mask_is_refused(tmp_path: Path):
    filled(tmp_path / "images")
    filled(tmp_path / "masks")
    (tmp_path / "masks" / "b.png").write_bytes(b"")
    with pytest.raises(UnreadableFileError) as caught:
        found(tmp_path)[1]
    assert caught.value.unreadable == (str(tmp_path / "masks" / "b.png"), "the file is empty")
    (tmp_path / "masks" / "b.png").write_text("is not an image")
    with pytest.raises(
        UnreadableFileError, match="it is not an image, or has an unsupported format"
    ):
        found(tmp_path)[1]
    with pytest.raises(UnreadableFileError, match=r"more than data\.max_pixels=3"):
        found(tmp_path, max_pixels=3)[0]
