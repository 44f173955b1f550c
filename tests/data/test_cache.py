"""Caches of decoded images: equal samples, shared and damaged files, and what a run prints."""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.builders import Outcome
from vision_lab.core.errors import UnreadableFile
from vision_lab.core.machine import CACHE_VARIABLE
from vision_lab.core.spec import DataSpec
from vision_lab.data.cache import CachedDataset, CacheSettings, cache_key, cached_targets
from vision_lab.data.cache_folder import CacheFolder
from vision_lab.data.cache_writer import read_entries, write_entries
from vision_lab.data.transformed_dataset import TransformedDataset

Command = Callable[..., Outcome]

SIZES = [(12, 16), (16, 12), (40, 60), (90, 30)]
"""(height, width) of the images of each dataset."""


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "caches"))
    return tmp_path / "caches" / "images"


def spec(target_type: Any, size: int = 20) -> DataSpec:
    return DataSpec(
        target_type=target_type,
        class_names=("a", "b"),
        num_classes=2,
        image_size=(size, size),
        channels=3,
        mean=(0.5,),
        std=(0.25,),
    )


def write_images(folder: Path) -> list[Path]:
    folder.mkdir()
    random = np.random.default_rng(0)
    paths = []
    for number, size in enumerate(SIZES):
        path = folder / f"{number}.png"
        Image.fromarray(random.integers(0, 255, (*size, 3), dtype=np.uint8)).save(path)
        paths.append(path)
    return paths


def targets(target_type: str) -> list[Any]:
    if target_type == "labels":
        return [0, 1, 1, 0]
    if target_type == "masks":
        return [np.repeat([[0] * (w // 2) + [1] * (w - w // 2)], h, axis=0) for h, w in SIZES]
    return [{"boxes": [[1, 2, w / 2, h / 2]], "labels": [1]} for h, w in SIZES]


class Listed:
    """A dataset of (path, target) that counts how often it is read."""

    def __init__(self, samples: list[tuple[Path, Any]]) -> None:
        self.samples = [(path, None) for path, _ in samples]
        self.items = samples
        self.targets = [target for _, target in samples]
        self.reads = 0

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Path, Any]:
        self.reads += 1
        return self.items[index]


def cached(dataset: Any, data_spec: DataSpec, place: Any = "disk") -> CachedDataset:
    settings = CacheSettings.from_spec(data_spec, max_pixels=10**6)
    kind = cached_targets(data_spec)
    folder = CacheFolder(place, limit=10**9)
    folder.ensure(dataset, settings, kind=kind, name="train", num_workers=0)
    opened = folder.open(dataset, settings, has_labels=kind == "labels")
    folder.release()
    return opened


def read(dataset: Any, data_spec: DataSpec, index: int) -> tuple[torch.Tensor, Any, Any]:
    item = TransformedDataset(
        dataset,
        spec=data_spec,
        transforms=[],
        seed=0,
        label_map=None,
        max_pixels=10**6,
    )[0, index]
    assert not isinstance(item, UnreadableFile), item
    return item


@pytest.mark.parametrize("place", ["disk", "memory"])
@pytest.mark.parametrize("target_type", ["labels", "masks", "boxes"])
def test_samples_are_those_of_the_files(tmp_path: Path, target_type: str, place: str):
    """Bit for bit where the cache keeps the size; otherwise resized once more."""
    data_spec = spec(target_type)
    dataset = Listed(list(zip(write_images(tmp_path / "x"), targets(target_type), strict=True)))
    opened = cached(dataset, data_spec, place)
    dataset.reads = 0
    for index, size in enumerate(SIZES):
        image, target, sample = read(opened, data_spec, index)
        expected, expected_target, expected_sample = read(dataset, data_spec, index)
        assert sample == expected_sample
        assert sample.size == size
        if max(size) <= 30:
            assert torch.equal(image, expected)
        assert (image.float() - expected.float()).abs().mean() < 12
        if target_type == "boxes":
            assert torch.allclose(target.boxes, expected_target.boxes, atol=0.5)
            assert torch.equal(target.area, expected_target.area)
        elif target_type == "labels" or max(size) <= 30:
            assert torch.equal(target, expected_target)
        else:
            assert (target == expected_target).float().mean() > 0.9
    assert opened.targets == dataset.targets
    if target_type != "boxes":
        assert dataset.reads == len(SIZES)  # by the comparison only


def test_images_keep_a_margin_and_are_never_enlarged():
    settings = CacheSettings((20, 20), 3, letterbox=False, max_pixels=1)
    assert settings.cached_size((40, 60)) == (30, 45)
    assert settings.cached_size((90, 30)) == (90, 30)
    assert settings.cached_size((10, 10)) == (10, 10)
    boxed = CacheSettings((20, 20), 3, letterbox=True, max_pixels=1)
    assert boxed.cached_size((40, 60)) == (20, 30)
    assert boxed.cached_size((90, 30)) == (30, 10)


def test_a_cache_is_made_once_and_again_when_a_file_changes(
    tmp_path: Path, cache_folder: Path, capsys: pytest.CaptureFixture[str]
):
    paths = write_images(tmp_path / "x")
    dataset = Listed([(path, 0) for path in paths])
    cached(dataset, spec("labels"))
    assert "4 images of train" in capsys.readouterr().out
    cached(dataset, spec("labels"))
    assert capsys.readouterr().out == ""
    assert len(list(cache_folder.glob("*.images"))) == 1
    os.utime(paths[0], (1, 1))
    cached(dataset, spec("labels"))
    assert "4 images of train" in capsys.readouterr().out
    cached(dataset, spec("labels", size=24))
    assert len(list(cache_folder.glob("*.images"))) == 3


@pytest.mark.parametrize("damage", ["cut", "empty", "other", "table"])
def test_a_damaged_cache_is_made_again(
    tmp_path: Path, cache_folder: Path, damage: str, capsys: pytest.CaptureFixture[str]
):
    dataset = Listed([(path, 0) for path in write_images(tmp_path / "x")])
    before = read(cached(dataset, spec("labels")), spec("labels"), 2)[0]
    (file,) = cache_folder.glob("*.images")
    content = file.read_bytes()
    if damage == "table":
        changed = bytearray(content)
        changed[-400:-300] = bytes(100)
        file.write_bytes(changed)
    elif damage == "other":
        other = Listed([(path, 1) for path, _ in dataset.items])
        settings = CacheSettings.from_spec(spec("labels"), max_pixels=10**6)
        stream = io.BytesIO()
        entries = read_entries(other, settings, kind="labels", num_workers=0)
        write_entries(stream, entries, settings=settings, kind="labels", key="another", limit=10**9)
        file.write_bytes(stream.getvalue())
    else:
        file.write_bytes(content[:1000] if damage == "cut" else b"")
    capsys.readouterr()
    assert torch.equal(read(cached(dataset, spec("labels")), spec("labels"), 2)[0], before)
    assert "is made again: it " in capsys.readouterr().out
    assert file.read_bytes() == content


def test_unreadable_files_are_reported_as_without_a_cache(tmp_path: Path):
    paths = write_images(tmp_path / "x")
    paths[1].write_bytes(b"no image")
    dataset = Listed([(path, 0) for path in paths])
    items = []
    for source in (dataset, cached(dataset, spec("labels"))):
        read_from = TransformedDataset(
            source,
            spec=spec("labels"),
            transforms=[],
            seed=0,
            label_map=None,
            max_pixels=10**6,
        )
        items.append(read_from[0, 1])
    assert items[0] == items[1] == UnreadableFile(str(paths[1]), items[0].reason)


def test_a_mask_of_another_size_is_reported_as_without_a_cache(tmp_path: Path):
    paths = write_images(tmp_path / "x")
    dataset = Listed([(path, np.zeros((3, 3), dtype=np.uint8)) for path in paths])
    opened = cached(dataset, spec("masks"))
    item = TransformedDataset(
        opened, spec=spec("masks"), transforms=[], seed=0, label_map=None, max_pixels=10**6
    )[0, 0]
    assert isinstance(item, UnreadableFile)
    assert "its mask has 3 x 3 pixels, the image 16 x 12" in item.reason


def test_the_key_depends_on_what_targets_depend_on(tmp_path: Path):
    settings = CacheSettings.from_spec(spec("labels"), max_pixels=10**6)
    dataset = Listed([(path, 0) for path in write_images(tmp_path / "x")])
    keys = {cache_key(dataset, settings, has_labels=True)}
    for value in ("a", "b"):
        dataset.cache_key = value  # type: ignore[attr-defined]
        keys.add(cache_key(dataset, settings, has_labels=True))
    assert len(keys) == 3
