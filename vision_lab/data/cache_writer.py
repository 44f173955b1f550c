"""Caches of datasets: decoded and written."""

from __future__ import annotations

import io
import json
from collections.abc import Generator, Iterable
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from vision_lab.core import signals
from vision_lab.core.errors import DataError, UnreadableFileError
from vision_lab.core.protocols import Dataset
from vision_lab.data.cache import COLUMNS, NO_LABEL, CacheSettings, Kind, pack_end
from vision_lab.data.image_io import InvalidImageError, find_path, open_source, to_uint8_image
from vision_lab.data.targets import check_mask_size

GIGABYTE = 10**9


class Entry(NamedTuple):
    """What a worker has decoded."""

    path: str | None = None
    image: Tensor | None = None
    size: tuple[int, int] = (0, 0)
    """(height, width) of the original in pixels."""
    mask: Tensor | None = None
    label: int = NO_LABEL
    problem: str | None = None


def read_entries(
    dataset: Dataset,
    settings: CacheSettings,
    *,
    kind: Kind,
    num_workers: int,
) -> Generator[Entry, None, None]:
    """Decode the samples of a dataset in order; close it to end the workers early.

    Args:
        dataset: the dataset.
        settings: how to resize images.
        kind: which targets to read.
        num_workers: number of processes.
    """
    loader = DataLoader(
        _Reader(dataset, settings, kind),
        batch_size=None,
        num_workers=num_workers,
        collate_fn=_keep,
        worker_init_fn=_init_worker,
    )
    iterator = iter(loader)
    try:
        yield from iterator
    finally:
        del iterator  # ends the workers


def write_entries(
    file: IO[bytes],
    entries: Iterable[Entry],
    *,
    settings: CacheSettings,
    kind: Kind,
    key: str,
    limit: int,
) -> int:
    """Write a cache.

    Args:
        file: the file.
        entries: its samples, in the order of the dataset.
        settings: the settings of the cache.
        kind: which targets it contains.
        key: the key of the cache.
        limit: maximum size in bytes.

    Returns:
        The size in bytes.

    Raises:
        DataError: if the cache would be larger.
    """
    rows: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    paths: list[str | None] = []
    problems: dict[str, str] = {}
    position = 0
    for index, entry in enumerate(entries):
        paths.append(entry.path)
        if entry.problem is not None:
            problems[str(index)] = entry.problem
        rows["original_sizes"].append(entry.size)
        rows["labels"].append(entry.label)
        for name, pixels in (("image", entry.image), ("mask", entry.mask)):
            rows[f"{name}_starts"].append(position)
            rows[f"{name}_sizes"].append((0, 0) if pixels is None else tuple(pixels.shape[:2]))
            if pixels is not None:
                position += file.write(pixels.numpy().tobytes())
        if position > limit:
            raise DataError(
                f"after {index + 1:,} images the cache takes more than data.cache_limit="
                f"{limit / GIGABYTE:g} GB: type a larger one, or data.cache=null"
            )
    table = io.BytesIO()
    arrays: dict[str, Any] = {"key": key, "kind": kind, "channels": settings.channels}
    for name, values in rows.items():
        arrays[name] = np.asarray(values, dtype=np.int64)
    np.savez(table, paths=_encode(paths), problems=_encode(problems), **arrays)
    end = table.getvalue() + pack_end(position)
    file.write(end)
    return position + len(end)


class _Reader(torch.utils.data.Dataset[Entry]):
    """Reads the samples of a cache.

    Args:
        dataset: the dataset.
        settings: how to resize images.
        kind: which targets to read.
    """

    def __init__(
        self,
        dataset: Dataset,
        settings: CacheSettings,
        kind: Kind,
    ) -> None:
        self.dataset = dataset
        self.settings = settings
        self.kind = kind

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Entry:
        try:
            source, target = self.dataset[index]
        except UnreadableFileError as error:
            return Entry(error.unreadable.path, problem=error.unreadable.reason)
        path = find_path(source)
        try:
            image = self._decode(source)
            size = (image.shape[-2], image.shape[-1])
            new = self.settings.cached_size(size)
            mask = None
            if self.kind == "masks" and target is not None:
                mask = _resize_mask(target, size, new)
        except InvalidImageError as error:
            return Entry(path, problem=str(error))
        if new != size:
            image = F.resize(image, list(new), antialias=True)
        has_label = self.kind == "labels" and target is not None
        label = int(target) if has_label else NO_LABEL
        return Entry(path, image.permute(1, 2, 0).contiguous(), size, mask, label)

    def _decode(self, source: Any) -> Tensor:
        settings = self.settings
        file = open_source(source, max_pixels=settings.max_pixels)
        if file is not None:
            return file.decode(channels=settings.channels)
        return to_uint8_image(source, channels=settings.channels, max_pixels=settings.max_pixels)


def _resize_mask(
    target: Any,
    size: tuple[int, int],
    new: tuple[int, int],
) -> Tensor:
    """Resize a mask with its image.

    Args:
        target: the mask, (H, W).
        size: (height, width) of the image.
        new: the same after resizing.

    Returns:
        (height, width) uint8.

    Raises:
        InvalidImageError: if it has another size, or other values than 0 to 255.
    """
    mask = torch.as_tensor(np.asarray(target))
    check_mask_size(tuple(mask.shape), size)
    if mask.is_floating_point() or mask.min() < 0 or mask.max() > 255:
        raise InvalidImageError("its mask contains other values than 0 to 255")
    mask = mask.to(torch.uint8)
    if new != size:
        resized = F.resize(mask[None], list(new), interpolation=InterpolationMode.NEAREST)
        mask = resized[0]
    return mask.contiguous()


def _encode(content: Any) -> NDArray[np.uint8]:
    return np.frombuffer(json.dumps(content).encode(), dtype=np.uint8)


def _keep(entry: Any) -> Any:
    return entry


def _init_worker(_: int) -> None:
    signals.ignore_signals_in_worker()
