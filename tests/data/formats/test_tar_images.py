"""Images in tar files."""

import pickle
import tarfile
from pathlib import Path

import pytest

from tests.data.shards.samples import photograph
from vision_lab.data.fingerprint import fingerprint
from vision_lab.data.formats import tar_images
from vision_lab.data.formats.tar_images import TarImages, list_images


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VISION_LAB_CACHE", str(tmp_path / "cache"))
    for number in range(3):
        (tmp_path / f"é{number}.jpg").write_bytes(photograph(number))
    (tmp_path / "notes.txt").write_text("no image")
    with tarfile.open(tmp_path / "images.tar", "w") as tar:
        for name in ("notes.txt", "é2.jpg", "é0.jpg", "é1.jpg"):
            tar.add(tmp_path / name, name)
    return tmp_path / "images.tar"


def test_headers_are_read_once_until_the_file_changes(file: Path, monkeypatch: pytest.MonkeyPatch):
    members = list_images(file)
    assert [member.name for member in members] == ["é0.jpg", "é1.jpg", "é2.jpg"]
    with monkeypatch.context() as patch:
        patch.setattr(tar_images, "_find_images", None)
        assert list_images(file) == members
    with tarfile.open(file, "a") as tar:
        tar.add(file.parent / "é0.jpg", "z.jpg")
    assert len(list_images(file)) == 4


def test_a_damaged_list_of_headers_is_made_again(file: Path):
    members = list_images(file)
    (kept,) = (file.parent / "cache" / "tar").iterdir()
    kept.write_bytes(b"damaged")
    assert list_images(file) == members


def test_images_are_read_in_other_processes(file: Path):
    dataset = TarImages(file, list_images(file), [0, 1, 2])
    assert dataset[1][0].content == photograph(1)
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy[2][0].content == photograph(2)
    assert fingerprint(copy, has_labels=True) == fingerprint(dataset, has_labels=True)
