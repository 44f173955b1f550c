"""Small datasets, and their shards."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.builders import box_spec
from vision_lab.core.spec import DataSpec
from vision_lab.data.shards.index import ShardIndex, make_table, write_index
from vision_lab.data.shards.storage import Storage
from vision_lab.data.shards.writer import PackSettings, SplitWriter


class Photographs:
    """JPEG files of noise with targets of any type."""

    def __init__(self, folder: Path, targets: list[Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.targets = targets
        self.paths = [folder / f"image {index}.jpg" for index in range(len(targets))]
        for index, path in enumerate(self.paths):
            path.write_bytes(photograph(index))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Path, Any]:
        return self.paths[index], self.targets[index]

    @property
    def samples(self) -> list[tuple[Path, None]]:
        return [(path, None) for path in self.paths]


def photograph(seed: int, size: tuple[int, int] = (24, 32)) -> bytes:
    """Return a JPEG file."""
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG")
    return stream.getvalue()


def label_spec() -> DataSpec:
    return DataSpec(
        target_type="labels",
        class_names=("a", "b", "c"),
        num_classes=3,
        image_size=(16, 16),
        channels=3,
        mean=(0.5,),
        std=(0.25,),
    )


def mask_spec() -> DataSpec:
    spec = box_spec((24, 32))
    return DataSpec(**{**vars(spec), "target_type": "masks"})


SETTINGS = PackSettings(samples_per_shard=4, shuffle=False, shorter_side=None, max_pixels=10**6)


def pack_samples(
    dataset: Any, storage: Storage, spec: DataSpec, settings: PackSettings = SETTINGS
) -> ShardIndex:
    """Pack a dataset as the training split."""
    writer = SplitWriter(dataset, "train", spec, settings, storage=storage, key="key")
    written = list(writer.write_all(num_workers=0))
    table = make_table([item.shard for item in written], [item.rows for item in written])
    return write_index(storage, {"train": table}, spec=vars(spec), source={"made": "by a test"})
