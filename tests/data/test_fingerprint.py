"""A data set that changes is told from the one before; one that moves is not."""

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.data import Subset, TensorDataset

from vision_lab.data.fingerprint import fingerprint, labels_of, paths_of
from vision_lab.data.folder import Labelled


def labelled(root: Path) -> Labelled:
    paths = sorted(root.rglob("*.png"))
    return Labelled(paths, [sorted({p.parent for p in paths}).index(path.parent) for path in paths])


def test_files(make_folder: Callable[..., Path], tmp_path: Path):
    root = make_folder()
    before = fingerprint(labelled(root))
    assert before["count"] == 36
    assert set(before) == {"count", "labels", "files"}
    moved = Path(shutil.copytree(root, tmp_path / "moved"))
    assert fingerprint(labelled(moved)) == before
    picture = moved / "beech" / "004.png"
    content = picture.read_bytes()
    picture.write_bytes(content + b"1")
    assert fingerprint(labelled(moved)) | {"files": before["files"]} == before
    assert fingerprint(labelled(moved)) != before
    picture.unlink()
    assert fingerprint(labelled(moved))["count"] == 35
    (moved / "beech" / "other.png").write_bytes(content)
    renamed = fingerprint(labelled(moved))
    assert (renamed["count"], renamed["labels"]) == (before["count"], before["labels"])
    assert renamed["files"] != before["files"]


def test_pictures_in_memory(make_folder: Callable[..., Path]):
    dataset = TensorDataset(torch.zeros(4, 1, 2, 2), torch.tensor([0, 1, 1, 0]))
    found = fingerprint(dataset)
    assert found["count"] == 4
    assert "files" not in found
    other = TensorDataset(torch.zeros(4, 1, 2, 2), torch.tensor([0, 1, 0, 1]))
    assert fingerprint(other) != found
    assert labels_of(Subset(dataset, [1, 3])) == [1, 0]  # type: ignore[arg-type]


def test_targets_that_are_no_labels():
    dataset = TensorDataset(torch.zeros(4, 1, 2, 2), torch.zeros(4, 2, 2))
    assert fingerprint(dataset, labelled=False) == {"count": 4}  # type: ignore[arg-type]


def test_files_of_a_part_and_of_torchvisions_folders(make_folder: Callable[..., Path]):
    from torchvision.datasets import ImageFolder

    root = make_folder()
    images = ImageFolder(root)  # yields decoded pictures, and says their files in `samples`
    assert paths_of(images) == [Path(path) for path, _ in images.samples]
    assert fingerprint(images) == fingerprint(labelled(root))
    part = Subset(labelled(root), [0, 35])  # type: ignore[arg-type]
    assert [path.name for path in paths_of(part)] == ["000.png", "011.png"]  # type: ignore[arg-type]
