"""Samples in shards are those that were packed."""

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from tests.builders import box_spec
from tests.data.shards.samples import Photographs, label_spec, mask_spec, pack_samples
from tests.data.shards.servers import FaultyProxy
from vision_lab.core.errors import (
    ConfigurationError,
    DataError,
    UnreadableFile,
    UnreadableFileError,
)
from vision_lab.data.cache import CacheSettings
from vision_lab.data.cache_folder import CacheFolder
from vision_lab.data.fingerprint import fingerprint
from vision_lab.data.image_io import read_image
from vision_lab.data.shards.dataset import ShardedDataset, sharded_samples
from vision_lab.data.shards.index import PLAN_FILENAME, read_table, write_index
from vision_lab.data.shards.spec import PackedSpec
from vision_lab.data.shards.storage import Storage

BOXES = {
    "boxes": np.array([[0.1, 2, 30.7, 20], [4, 5, 6, 7]], np.float32),
    "labels": np.array([3, 0]),
    "crowd": np.array([False, True]),
    "difficult": np.array([False, False]),
    "area": np.array([np.nan, 4.25], np.float32),
    "size": (24, 32),
    "relative": False,
}


def open_shards(root: Path | str, target_type: Any = "labels", **settings: Any) -> ShardedDataset:
    dataset = sharded_samples(
        str(root), split="train", target_type=target_type, max_pixels=10**6, **settings
    )
    assert dataset is not None
    return dataset


def test_images_and_labels_are_those_that_were_packed(tmp_path: Path):
    photographs = Photographs(tmp_path / "photos", [0, 1, 2, 0, 1, 2, 0, 1, 2, 0])
    index = pack_samples(photographs, Storage(str(tmp_path / "shards")), label_spec())
    assert [shard.samples for shard in index.shards["train"]] == [4, 4, 2]
    dataset = open_shards(tmp_path / "shards")
    assert len(dataset) == 10
    assert dataset.targets == photographs.targets
    assert dataset.shard_of.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]
    for number in (9, 0, 4):
        image, label = dataset[number]
        assert image.content == photographs.paths[number].read_bytes()
        assert image.path == f"image {number}.jpg"
        assert label == photographs.targets[number]


def test_masks_are_those_that_were_packed(tmp_path: Path):
    masks = [np.random.default_rng(seed).integers(0, 4, (24, 32)) for seed in range(5)]
    masks[0][3, 4] = 255  # ignored
    photographs = Photographs(tmp_path / "photos", masks)
    pack_samples(photographs, Storage(str(tmp_path / "shards")), mask_spec())
    dataset = open_shards(tmp_path / "shards", "masks")
    for number in range(5):
        assert np.array_equal(dataset[number][1], masks[number])


def test_boxes_are_those_that_were_packed(tmp_path: Path):
    empty = {"boxes": np.zeros((0, 4), np.float32), "labels": np.zeros(0, np.int64)}
    relative = {"boxes": [[0.1, 0.2, 0.3, 0.4]], "labels": [1], "relative": True}
    photographs = Photographs(tmp_path / "photos", [BOXES, empty, relative])
    pack_samples(photographs, Storage(str(tmp_path / "shards")), box_spec((24, 32)))
    dataset = open_shards(tmp_path / "shards", "boxes")
    _, target = dataset[0]
    for name, values in BOXES.items():
        assert np.array_equal(target[name], values, equal_nan=name == "area"), name
    assert dataset[1][1]["boxes"].shape == (0, 4)
    assert dataset[2][1]["relative"] is True
    assert dataset[2][1]["boxes"].tolist() == np.array([[0.1, 0.2, 0.3, 0.4]], np.float32).tolist()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_shards_at_an_address_are_copied_when_they_are_needed(
    s3: FaultyProxy, tmp_path: Path, num_workers: int
):
    photographs = Photographs(tmp_path / "photos", [0, 1, 2, 0, 1, 2, 0, 1])
    root = f"s3://bucket/copied{num_workers}"
    pack_samples(photographs, Storage(root), label_spec())
    dataset = open_shards(root)
    copies = tmp_path / "cache" / "shards"
    assert not list(copies.glob("*.tar"))
    assert dataset[5][1] == 2
    assert len(list(copies.glob("*.tar"))) == 1
    loader = DataLoader(dataset, batch_size=None, num_workers=num_workers, collate_fn=list)
    contents = [image.content for image, _ in loader]
    assert contents == [path.read_bytes() for path in photographs.paths]
    assert len(list(copies.glob("*.tar"))) == 2
    assert sum("000001.tar" in request for request in s3.requests if "GET" in request) == 1


def test_fingerprints_change_with_any_shard(tmp_path: Path):
    def make(name: str, seed: int) -> ShardedDataset:
        photographs = Photographs(tmp_path / f"{name} photos", [0, 1, 2, 0, 1])
        photographs.paths[4].write_bytes(photographs.paths[seed].read_bytes())
        pack_samples(photographs, Storage(str(tmp_path / name)), label_spec())
        return open_shards(tmp_path / name)

    first = fingerprint(make("first", 0), has_labels=True)
    assert fingerprint(make("same", 0), has_labels=True) == first
    assert fingerprint(make("other", 1), has_labels=True) != first


def test_a_shard_that_ends_early_or_is_missing_is_named(tmp_path: Path):
    photographs = Photographs(tmp_path / "photos", [0, 1, 2, 0, 1, 2])
    pack_samples(photographs, Storage(str(tmp_path / "shards")), label_spec())
    shard = tmp_path / "shards" / "train-000001.tar"
    shard.write_bytes(shard.read_bytes()[:-1000])
    dataset = open_shards(tmp_path / "shards")
    assert dataset[3][1] == 0
    with pytest.raises(DataError, match=r"train-000001\.tar has 9,240 bytes, but 10,240"):
        dataset[4]
    shard.unlink()
    with pytest.raises(DataError, match=r"train-000001\.tar cannot be read: No such file"):
        dataset[5]


def test_a_damaged_target_is_an_unreadable_file(tmp_path: Path):
    masks = [np.zeros((24, 32), np.uint8)] * 2
    photographs = Photographs(tmp_path / "photos", masks)
    pack_samples(photographs, Storage(str(tmp_path / "shards")), mask_spec())
    dataset = open_shards(tmp_path / "shards", "masks")
    start = int(dataset.table.columns["target_starts"][1])
    shard = tmp_path / "shards" / "train-000000.tar"
    content = bytearray(shard.read_bytes())
    content[start : start + 30] = b"x" * 30
    shard.write_bytes(content)
    assert dataset[0][1] is not None
    with pytest.raises(UnreadableFileError, match=r"image 1\.jpg: its mask cannot be read"):
        open_shards(tmp_path / "shards", "masks")[1]


def test_a_limit_below_the_shards_that_are_shuffled_together_is_refused(
    s3: FaultyProxy, tmp_path: Path
):
    photographs = Photographs(tmp_path / "photos", [0] * 16)
    pack_samples(photographs, Storage("s3://bucket/limit"), label_spec())
    with pytest.raises(ConfigurationError, match=r"type data\.shard_cache_limit=.* or more"):
        open_shards("s3://bucket/limit", cache_limit=25e-6, window=2, ahead=1)
    assert len(open_shards("s3://bucket/limit", cache_limit=65e-6, window=2, ahead=1)) == 16


def test_there_is_no_split_that_was_not_packed(tmp_path: Path):
    photographs = Photographs(tmp_path / "photos", [0, 1, 2])
    pack_samples(photographs, Storage(str(tmp_path / "shards")), label_spec())
    root = str(tmp_path / "shards")
    arguments: dict[str, Any] = {"target_type": "labels", "max_pixels": 10}
    assert sharded_samples(root, split="val", **arguments) is None


def test_shards_are_decoded_once_into_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("VISION_LAB_CACHE", str(tmp_path / "cache"))
    photographs = Photographs(tmp_path / "photos", [0, 1, 2, 0, 1])
    pack_samples(photographs, Storage(str(tmp_path / "shards")), label_spec())
    dataset = open_shards(tmp_path / "shards")
    caches = CacheFolder("disk", limit=10**9)
    settings = CacheSettings.from_spec(label_spec(), max_pixels=10**6)
    caches.ensure(dataset, settings, kind="labels", name="train", num_workers=0)
    cached = caches.open(dataset, settings, has_labels=True)
    for index, path in enumerate(photographs.paths):
        image, label = cached[index]
        assert torch.equal(image.pixels, read_image(path, channels=3))
        assert image.path == f"image {index}.jpg"
        assert label == photographs.targets[index]


def test_a_shard_of_the_same_size_with_other_content_is_found(tmp_path: Path):
    photographs = Photographs(tmp_path / "photos", [0, 1, 2, 0, 1, 2])
    pack_samples(photographs, Storage(str(tmp_path / "shards")), label_spec())
    dataset = open_shards(tmp_path / "shards")
    assert dataset.find_changed_files() == []
    shard = tmp_path / "shards" / "train-000001.tar"
    content = bytearray(shard.read_bytes())
    content[600] ^= 1
    shard.write_bytes(content)
    changed = UnreadableFile(str(shard), "has changed: pack the data again")
    assert dataset.find_changed_files() == [changed]


@pytest.mark.parametrize("target_type", ["labels", "masks", "boxes"])
def test_samples_without_targets_are_named_except_for_testing(tmp_path: Path, target_type: Any):
    photographs = Photographs(tmp_path / "photos", [None] * 3)
    storage = Storage(str(tmp_path / "shards"))
    index = pack_samples(photographs, storage, label_spec())
    with pytest.raises(DataError, match=rf"no sample of train has {target_type} in a"):
        open_shards(tmp_path / "shards", target_type)
    table = read_table(storage, index, "train")
    write_index(storage, {"test": table}, spec=index.spec, source={})
    arguments: dict[str, Any] = {"split": "test", "max_pixels": 10**6}
    root = str(tmp_path / "shards")
    assert sharded_samples(root, target_type=target_type, **arguments) is None
    assert len(sharded_samples(root, target_type="none", **arguments) or ()) == 3


def test_shards_whose_packing_has_not_ended_are_not_read(tmp_path: Path):
    photographs = Photographs(tmp_path / "photos", [0, 1, 2])
    storage = Storage(str(tmp_path / "shards"))
    pack_samples(photographs, storage, label_spec())
    storage.delete("index.json")
    storage.write(PLAN_FILENAME, b"plan")
    for read in (open_shards, PackedSpec):
        with pytest.raises(DataError, match="has shards whose packing has not ended: repeat the"):
            read(str(tmp_path / "shards"))


def test_a_shard_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*arguments: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    photographs = Photographs(tmp_path / "photos", [0, 1])
    pack_samples(photographs, Storage(str(tmp_path / "shards")), label_spec())
    monkeypatch.setattr("os.pread", fail)
    with pytest.raises(DataError, match=r"train-000000\.tar cannot be read: Input/output error"):
        open_shards(tmp_path / "shards")[0]
