"""Shards of other programs, which have no index."""

import os
from pathlib import Path

import pytest
import webdataset

from tests.data.shards.samples import photograph
from tests.data.shards.servers import FaultyProxy, serve_folder
from tests.data.shards.test_dataset import open_shards
from vision_lab.core.errors import DataError
from vision_lab.data.shards import storage
from vision_lab.data.shards.dataset import sharded_samples
from vision_lab.data.shards.external import find_shards
from vision_lab.data.shards.storage import Storage


def write_shard(path: Path, labels: list[int]) -> None:
    path.parent.mkdir(exist_ok=True)
    with webdataset.TarWriter(str(path)) as writer:
        for number, label in enumerate(labels):
            writer.write({"__key__": f"{number:06d}", "jpg": photograph(number), "cls": label})


def test_samples_of_webdataset_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("VISION_LAB_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "shards"
    write_shard(root / "train-000000.tar", [0, 1])
    write_shard(root / "train-000001.tar", [2])
    write_shard(root / "val-000000.tar", [1])
    dataset = open_shards(root)
    assert dataset.targets == [0, 1, 2]
    image, label = dataset[1]
    assert image.content == photograph(1)
    assert image.path == "000001.jpg"
    assert label == 1
    val = sharded_samples(str(root), split="val", target_type="labels", max_pixels=10**6)
    assert val is not None
    assert val.targets == [1]
    write_shard(root / "train-000002.tar", [2])  # the index is made again
    assert open_shards(root).targets == [0, 1, 2, 2]


def test_shards_of_an_address_are_read_once(s3: FaultyProxy, tmp_path: Path):
    write_shard(tmp_path / "shards" / "train-0.tar", [0, 1, 2])
    root = "s3://bucket/foreign"
    Storage(root).upload(tmp_path / "shards" / "train-0.tar", "train-0.tar")
    s3.requests.clear()
    assert open_shards(root).targets == [0, 1, 2]
    assert open_shards(root)[2][0].content == photograph(2)
    read = [request for request in s3.requests if request.startswith("GET /bucket/foreign/train")]
    assert len(read) == 2  # for the index, and as a copy


def test_tar_files_without_the_name_of_a_split_are_for_training(tmp_path: Path):
    for name in ("00000.tar", "00001.tar", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    found = find_shards(Storage(str(tmp_path)))
    assert {split: list(files) for split, files in found.items()} == {
        "train": ["00000.tar", "00001.tar"]
    }


def test_splits_are_words_of_names(tmp_path: Path):
    for name in ("cc-Train-0.tar", "contest.tar", "valid_0.tar", "cc-validation-1.tar", "test.tar"):
        (tmp_path / name).write_bytes(b"")
    found = find_shards(Storage(str(tmp_path)))
    assert {split: list(files) for split, files in found.items()} == {
        "train": ["cc-Train-0.tar"],
        "val": ["cc-validation-1.tar", "valid_0.tar"],
        "test": ["test.tar"],
    }


def test_an_unusual_name_is_named(tmp_path: Path):
    (tmp_path / "train (1).tar").write_bytes(b"")
    with pytest.raises(DataError, match=r"train \(1\)\.tar: rename it"):
        find_shards(Storage(str(tmp_path)))


def test_a_shard_of_the_same_size_with_other_labels_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("VISION_LAB_CACHE", str(tmp_path / "cache"))
    write_shard(tmp_path / "shards" / "train-0.tar", [0, 1])
    assert open_shards(tmp_path / "shards").targets == [0, 1]
    write_shard(tmp_path / "shards" / "train-0.tar", [1, 0])
    assert open_shards(tmp_path / "shards").targets == [1, 0]
    for table in (tmp_path / "cache" / "shards").glob("index-*/train.npz"):
        table.write_bytes(b"damaged")
    assert open_shards(tmp_path / "shards").targets == [1, 0]


def test_a_folder_without_shards_is_named(tmp_path: Path):
    (tmp_path / "val-0.tar").write_bytes(b"")
    with pytest.raises(DataError, match=r"has no shards: .*tar files there: val-0\.tar"):
        find_shards(Storage(str(tmp_path)))


def test_errors_name_the_address_and_not_its_copy(s3: FaultyProxy, tmp_path: Path):
    (tmp_path / "a.tar").write_bytes(b"damaged")
    Storage("s3://bucket/damaged").upload(tmp_path / "a.tar", "TRAIN.TAR")
    with pytest.raises(DataError, match=r"^s3://bucket/damaged/TRAIN\.TAR is not an intact tar"):
        open_shards("s3://bucket/damaged")


def test_shards_of_a_web_server_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("VISION_LAB_CACHE", str(tmp_path / "cache"))
    write_shard(tmp_path / "web" / "train-0.tar", [0, 1, 2])
    write_shard(tmp_path / "web" / "val-0.tar", [1])
    with serve_folder(tmp_path / "web") as address:
        assert open_shards(address).targets == [0, 1, 2]
        assert open_shards(address)[2][0].content == photograph(2)
    monkeypatch.setattr(storage, "INITIAL_BACKOFF_SECONDS", 0.01)
    with pytest.raises(
        DataError, match=r"index\.json cannot be reached after 5 attempts: .*onnect"
    ):
        open_shards(address)


def test_indices_are_those_of_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("VISION_LAB_CACHE", str(tmp_path / "cache"))
    for label in (0, 1):
        write_shard(tmp_path / str(label) / "train-0.tar", [label])
        os.utime(tmp_path / str(label) / "train-0.tar", (0, 0))
        monkeypatch.chdir(tmp_path / str(label))
        assert open_shards(".").targets == [label]
