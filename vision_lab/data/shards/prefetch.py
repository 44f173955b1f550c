"""Shards are copied before they are needed. Does not import torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread

import numpy as np
from numpy.typing import NDArray

from vision_lab.core.errors import DataError
from vision_lab.data.shards.cache import ShardCache
from vision_lab.data.shards.index import Shard

NUM_THREADS = 2
"""Number of shards that are copied at the same time."""


class Prefetcher:
    """Copies the next shards while batches of those before are read.

    Args:
        cache: the copies.
        shards: all shards.
        shard_of: (n,) index of the shard of each sample.
        ahead: number of shards to copy before they are needed.
    """

    def __init__(
        self,
        cache: ShardCache,
        shards: Sequence[Shard],
        shard_of: NDArray[np.int64],
        *,
        ahead: int,
    ) -> None:
        self.cache = cache
        self.shards = shards
        self.shard_of = shard_of
        self.ahead = ahead

    def select(self, indices: Sequence[int]) -> Prefetcher:
        """Return the prefetcher of a subset of the samples."""
        return Prefetcher(self.cache, self.shards, self.shard_of[list(indices)], ahead=self.ahead)

    def prefetch(self, batches: Sequence[list[int]]) -> Iterator[list[int]]:
        """Yield batches of indices, and copy the shards of those that come next."""
        order = self._list_first_uses(batches)
        queue: SimpleQueue[Shard | None] = SimpleQueue()
        for _ in range(NUM_THREADS):
            # Daemons: a command that is interrupted does not wait for a slow server.
            Thread(target=self._copy_all, args=(queue,), daemon=True).start()
        num_needed, num_started = 0, 0
        try:
            for number, batch in enumerate(batches):
                while num_needed < len(order) and order[num_needed][0] <= number:
                    num_needed += 1
                for _, shard in order[num_started : num_needed + self.ahead]:
                    queue.put(self.shards[shard])
                    num_started += 1
                yield batch
        except GeneratorExit:
            with suppress(Empty):
                while True:
                    queue.get_nowait()
        finally:
            for _ in range(NUM_THREADS):
                queue.put(None)

    def _copy_all(self, queue: SimpleQueue[Shard | None]) -> None:
        while (shard := queue.get()) is not None:
            with suppress(DataError):  # whoever reads the shard meets the error, too
                self.cache.fetch(shard)

    def _list_first_uses(self, batches: Sequence[list[int]]) -> list[tuple[int, int]]:
        """List the batch in which each shard is needed first, and the shard, in order."""
        first: dict[int, int] = {}
        for number, batch in enumerate(batches):
            for shard in np.unique(self.shard_of[batch]).tolist():
                first.setdefault(shard, number)
        return sorted((number, shard) for shard, number in first.items())
