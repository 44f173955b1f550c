"""torchvision's datasets with masks, in their own layouts."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vision_lab.core.errors import DataError
from vision_lab.data.formats.torchvision_masks import oxford_pet_masks, voc_masks


def image(path: Path, values: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 6, 3), dtype=np.uint8) if values is None else values).save(path)


def test_voc(tmp_path: Path):
    base = tmp_path / "VOCdevkit" / "VOC2012"
    for name in ("2007_000032", "2007_000039"):
        image(base / "JPEGImages" / f"{name}.jpg")
        image(
            base / "SegmentationClass" / f"{name}.png",
            np.full((4, 6), 20 if "32" in name else 255, dtype=np.uint8),
        )
    lists = base / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("2007_000032\n2007_000039\n")
    made = voc_masks(
        str(tmp_path), download=True, year="2012", split="train", num_classes=21, max_pixels=10**6
    )
    assert [path.name for path, _ in made.samples] == ["2007_000032.jpg", "2007_000039.jpg"]
    assert [int(made[index][1].max()) for index in (0, 1)] == [20, 255]


def test_oxford_pets(tmp_path: Path):
    base = tmp_path / "oxford-iiit-pet"
    image(base / "images" / "Abyssinian_1.jpg")
    image(
        base / "annotations" / "trimaps" / "Abyssinian_1.png", np.array([[1, 2, 3]], dtype=np.uint8)
    )
    (base / "annotations" / "trainval.txt").write_text("Abyssinian_1 1 1 1\n")
    made = oxford_pet_masks(str(tmp_path), download=True, split="trainval", max_pixels=10**6)
    assert len(made) == 1
    assert made[0][1].tolist() == [[1, 0, 255]]


def test_missing_data_is_reported_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def offline(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.voc.download_and_extract_archive", offline)
    monkeypatch.setattr(
        "torchvision.datasets.oxford_iiit_pet.download_and_extract_archive", offline
    )
    with pytest.raises(
        DataError,
        match=r"VOCSegmentation is missing or incomplete in .*cannot be downloaded: no network\nType data\.root=",
    ):
        voc_masks(
            str(tmp_path),
            download=True,
            year="2012",
            split="train",
            num_classes=21,
            max_pixels=10**6,
        )
    with pytest.raises(DataError, match=r"OxfordIIITPet is missing or incomplete in"):
        oxford_pet_masks(str(tmp_path), download=True, split="test", max_pixels=10**6)
