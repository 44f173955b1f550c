"""A changed dataset has another fingerprint; a moved one has the same."""

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.data import Subset, TensorDataset

from vision_lab.data.bundled.scenes import Scenes
from vision_lab.data.fingerprint import fingerprint, get_labels
from vision_lab.data.formats.coco import CocoMaskDataset
from vision_lab.data.formats.image_folder import LabeledImages
from vision_lab.data.formats.image_masks import ImageMaskDataset, MaskEncoding


def labelled(root: Path) -> LabeledImages:
    paths = sorted(root.rglob("*.png"))
    return LabeledImages(
        paths, [sorted({p.parent for p in paths}).index(path.parent) for path in paths]
    )


def test_files(make_folder: Callable[..., Path], tmp_path: Path):
    root = make_folder()
    before = fingerprint(labelled(root), has_labels=True)
    assert before["count"] == 36
    assert set(before) == {"count", "labels", "files"}
    moved = Path(shutil.copytree(root, tmp_path / "moved"))
    assert fingerprint(labelled(moved), has_labels=True) == before
    image = moved / "beech" / "004.png"
    content = image.read_bytes()
    image.write_bytes(content + b"1")
    assert fingerprint(labelled(moved), has_labels=True) | {"files": before["files"]} == before
    assert fingerprint(labelled(moved), has_labels=True) != before
    image.unlink()
    assert fingerprint(labelled(moved), has_labels=True)["count"] == 35
    (moved / "beech" / "other.png").write_bytes(content)
    renamed = fingerprint(labelled(moved), has_labels=True)
    assert (renamed["count"], renamed["labels"]) == (before["count"], before["labels"])
    assert renamed["files"] != before["files"]


def test_images_in_memory(make_folder: Callable[..., Path]):
    dataset = TensorDataset(torch.zeros(4, 1, 2, 2), torch.tensor([0, 1, 1, 0]))
    found = fingerprint(dataset, has_labels=True)
    assert found["count"] == 4
    assert "files" not in found
    other = TensorDataset(torch.zeros(4, 1, 2, 2), torch.tensor([0, 1, 0, 1]))
    assert fingerprint(other, has_labels=True) != found
    assert get_labels(Subset(dataset, [1, 3])) == [1, 0]  # type: ignore[arg-type]


def test_targets_that_are_not_labels_are_refused():
    dataset = TensorDataset(torch.zeros(4, 1, 2, 2), torch.zeros(4, 2, 2))
    assert fingerprint(dataset, has_labels=False) == {"count": 4}  # type: ignore[arg-type]


def test_weights_from_a_file_or_torchs_cache(make_folder: Callable[..., Path]):
    from torchvision.datasets import ImageFolder

    root = make_folder()
    images = ImageFolder(root)  # yields decoded images, and says their files in `samples`
    assert fingerprint(images, has_labels=True) == fingerprint(labelled(root), has_labels=True)
    part = Subset(images, [0, 35])
    assert fingerprint(part, has_labels=True) == fingerprint(
        Subset(labelled(root), [0, 35]), has_labels=True
    )  # type: ignore[arg-type]
    assert (
        fingerprint(part, has_labels=True)["files"] != fingerprint(images, has_labels=True)["files"]
    )


def test_changed_masks_change_the_fingerprint(make_folder: Callable[..., Path]):
    """Masks are not opened; these files are invalid."""
    root = make_folder(classes=("images",), count=4)
    (root / "masks").mkdir()
    for path in sorted((root / "images").iterdir()):
        (root / "masks" / path.name).write_text("mask")
    samples = [(path, root / "masks" / path.name) for path in sorted((root / "images").iterdir())]
    before = fingerprint(ImageMaskDataset(samples, MaskEncoding(2), 100), has_labels=False)
    assert set(before) == {"count", "files"}
    (root / "masks" / "002.png").write_text("another")
    assert fingerprint(ImageMaskDataset(samples, MaskEncoding(2), 100), has_labels=False) != before


def test_annotations_and_ranges_are_described(tmp_path: Path):
    one, other = (
        CocoMaskDataset([(tmp_path / "a.png", words)], {}, tmp_path, 1) for words in (b"{}", b"[]")
    )
    assert (
        fingerprint(one, has_labels=False)["annotations"]
        != fingerprint(other, has_labels=False)["annotations"]
    )
    made = {
        seed: fingerprint(
            Scenes(split="val", num_images=3, image_size=(16, 16), label_set="all", seed=seed),
            has_labels=False,
        )
        for seed in (0, 1)
    }
    assert made[0]["count"] == 3
    assert made[0] != made[1]
    whole = Scenes(split="val", num_images=3, image_size=(16, 16), label_set="all", seed=0)
    assert fingerprint(Subset(whole, [0, 1, 2]), has_labels=False) == made[0]  # type: ignore[arg-type]


def test_subsets_of_samples_without_files_differ_by_their_indices():
    dataset = [(torch.zeros(1), 0), (torch.ones(1), 0), (torch.ones(1), 0)]
    first, second = (
        fingerprint(Subset(dataset, indices), has_labels=True) for indices in ([0, 1], [0, 2])
    )
    assert first["labels"] == second["labels"]
    assert first["indices"] != second["indices"]
