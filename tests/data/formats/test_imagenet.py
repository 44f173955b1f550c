"""ImageNet in the layouts that people have."""

import gzip
import io
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from tests.data.shards.samples import photograph
from vision_lab.core.errors import ConfigurationError, DataError
from vision_lab.data.encoded_image import EncodedImage
from vision_lab.data.formats import imagenet

IDS = ["n01440764", "n01443537", "n02123394"]

VAL_LABELS = [2, 0, 1, 2, 0]
"""Labels of the validation images, in order of their names."""

NUMBERS = {"n01440764": 7, "n01443537": 3, "n02123394": 9}
"""Numbers of the classes in the devkit, which are in another order."""


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISION_LAB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with train/ and a flat val/, without the classes of the latter."""
    root = tmp_path / "imagenet"
    for label, name in enumerate(IDS):
        folder = root / "train" / name
        folder.mkdir(parents=True)
        for number in range(2):
            (folder / f"{name}_{number}.JPEG").write_bytes(photograph(10 * label + number))
    (root / "val").mkdir()
    for number in range(len(VAL_LABELS)):
        name = f"ILSVRC2012_val_{number + 1:08d}.JPEG"
        (root / "val" / name).write_bytes(photograph(100 + number))
    return root


def images(root: Path, split: Any) -> Any:
    return imagenet.labeled_images(str(root), split=split, class_folders=IDS)


def stem(number: int) -> str:
    return f"ILSVRC2012_val_{number + 1:08d}"


def write_kaggle(root: Path) -> None:
    lines = ["ImageId,PredictionString"]
    for number in (3, 1, 0, 4, 2):
        lines.append(f"{stem(number)},{IDS[VAL_LABELS[number]]} 1 2 30 40 {IDS[0]} 5 6 7 8 ")
    (root / "LOC_val_solution.csv").write_text("\n".join(lines) + "\n")


def write_list(root: Path) -> None:
    lines = [f"{stem(number)}.JPEG {VAL_LABELS[number]}" for number in (4, 3, 2, 1, 0)]
    (root / "val.txt").write_text("\n".join(lines) + "\n\n")


def write_ids(root: Path) -> None:
    lines = [f"val/{stem(number)}.JPEG {IDS[label]}" for number, label in enumerate(VAL_LABELS)]
    (root / "val.txt").write_text("\n".join(lines))


def write_devkit(root: Path) -> None:
    data = root / "ILSVRC2012_devkit_t12" / "data"
    data.mkdir(parents=True)
    rows = [(number, name) for name, number in NUMBERS.items()]
    synsets = np.array(rows, dtype=[("ILSVRC2012_ID", "O"), ("WNID", "O")])
    savemat(data / "meta.mat", {"synsets": synsets})
    numbers = [str(NUMBERS[IDS[label]]) for label in VAL_LABELS]
    (data / "ILSVRC2012_validation_ground_truth.txt").write_text("\n".join(numbers) + "\n")


def write_devkit_tar(root: Path) -> None:
    write_devkit(root)
    with tarfile.open(root / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as tar:
        tar.add(root / "ILSVRC2012_devkit_t12", "./ILSVRC2012_devkit_t12")
    shutil.rmtree(root / "ILSVRC2012_devkit_t12")


def pack(root: Path) -> None:
    """Replace the folders by the official tar files."""
    with tarfile.open(root / "ILSVRC2012_img_train.tar", "w") as outer:
        for name in IDS:
            stream = io.BytesIO()
            with tarfile.open(fileobj=stream, mode="w") as inner:
                for path in sorted((root / "train" / name).iterdir()):
                    inner.add(path, path.name)
            info = tarfile.TarInfo(f"{name}.tar")
            info.size = len(stream.getvalue())
            outer.addfile(info, io.BytesIO(stream.getvalue()))
    with tarfile.open(root / "ILSVRC2012_img_val.tar", "w") as tar:
        for path in sorted((root / "val").iterdir(), reverse=True):
            tar.add(path, path.name)
    shutil.rmtree(root / "train")
    shutil.rmtree(root / "val")


TRUTHS = pytest.mark.parametrize(
    "write", [write_kaggle, write_list, write_ids, write_devkit, write_devkit_tar]
)


@TRUTHS
def test_classes_of_a_flat_folder_are_found(root: Path, write: Any):
    write(root)
    val = images(root, "val")
    assert val.targets == VAL_LABELS
    assert [path.stem for path in val.paths] == [stem(number) for number in range(5)]
    assert images(root, "train").targets == [0, 0, 1, 1, 2, 2]
    assert images(root, "test") is None


@TRUTHS
def test_the_official_tar_files_are_read_as_they_are(root: Path, write: Any):
    write(root)
    train_files = [path.read_bytes() for path in sorted((root / "train").rglob("*.JPEG"))]
    val_files = [path.read_bytes() for path in sorted((root / "val").iterdir())]
    pack(root)
    assert imagenet.class_folders(str(root), 3) == IDS
    train, val = images(root, "train"), images(root, "val")
    assert train.targets == [0, 0, 1, 1, 2, 2]
    assert [train[index][0].content for index in range(6)] == train_files
    assert train[3][0].path == "ILSVRC2012_img_train.tar/n01443537/n01443537_1.JPEG"
    assert val.targets == VAL_LABELS
    assert val[1] == (EncodedImage(val_files[1], f"ILSVRC2012_img_val.tar/{stem(1)}.JPEG"), 0)


def test_the_download_of_kaggle_is_read(root: Path):
    write_kaggle(root)
    data = root / "ILSVRC" / "Data" / "CLS-LOC"
    data.mkdir(parents=True)
    (root / "train").rename(data / "train")
    (root / "val").rename(data / "val")
    (data / "test").mkdir()
    assert imagenet.class_folders(str(root), 3) == IDS
    assert images(root, "train").targets == [0, 0, 1, 1, 2, 2]
    assert images(root, "val").targets == VAL_LABELS
    assert images(root, "test") is None


def test_validation_images_in_class_folders_are_read(root: Path):
    for number, label in enumerate(VAL_LABELS):
        folder = root / "val" / IDS[label]
        folder.mkdir(exist_ok=True)
        (root / "val" / f"{stem(number)}.JPEG").rename(folder / f"{stem(number)}.JPEG")
    assert sorted(images(root, "val").targets) == sorted(VAL_LABELS)


def test_validation_images_in_two_layouts_are_named(root: Path):
    (root / "val" / "notes").mkdir()
    write_list(root)
    assert len(images(root, "val")) == 5
    (root / "val" / IDS[0]).mkdir()
    with pytest.raises(DataError, match="has images beside folders of classes: move all"):
        images(root, "val")


def test_without_classes_of_validation_images_it_is_said_what_to_put_where(root: Path):
    with pytest.raises(DataError, match=r"the classes of the 5 validation images, .*put LOC_val"):
        images(root, "val")


def test_another_number_of_classes_is_named(root: Path):
    with pytest.raises(DataError, match=r"has 3 classes, not 1000: .*data\.spec\.class_names"):
        imagenet.class_folders(str(root), 1000)


def test_a_folder_without_images_is_named(tmp_path: Path):
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match=r"has no training images, but other: type data.root="):
        imagenet.class_folders(str(tmp_path), 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("ILSVRC2012_val_00000001.JPEG 3", "line 1 has the label '3': each line must have"),
        ("ILSVRC2012_val_00000001.JPEG -1", "line 1 has the label '-1'"),
        ("0", "line 1 has the label"),
        ("\nILSVRC2012_val_00000001.JPEG n99999999", "line 2 has the label 'n99999999'"),
        ("ILSVRC2012_val_00000001.JPEG 0", "does not have the classes of 4 of 5 images: ILSVRC"),
    ],
)
def test_an_invalid_list_is_named(root: Path, content: str, message: str):
    (root / "val.txt").write_text(content)
    with pytest.raises(DataError, match=message):
        images(root, "val")


def test_a_kaggle_file_with_other_classes_is_named(root: Path):
    text = f"ImageId,PredictionString\n{stem(0)},n00000000 1 2 3 4\n"
    (root / "LOC_val_solution.csv").write_text(text)
    with pytest.raises(DataError, match="line 2 has the class 'n00000000', unlike train"):
        images(root, "val")


def test_a_devkit_that_does_not_fit_is_named(root: Path):
    write_devkit(root)
    (root / "val" / f"{stem(0)}.JPEG").unlink()
    with pytest.raises(DataError, match="has the classes of 5 images, but there are 4"):
        images(root, "val")
    meta = root / "ILSVRC2012_devkit_t12" / "data" / "meta.mat"
    meta.write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"data/meta\.mat cannot be read"):
        images(root, "val")


@pytest.mark.parametrize("content", [b"damaged", gzip.compress(b"no tar", mtime=0), b""])
def test_a_damaged_devkit_is_named(root: Path, content: bytes):
    (root / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(content)
    with pytest.raises(DataError, match="is not ImageNet's devkit"):
        images(root, "val")


def test_a_devkit_that_would_fill_the_memory_is_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch
):
    write_devkit(root)
    synsets = np.array([(1, "n" * 100_000)], dtype=[("ILSVRC2012_ID", "O"), ("WNID", "O")])
    meta = root / "ILSVRC2012_devkit_t12" / "data" / "meta.mat"
    savemat(meta, {"synsets": synsets}, do_compression=True)
    monkeypatch.setattr(imagenet, "MAX_BYTES", 20_000)
    with pytest.raises(DataError, match=r"meta\.mat cannot be read: a variable has more than"):
        images(root, "val")
    shutil.rmtree(root / "ILSVRC2012_devkit_t12")
    (root / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(gzip.compress(bytes(20_001)))
    with pytest.raises(DataError, match="is not ImageNet's devkit: it has more than 20,000"):
        images(root, "val")


def test_a_missing_package_is_named(root: Path, monkeypatch: pytest.MonkeyPatch):
    write_devkit(root)
    monkeypatch.setitem(__import__("sys").modules, "scipy.io", None)
    with pytest.raises(ConfigurationError, match=r"requires SciPy: type pip install scipy, or put"):
        images(root, "val")


def test_a_damaged_tar_file_is_named(root: Path):
    pack(root)
    file = root / "ILSVRC2012_img_train.tar"
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"ILSVRC2012_img_train\.tar is not an intact tar file"):
        images(root, "train")
