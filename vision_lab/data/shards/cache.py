"""Local copies of shards, in a folder of limited size. Does not import torch."""

from __future__ import annotations

import errno
import os
import time
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

from vision_lab.core.errors import DataError
from vision_lab.core.files import format_path
from vision_lab.core.machine import CACHE_VARIABLE, cache_folder
from vision_lab.core.text import format_si
from vision_lab.data.shards.index import Shard
from vision_lab.data.shards.storage import Storage

DOWNLOAD_ATTEMPTS = 2
"""Attempts to copy a shard whose digest is not that of the index."""

SUFFIX = ".tar"
"""End of the names of complete copies."""

PART_SUFFIX = ".part"
"""End of the names of copies that are not complete; they have their final size from the start."""


class ShardCache:
    """The shards of a storage in a folder, of which those not used for longest are deleted.

    Copies are named by the digests of their content, so that data sets, runs and processes share
    them. A copy appears under its name when it is complete and has been checked.

    Args:
        storage: where the shards are.
        limit: maximum size of all copies in bytes.
        folder: the folder; None for ``shards`` in the user's folder of caches.
    """

    def __init__(self, storage: Storage, *, limit: int, folder: Path | None = None) -> None:
        self.storage = storage
        self.limit = limit
        self.folder = folder or cache_folder() / "shards"

    def path(self, shard: Shard) -> Path:
        """Return where the copy of a shard is, or would be."""
        return self.folder / f"{shard.digest}{SUFFIX}"

    def fetch(self, shard: Shard) -> Path:
        """Return the copy of a shard, which is made if there is none.

        Args:
            shard: the shard.

        Raises:
            DataError: if it cannot be copied, or its content is not that of the index.
        """
        path = self.path(shard)
        if _has_size(path, shard.size):
            touch(path)
            return path
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(_lock_file(path)):
                if not _has_size(path, shard.size):  # another process may have made it meanwhile
                    self._copy(shard, path)
        except OSError as error:
            raise DataError(self._explain(shard, error)) from error
        return path

    def _copy(self, shard: Shard, path: Path) -> None:
        part = path.with_suffix(PART_SUFFIX)
        try:
            for _ in range(DOWNLOAD_ATTEMPTS):
                self._reserve_space(shard, part)
                with part.open("r+b") as file:
                    digest = self.storage.download(shard.name, file, size=shard.size)
                    file.flush()
                    os.fsync(file.fileno())  # only the size of a copy is checked from now on
                if digest == shard.digest:
                    part.replace(path)
                    return
        finally:
            part.unlink(missing_ok=True)
        raise DataError(
            f"{self.storage.locate(shard.name)} has changed: its digest is {digest}, but "
            f"{shard.digest} in the index: pack the data again"
        )

    def _reserve_space(self, shard: Shard, part: Path) -> None:
        """Delete the copies that were not used for longest, and create one of full size."""
        with FileLock(self.folder / ".room.lock"):
            part.unlink(missing_ok=True)
            copies = self._list_copies()
            used = sum(size for _, size, _ in copies)
            for _, size, copy in copies:
                if used + shard.size <= self.limit:
                    break
                if copy.suffix == SUFFIX or _is_abandoned(copy):
                    copy.unlink(missing_ok=True)
                    used -= size
            with part.open("wb") as file:
                file.truncate(shard.size)  # counts for others from now on

    def _list_copies(self) -> list[tuple[float, int, Path]]:
        """List the time of the last use, size and path of each copy, the oldest first."""
        copies = []
        for path in self.folder.iterdir():
            if path.suffix in (SUFFIX, PART_SUFFIX):
                with suppress(FileNotFoundError):
                    status = path.stat()
                    copies.append((status.st_mtime, status.st_size, path))
        return sorted(copies)

    def _explain(self, shard: Shard, error: OSError) -> str:
        folder = format_path(self.folder)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return (
                f"{self.storage.locate(shard.name)}: the disk of {folder} is full "
                f"({format_si(shard.size)}B needed): type a smaller data.shard_cache_limit "
                f"(in GB), or set {CACHE_VARIABLE} to a folder on another disk"
            )
        return f"{self.storage.locate(shard.name)}: cannot be copied to {folder}: {error}"


def _lock_file(path: Path) -> Path:
    """Return the file that is locked while a copy is made; there are at most 256 of them."""
    return path.with_name(f".{path.name[:2]}.lock")


def _has_size(path: Path, size: int) -> bool:
    """Return whether a copy exists and has this size; else it is made again."""
    with suppress(FileNotFoundError):
        return path.stat().st_size == size
    return False


def touch(path: Path) -> None:
    """Record that a copy is in use; without permission nothing happens."""
    with suppress(OSError):
        now = time.time()
        os.utime(path, (now, now))


def _is_abandoned(part: Path) -> bool:
    """Return whether nobody writes an incomplete copy."""
    try:
        with FileLock(_lock_file(part)).acquire(timeout=0):
            return True
    except TimeoutError:  # filelock.Timeout is one
        return False
