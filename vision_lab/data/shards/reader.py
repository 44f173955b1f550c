"""Samples of shards, read by position. Does not import torch."""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any

from vision_lab.core.errors import DataError
from vision_lab.data.shards.cache import ShardCache, touch
from vision_lab.data.shards.index import Shard
from vision_lab.data.shards.storage import Storage

MAX_OPEN = 64
"""Maximum number of shards that a process keeps open."""

TOUCH_SECONDS = 1.0
"""Time after which it is recorded again that a copy is in use."""


class _OpenShard:
    """An open shard, and when its use was recorded last."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = os.open(path, os.O_RDONLY)
        self.touched = time.monotonic()

    def is_deleted(self) -> bool:
        return os.fstat(self.descriptor).st_nlink == 0


class ShardReader:
    """Reads parts of shards, from a folder or from copies that are made when they are needed.

    Args:
        storage: where the shards are.
        cache: where copies of them are made; None for shards in a folder.
    """

    def __init__(self, storage: Storage, cache: ShardCache | None) -> None:
        self.storage = storage
        self.cache = cache
        self._open: OrderedDict[str, _OpenShard] = OrderedDict()
        """Open shards by name, that used last at the end."""

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_open": OrderedDict()}

    def read(self, shard: Shard, start: int, size: int) -> bytes:
        """Read bytes of a shard.

        Args:
            shard: the shard.
            start: the first byte.
            size: number of bytes.

        Raises:
            DataError: if the shard cannot be copied, is missing, or has another size than expected.
        """
        try:
            content = os.pread(self._find(shard).descriptor, size, start)
        except OSError as error:
            address = self.storage.locate(shard.name)
            raise DataError(f"{address} cannot be read: {error.strerror or error}") from error
        if len(content) < size:
            raise DataError(
                f"{self.storage.locate(shard.name)} ends within a sample: pack the data again"
            )
        return content

    def _find(self, shard: Shard) -> _OpenShard:
        opened = self._open.get(shard.name)
        if opened is not None:
            self._open.move_to_end(shard.name)
            is_recent = time.monotonic() - opened.touched < TOUCH_SECONDS
            if self.cache is not None and not is_recent:
                touch(opened.path)
                opened.touched = time.monotonic()
            return opened
        self._close_deleted()
        opened = self._open_file(shard)
        self._open[shard.name] = opened
        if len(self._open) > MAX_OPEN:
            self._close(next(iter(self._open)))
        return opened

    def _open_file(self, shard: Shard) -> _OpenShard:
        while True:
            path = self._locate(shard)
            with suppress(FileNotFoundError):  # another process has just deleted the copy
                return _OpenShard(path)

    def _locate(self, shard: Shard) -> Path:
        """Return the file of a shard."""
        if self.cache is not None:
            return self.cache.fetch(shard)
        assert self.storage.folder is not None
        path = self.storage.folder / shard.name
        try:
            size = path.stat().st_size
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}") from error
        if size != shard.size:
            raise DataError(
                f"{path} has {size:,} bytes, but {shard.size:,} in the index: it ends early or has "
                "changed; pack the data again"
            )
        return path

    def _close_deleted(self) -> None:
        """Close copies that were deleted, whose space is only free then."""
        for name in [name for name, opened in self._open.items() if opened.is_deleted()]:
            self._close(name)

    def __del__(self) -> None:
        for name in list(self._open):
            self._close(name)

    def _close(self, name: str) -> None:
        os.close(self._open.pop(name).descriptor)
