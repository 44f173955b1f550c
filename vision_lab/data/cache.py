"""Decoded images of a dataset in one file, which is read instead of decoding them in each epoch.

A file contains the pixels of all images one after another, as uint8, those of masks likewise, and
at its end a table of where each one starts. It is mapped into memory, so that all processes of a
machine share it, and written under another name until it is complete.
"""

from __future__ import annotations

import io
import json
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from math import ceil
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vision_lab.core.batch import letterbox_size
from vision_lab.core.errors import UnreadableFileError
from vision_lab.core.protocols import Dataset
from vision_lab.core.spec import DataSpec
from vision_lab.core.text import first_line
from vision_lab.data.fingerprint import fingerprint, get_samples

VERSION = 1
"""Version of the file format; files of others are made again."""

MARGIN = 1.5
"""Pixels of a cached image per pixel of the image that the network receives, for random crops."""

_END = struct.Struct("<Q8s")
"""The last bytes of a file: where its table starts, and ``_MAGIC``."""

_MAGIC = b"vl-cache"

NO_LABEL = -(2**63)
"""Label in a cache of a sample whose label is unknown."""

COLUMNS = (
    "image_starts",
    "image_sizes",
    "original_sizes",
    "labels",
    "mask_starts",
    "mask_sizes",
)
"""Integers of each sample in the table of a cache."""

Kind = Literal["labels", "masks", "none"]
"""Which targets a cache contains; all others come from the dataset."""


class CacheError(Exception):
    """A file that is no complete cache of the dataset; the message gives the reason."""


@dataclass(frozen=True)
class CacheSettings:
    """What the pixels of a cache depend on, besides the dataset.

    Attributes:
        image_size: (height, width) of the images that the network receives.
        channels: number of channels.
        letterbox: whether images are resized with their aspect ratio, into ``image_size``.
        max_pixels: images with more pixels are not decoded.
    """

    image_size: tuple[int, int]
    channels: int
    letterbox: bool
    max_pixels: int

    @classmethod
    def from_spec(cls, spec: DataSpec, *, max_pixels: int) -> CacheSettings:
        """Derive the settings from the spec of the data.

        Args:
            spec: the spec.
            max_pixels: images with more pixels are not decoded.
        """
        return cls(spec.image_size, spec.channels, spec.target_type == "boxes", max_pixels)

    def cached_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the (height, width) of a cached image; images are never enlarged.

        Args:
            size: (height, width) of the original.
        """
        height, width = (ceil(MARGIN * length) for length in self.image_size)
        if self.letterbox:
            new = letterbox_size(size, (height, width))
        else:  # the shorter side decides, because a crop may take any part of the longer one
            scale = max(height / size[0], width / size[1])
            new = (ceil(scale * size[0]), ceil(scale * size[1]))
        return new if new[0] < size[0] else size


def cached_targets(spec: DataSpec) -> Kind:
    """Return which targets the cache of data contains."""
    if spec.target_type == "labels" or spec.target_type == "masks":
        return spec.target_type
    return "none"


class CachedImage(NamedTuple):
    """An image of a cache."""

    pixels: Tensor
    """(C, H, W) uint8."""
    size: tuple[int, int]
    """(height, width) of the original in pixels."""
    path: str | None


class CachedDataset:
    """A dataset whose images, labels and masks come from a cache.

    Boxes come from the dataset itself, which has them in memory.

    Args:
        dataset: the dataset that was cached.
        file: the cache.
        key: key of the cache, see ``cache_key``.

    Raises:
        CacheError: if the file is no complete cache with this key.
    """

    def __init__(self, dataset: Dataset, file: Path, *, key: str) -> None:
        self.dataset = dataset
        self.file = file
        self._table = read_table(file, key=key, count=len(dataset))
        self._paths: list[str | None] = json.loads(bytes(self._table["paths"]))
        self._problems: dict[str, str] = json.loads(bytes(self._table["problems"]))
        self._bytes = _map_file(file)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "dataset":  # not yet there while it is unpickled
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(vars(self))
        del state["_bytes"]  # spawned workers map the file themselves
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._bytes = _map_file(self.file)

    @property
    def samples(self) -> Sequence[tuple[Any, Any]] | None:
        """The (path, target) of each sample; None if the images are not files."""
        samples = get_samples(self.dataset)
        if samples is None and self._paths and self._paths[0] is not None:
            return [(Path(str(path)), None) for path in self._paths]
        return samples

    def __getitem__(self, index: int) -> tuple[CachedImage, Any]:
        problem = self._problems.get(str(index))
        path = self._paths[index]
        if problem is not None:
            raise UnreadableFileError(path or f"sample {index}", problem)
        height, width = self._table["image_sizes"][index].tolist()
        original = self._table["original_sizes"][index].tolist()
        channels = int(self._table["channels"])
        start = int(self._table["image_starts"][index])
        pixels = self._read(start, (height, width, channels)).permute(2, 0, 1)
        return CachedImage(pixels, (original[0], original[1]), path), self._target(index)

    def _target(self, index: int) -> Any:
        kind = str(self._table["kind"])
        if kind == "labels":
            label = int(self._table["labels"][index])
            return None if label == NO_LABEL else label
        if kind == "masks":
            height, width = self._table["mask_sizes"][index].tolist()
            if height == 0:
                return None
            return self._read(int(self._table["mask_starts"][index]), (height, width))
        return self.dataset[index][1]

    def _read(self, start: int, shape: tuple[int, ...]) -> Tensor:
        count = int(np.prod(shape))
        pixels = self._bytes[start : start + count]
        return torch.from_numpy(np.array(pixels)).view(shape)


def cache_key(dataset: Dataset, settings: CacheSettings, *, has_labels: bool) -> str:
    """Hash everything that a cache depends on, 32 hexadecimal digits.

    These are the fingerprint of the dataset, the time at which each of its files was changed, the
    settings, and the attribute ``cache_key`` of a dataset whose targets depend on more than that.

    Args:
        dataset: the dataset.
        settings: the settings.
        has_labels: whether targets are class labels.
    """
    content = {
        "version": VERSION,
        "margin": MARGIN,
        "fingerprint": fingerprint(dataset, has_labels=has_labels),
        "settings": repr(settings),
        "dataset": repr(getattr(dataset, "cache_key", None)),
    }
    digest = blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16)
    for sample in get_samples(dataset) or ():
        for part in sample:
            if isinstance(part, str | Path):
                digest.update(_describe_file(part))
    return digest.hexdigest()


def _map_file(file: Path) -> NDArray[np.uint8]:
    return np.memmap(file, dtype=np.uint8, mode="r")


def pack_end(start: int) -> bytes:
    """Return the last bytes of a cache.

    Args:
        start: where its table starts.
    """
    return _END.pack(start, _MAGIC)


def read_table(file: Path, *, key: str, count: int) -> Mapping[str, Any]:
    """Read and check the table of a cache.

    Args:
        file: the cache.
        key: the key it must have.
        count: number of samples it must have.

    Raises:
        CacheError: if it is incomplete, damaged, or a cache of other data.
    """
    try:
        with file.open("rb") as stream:
            size = stream.seek(-_END.size, os.SEEK_END) + _END.size
            start, magic = _END.unpack(stream.read(_END.size))
            if magic != _MAGIC or start > size - _END.size:
                raise CacheError("it is incomplete")
            stream.seek(start)
            content = io.BytesIO(stream.read(size - _END.size - start))
        with np.load(content, allow_pickle=False) as arrays:
            table = {name: arrays[name] for name in arrays.files}
        _check_table(table, key=key, count=count, end=start)
    except CacheError:
        raise
    except Exception as error:  # numpy raises any exception for a damaged file
        raise CacheError(f"it cannot be read: {first_line(error)}") from error
    return table


def _check_table(
    table: Mapping[str, Any],
    *,
    key: str,
    count: int,
    end: int,
) -> None:
    if str(table["key"]) != key:
        raise CacheError("it is a cache of other data")
    if any(len(table[name]) != count or table[name].dtype != np.int64 for name in COLUMNS):
        raise CacheError(f"it has no table of {count:,} samples")
    channels = int(table["channels"])
    for starts, sizes, depth in (
        (table["image_starts"], table["image_sizes"], channels),
        (table["mask_starts"], table["mask_sizes"], 1),
    ):
        is_inside = (starts >= 0) & (starts + sizes.prod(axis=1) * depth <= end)
        if not (is_inside.all() and (sizes >= 0).all()):
            raise CacheError("its table does not fit its pixels")


def _describe_file(path: str | Path) -> bytes:
    """Return the path of a file with its size and the time of its last change."""
    try:
        status = Path(path).stat()
    except OSError:
        return f"{path}:missing\n".encode(errors="surrogateescape")
    text = f"{path}:{status.st_size}:{status.st_mtime_ns}\n"
    return text.encode(errors="surrogateescape")
