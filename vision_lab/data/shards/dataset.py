"""``data=webdataset``: samples in shards, in a folder or at an address."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from vision_lab.core.arguments import Count, Positive, Range
from vision_lab.core.errors import (
    ConfigurationError,
    DataError,
    UnreadableFile,
    UnreadableFileError,
)
from vision_lab.core.spec import UNKNOWN_LABEL
from vision_lab.core.text import format_si
from vision_lab.data.cache_writer import GIGABYTE
from vision_lab.data.encoded_image import EncodedImage
from vision_lab.data.image_io import InvalidImageError
from vision_lab.data.shards.cache import ShardCache
from vision_lab.data.shards.external import index_external_shards
from vision_lab.data.shards.index import (
    Shard,
    SplitTable,
    read_index,
    read_table,
    reject_unfinished,
)
from vision_lab.data.shards.prefetch import Prefetcher
from vision_lab.data.shards.reader import ShardReader
from vision_lab.data.shards.storage import Storage, digest_file
from vision_lab.data.shards.tar_file import TARGET_EXTENSIONS
from vision_lab.data.shards.targets import decode_boxes, decode_mask

log = logging.getLogger(__name__)


class ShardedDataset:
    """A map-style dataset of (image file, target) in shards.

    Args:
        table: the samples.
        reader: reads parts of shards.
        target_type: type of the targets.
        window: number of shards whose samples are shuffled together.
        max_pixels: masks with more pixels are not decoded.
        prefetcher: copies shards before they are needed; None for shards in a folder.
    """

    def __init__(
        self,
        table: SplitTable,
        reader: ShardReader,
        *,
        target_type: str,
        window: int,
        max_pixels: int,
        prefetcher: Prefetcher | None,
    ) -> None:
        self.table = table
        self.reader = reader
        self.target_type = target_type
        self.window = window
        self.max_pixels = max_pixels
        self.prefetcher = prefetcher

    def __len__(self) -> int:
        return len(self.table)

    @property
    def shard_of(self) -> NDArray[np.int64]:
        """(n,) index of the shard of each sample."""
        return self.table.columns["shards"]

    @property
    def targets(self) -> list[int]:
        """The label of each sample."""
        labels: list[int] = self.table.columns["labels"].tolist()
        return labels

    @property
    def config_key(self) -> list[str]:
        """The digests of all shards, for fingerprints."""
        return [shard.digest for shard in self.table.shards]

    def find_changed_files(self) -> list[UnreadableFile]:
        """Find shards of the expected size with other content, which reading does not notice.

        Copies of shards at an address are checked when they are made.
        """
        storage = self.reader.storage
        if storage.folder is None:
            return []
        changed = []
        for shard in self.table.shards:
            path = storage.folder / shard.name
            with suppress(OSError):  # reported for each of its samples
                if path.stat().st_size == shard.size and digest_file(path) != shard.digest:
                    changed.append(UnreadableFile(str(path), "has changed: pack the data again"))
        return changed

    def __getitem__(self, index: int) -> tuple[EncodedImage, Any]:
        content = self._read(index, "image")
        image = EncodedImage(content, self._name(index))
        return image, self._read_target(index)

    def _read_target(self, index: int) -> Any:
        if self.target_type == "labels":
            return int(self.table.columns["labels"][index])
        if self.target_type == "none" or not self.table.columns["target_sizes"][index]:
            return None
        content = self._read(index, "target")
        try:
            if self.target_type == "masks":
                return decode_mask(content, max_pixels=self.max_pixels)
            return decode_boxes(content)
        except InvalidImageError as error:
            raise UnreadableFileError(self._name(index), str(error)) from error

    def _read(self, index: int, kind: Literal["image", "target"]) -> bytes:
        start = int(self.table.columns[f"{kind}_starts"][index])
        size = int(self.table.columns[f"{kind}_sizes"][index])
        return self.reader.read(self._shard(index), start, size)

    def _name(self, index: int) -> str:
        """Return the original path of a sample, or its place in its shard."""
        if self.table.names[index]:
            return self.table.names[index]
        shard = int(self.shard_of[index])
        first = int(np.searchsorted(self.shard_of, shard))
        return f"{self._shard(index).name} sample {index - first}"

    def _shard(self, index: int) -> Shard:
        return self.table.shards[self.shard_of[index]]


def sharded_samples(
    root: str,
    *,
    split: Literal["train", "val", "test"],
    target_type: Literal["labels", "masks", "boxes", "none"],
    window: Count = 16,
    ahead: Annotated[int, Range(ge=0)] = 2,
    cache_limit: Positive = 20,
    max_pixels: Count,
) -> ShardedDataset | None:
    """Create the dataset of a split in shards.

    Args:
        root: a folder or address with the shards of ``mode=pack``, or with those of another
            program, which have train, val or test as a word of their names.
        split: the split.
        target_type: type of the targets.
        window: number of shards whose samples are shuffled together.
        ahead: number of shards that are copied before they are needed.
        cache_limit: maximum size of the copies of shards from an address, in GB.
        max_pixels: masks with more pixels are not decoded.

    Returns:
        The dataset; None if there is no such split, or one for testing has no targets.

    Raises:
        DataError: if shards cannot be read, or have no targets.
        ConfigurationError: if the copies that are needed at the same time exceed their limit.
    """
    storage = Storage(root)
    indexed = storage
    try:
        index = read_index(storage)
    except FileNotFoundError:
        reject_unfinished(storage)
        indexed = index_external_shards(storage, target_type)
        index = read_index(indexed)
    if split not in index.shards:
        return None
    table = read_table(indexed, index, split)
    if not _has_targets(table, split, target_type, storage):
        return None
    cache, prefetcher = None, None
    if storage.folder is None:
        limit = int(cache_limit * GIGABYTE)
        _check_limit(table, window=window, ahead=ahead, limit=limit)
        cache = ShardCache(storage, limit=limit)
        prefetcher = Prefetcher(cache, table.shards, table.columns["shards"], ahead=ahead)
    return ShardedDataset(
        table,
        ShardReader(storage, cache),
        target_type=target_type,
        window=window,
        max_pixels=max_pixels,
        prefetcher=prefetcher,
    )


def _has_targets(table: SplitTable, split: str, target_type: str, storage: Storage) -> bool:
    """Return whether samples have targets; those for testing are often published without."""
    if target_type == "none":
        return True
    if target_type == "labels":
        is_known = table.columns["labels"] != UNKNOWN_LABEL
    else:
        is_known = table.columns["target_sizes"] > 0
    if is_known.any():
        return True
    extension = TARGET_EXTENSIONS[target_type]
    message = f"{storage}: no sample of {split} has {target_type} in a .{extension} file"
    if split == "test":
        log.warning("%s: the split is left out", message)
        return False
    others = ", ".join(name for name in TARGET_EXTENSIONS if name != target_type)
    raise DataError(
        f"{message}: type data.spec.target_type=... ({others} or none); the files of a sample lie "
        "one after the other and have the same name up to its first dot"
    )


def _check_limit(table: SplitTable, *, window: int, ahead: int, limit: int) -> None:
    """Check that the shards that are read at the same time fit into the limit."""
    sizes = sorted((shard.size for shard in table.shards), reverse=True)
    needed = sum(sizes[: window + ahead])
    if needed > limit:
        raise ConfigurationError(
            f"data.shard_cache_limit={limit / GIGABYTE:g} GB is too small: "
            f"data.shuffle_window={window} shards are shuffled together and "
            f"data.prefetch_shards={ahead} copied before they are needed, which have "
            f"{format_si(needed)}B: type data.shard_cache_limit={1.01 * needed / GIGABYTE:.3g} or "
            "more, or a smaller data.shuffle_window"
        )
