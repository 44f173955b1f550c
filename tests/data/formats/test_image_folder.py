"""``data=folder``: classes, splits and files."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from vision_lab.core.errors import DataError
from vision_lab.data.formats.image_folder import class_names, image_folder, unlabeled_images


def test_classes_are_the_sorted_subfolders(make_folder: Callable[..., Path]):
    root = make_folder(classes=("cedar", "ash", "beech"))
    (root / ".git").mkdir()
    assert class_names(str(root)) == ["ash", "beech", "cedar"]
    found = image_folder(str(root), split="train", class_folders=["ash", "beech", "cedar"])
    assert found is not None
    assert len(found) == 36
    path, label = found[13]
    assert path == root / "beech" / "001.png"
    assert label == 1
    assert image_folder(str(root), split="val", class_folders=["ash", "beech", "cedar"]) is None
    assert image_folder(str(root), split="test", class_folders=["ash", "beech", "cedar"]) is None


@pytest.mark.parametrize("val", ["val", "validation"])
def test_split_folders(make_folder: Callable[..., Path], val: str):
    make_folder("data/train", classes=("ash", "beech"), count=5)
    root = make_folder(f"data/{val}", classes=("ash", "beech"), count=2).parent
    assert class_names(str(root)) == ["ash", "beech"]
    sizes = {
        s: image_folder(str(root), split=s, class_folders=["ash", "beech"])
        for s in ("train", "val", "test")
    }
    assert {split: found and len(found) for split, found in sizes.items()} == {
        "train": 10,
        "val": 4,
        "test": None,
    }


def test_a_class_that_is_not_in_the_training_data(make_folder: Callable[..., Path]):
    make_folder("data/train", classes=("ash", "beech"), count=2)
    root = make_folder("data/val", classes=("ash", "elm"), count=2).parent
    with pytest.raises(
        DataError, match=r"val has folders for classes that train does not have: elm"
    ):
        image_folder(str(root), split="val", class_folders=["ash", "beech"])


def test_missing_keys_are_named(tmp_path: Path, make_folder: Callable[..., Path]):
    with pytest.raises(DataError, match=r"there is no folder .*nowhere: type data\.root="):
        class_names(str(tmp_path / "nowhere"))
    (tmp_path / "flat").mkdir()
    with pytest.raises(
        DataError, match="flat has no subfolders: data=folder requires one subfolder"
    ):
        class_names(str(tmp_path / "flat"))
    root = make_folder()
    (root / "empty").mkdir()
    with pytest.raises(DataError, match="empty contains no images"):
        image_folder(str(root), split="train", class_folders=class_names(str(root)))


def test_other_files_are_named_in_a_warning(
    make_folder: Callable[..., Path], caplog: pytest.LogCaptureFixture
):
    root = make_folder()
    (root / "ash" / "notes.txt").write_text("x")
    (root / "ash" / ".DS_Store").write_text("x")
    (root / "ash" / "UPPER.PNG").write_bytes((root / "ash" / "000.png").read_bytes())
    with caplog.at_level(logging.WARNING):
        found = image_folder(str(root), split="train", class_folders=class_names(str(root)))
    assert found is not None
    assert len(found) == 37
    assert "skipped 1 files without an image suffix: ash/notes.txt" in caplog.text


def test_unlabeled_images(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """In any folders, with or without splits."""
    for name in ("a/1.png", "2.jpg", "a/b/3.PNG", "notes.txt", ".hidden.png", ".thumbnails/4.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = unlabeled_images(str(tmp_path), split="train")
    assert found is not None
    assert [path.name for path in found.paths] == ["2.jpg", "1.png", "3.PNG"]
    assert found[0] == (tmp_path / "2.jpg", None)
    assert "skipped 1 files without an image suffix: notes.txt" in caplog.text
    assert unlabeled_images(str(tmp_path), split="val") is None
    for name in ("train/x/1.png", "valid/2.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    splits = {
        split: unlabeled_images(str(tmp_path), split=split) for split in ("train", "val", "test")
    }
    assert {split: len(found) if found else None for split, found in splits.items()} == {
        "train": 1,
        "val": 1,
        "test": None,
    }
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty contains no images"):
        unlabeled_images(str(tmp_path / "empty"), split="train")
