"""Packing of a split."""

import errno
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.builders import box_spec
from tests.data.shards.samples import (
    SETTINGS,
    Photographs,
    label_spec,
    mask_spec,
    pack_samples,
    photograph,
)
from tests.data.shards.test_dataset import open_shards
from vision_lab.core.errors import DataError, UnreadableFile
from vision_lab.data.encoded_image import EncodedImage
from vision_lab.data.image_io import ImageFile, InvalidImageError
from vision_lab.data.shards import writer
from vision_lab.data.shards.storage import Storage
from vision_lab.data.shards.writer import (
    SampleEncoder,
    SplitWriter,
    WrittenShard,
    choose_samples_per_shard,
)


def write(dataset: object, folder: Path, num_workers: int = 0, **changes) -> list[WrittenShard]:
    settings = replace(SETTINGS, **changes)
    split = SplitWriter(
        dataset, "train", label_spec(), settings, storage=Storage(str(folder)), key="key"
    )
    return list(split.write_all(num_workers=num_workers))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.tar"))}


def test_processes_write_the_same_shards(tmp_path: Path):
    photographs = Photographs(tmp_path / "photos", [0, 1, 2] * 5)
    write(photographs, tmp_path / "one")
    write(photographs, tmp_path / "two", num_workers=2)
    assert len(contents(tmp_path / "one")) == 4
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_an_interrupted_command_writes_only_what_is_missing(tmp_path: Path):
    photographs = Photographs(tmp_path / "photos", [0, 1, 2] * 5)
    write(photographs, tmp_path / "shards")
    complete = contents(tmp_path / "shards")
    (tmp_path / "shards" / "train-000002.json").unlink()  # killed before it was noted
    damaged = tmp_path / "shards" / "train-000001.tar"
    damaged.write_bytes(damaged.read_bytes()[:100])
    again = write(photographs, tmp_path / "shards")
    assert [item.is_new for item in again] == [False, True, True, False]
    assert contents(tmp_path / "shards") == complete


def test_samples_are_shuffled_the_same_way_each_time(tmp_path: Path):
    photographs = Photographs(tmp_path / "photos", list(range(12)))
    first = [
        row.label for item in write(photographs, tmp_path / "a", shuffle=True) for row in item.rows
    ]
    second = [
        row.label for item in write(photographs, tmp_path / "b", shuffle=True) for row in item.rows
    ]
    assert first == second != list(range(12))
    assert sorted(first) == list(range(12))


def test_files_that_cannot_be_read_are_left_out_and_listed(tmp_path: Path):
    photographs = Photographs(tmp_path / "photos", [0, 1, 2, 0, 1])
    photographs.paths[1].write_bytes(b"")
    photographs.paths[3].unlink()
    first, second = write(photographs, tmp_path / "shards")
    assert [row.label for row in first.rows] == [0, 2]
    assert [row.label for row in second.rows] == [1]
    assert first.unreadable == [
        UnreadableFile(str(photographs.paths[1]), "the file is empty"),
        UnreadableFile(str(photographs.paths[3]), "there is no such file"),
    ]


@pytest.mark.parametrize("channels", [1, 3])
def test_images_that_are_no_files_are_packed_without_loss(tmp_path: Path, channels: int):
    generator = torch.Generator().manual_seed(0)
    images = [
        (torch.randint(0, 255, (channels, 9, 7), generator=generator, dtype=torch.uint8), 1)
        for _ in range(3)
    ]
    spec = replace(label_spec(), channels=channels)
    pack_samples(images, Storage(str(tmp_path)), spec)
    dataset = open_shards(tmp_path)
    for index, (image, _) in enumerate(images):
        file = ImageFile(dataset[index][0].content, max_pixels=1000)
        assert torch.equal(file.decode(channels=channels), image)
    assert dataset[2][0].path == "train-000000.tar sample 2"


def test_images_of_other_channels_are_refused():
    encoder = SampleEncoder(replace(label_spec(), channels=4), SETTINGS)
    with pytest.raises(InvalidImageError, match="it has 4 channels; files have 1 or 3"):
        encoder.encode("0", "", torch.zeros(4, 8, 8, dtype=torch.uint8), 0)


def test_larger_images_are_reduced_with_their_masks(tmp_path: Path):
    path = tmp_path / "a.jpg"
    path.write_bytes(photograph(0, (40, 80)))
    mask = np.zeros((40, 80), np.uint8)
    mask[:, 40:] = 3
    encoder = SampleEncoder(mask_spec(), replace(SETTINGS, shorter_side=20))
    sample = encoder.encode("0", "a.jpg", path, mask)
    with Image.open(io.BytesIO(sample.image)) as image:
        assert image.size == (40, 20)
        assert image.format == "JPEG"
    assert sample.target is not None
    with Image.open(io.BytesIO(sample.target)) as reduced:
        assert np.array_equal(np.asarray(reduced), mask[::2, ::2])
    kept = SampleEncoder(mask_spec(), replace(SETTINGS, shorter_side=40))
    assert kept.encode("0", "a.jpg", path, mask).image == path.read_bytes()


def test_larger_images_are_reduced_with_their_boxes(tmp_path: Path):
    image = torch.zeros(3, 40, 80, dtype=torch.uint8)
    target = {
        "boxes": [[8, 4, 80, 40]],
        "labels": [1],
        "area": [100.0],
        "size": (40, 80),
    }
    storage = Storage(str(tmp_path))
    settings = replace(SETTINGS, shorter_side=10)
    relative = {"boxes": [[0.1, 0.1, 0.5, 0.5]], "labels": [1], "relative": True}
    pack_samples([(image, target), (image, relative)], storage, box_spec((8, 8)), settings)
    dataset = open_shards(tmp_path, "boxes")
    reduced = dataset[0][1]
    assert reduced["boxes"].tolist() == [[2, 1, 20, 10]]
    assert reduced["size"] == (10, 20)
    assert reduced["area"].tolist() == [100 / 16]
    assert dataset[1][1]["boxes"].tolist() == [pytest.approx([0.1, 0.1, 0.5, 0.5])]


def test_shards_have_about_a_hundred_megabytes():
    noise = torch.randint(0, 255, (1, 500, 500), dtype=torch.uint8)
    spec = replace(label_spec(), channels=1)
    number = choose_samples_per_shard([(noise, 0)] * 5, SampleEncoder(spec, SETTINGS))
    assert 350 < number < 400  # PNG files of 250 kB and more
    reduced = SampleEncoder(spec, replace(SETTINGS, shorter_side=250))
    assert choose_samples_per_shard([(noise, 0)] * 5, reduced) > 1000


def test_files_that_are_no_images_are_left_out_and_listed(tmp_path: Path):
    photographs = Photographs(tmp_path / "photos", [0, 1, 2])
    garbage = tmp_path / "photos" / "garbage.png"
    garbage.write_bytes(b"garbage")
    photographs.paths[0] = garbage
    photographs.paths[2].write_bytes(photographs.paths[2].read_bytes()[:300])
    (shard,) = write(photographs, tmp_path / "shards")
    assert [row.label for row in shard.rows] == [1]
    assert [file.path for file in shard.unreadable] == [str(garbage), str(photographs.paths[2])]
    garbage.write_bytes(photograph(9))  # repaired
    (again,) = write(photographs, tmp_path / "shards")
    assert again.is_new
    assert [row.label for row in again.rows] == [0, 1]


def test_targets_of_another_size_are_refused():
    image = torch.zeros(3, 40, 80, dtype=torch.uint8)
    masks = SampleEncoder(mask_spec(), replace(SETTINGS, shorter_side=20))
    with pytest.raises(InvalidImageError, match="mask"):
        masks.encode("0", "", image, np.zeros((80, 40), np.uint8))
    boxes = SampleEncoder(box_spec((8, 8)), replace(SETTINGS, shorter_side=20))
    with pytest.raises(InvalidImageError, match="its annotation is for 40 x 80 pixels"):
        boxes.encode("0", "", image, {"boxes": [], "labels": [], "size": (80, 40)})


def test_files_without_the_extension_of_an_image_have_that_of_their_format():
    encoder = SampleEncoder(label_spec(), SETTINGS)
    source = EncodedImage(photograph(0), "train-0.parquet row 1")
    assert encoder.encode("0", "", source, 1).extension == "jpeg"


def test_reduced_masks_have_no_values_in_between():
    image = torch.zeros(3, 50, 70, dtype=torch.uint8)
    mask = np.zeros((50, 70), np.uint8)
    mask[:, 33:] = 2
    mask[20] = 255
    encoder = SampleEncoder(mask_spec(), replace(SETTINGS, shorter_side=37))
    sample = encoder.encode("0", "", image, mask)
    assert sample.target is not None
    with Image.open(io.BytesIO(sample.target)) as reduced:
        assert set(np.unique(np.asarray(reduced)).tolist()) == {0, 2, 255}


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writer, "write_shard", fail)
    photographs = Photographs(tmp_path / "photos", [0, 1])
    with pytest.raises(DataError, match=r"train-000000\.tar cannot be made in .*: set TMPDIR"):
        write(photographs, tmp_path / "shards")
    assert not list((tmp_path / "shards").glob("*"))
