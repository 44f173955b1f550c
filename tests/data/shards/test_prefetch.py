"""Shards are copied before they are needed."""

import threading
import time
from pathlib import Path

import numpy as np

from vision_lab.core.errors import DataError
from vision_lab.data.shards.cache import ShardCache
from vision_lab.data.shards.index import Shard
from vision_lab.data.shards.prefetch import Prefetcher


class Copies(ShardCache):
    """Notes which shards are copied."""

    def __init__(self) -> None:
        self.fetched: list[str] = []
        self.may_continue = threading.Event()
        self.may_continue.set()

    def fetch(self, shard: Shard) -> Path:
        self.fetched.append(shard.name)
        self.may_continue.wait(5)
        if shard.name == "2":
            raise DataError("this one cannot be read")
        return Path(shard.name)

    def wait_for(self, count: int) -> list[str]:
        deadline = time.monotonic() + 5
        while len(self.fetched) < count and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        return sorted(self.fetched)


def make(copies: Copies, ahead: int) -> Prefetcher:
    shards = [Shard(str(number), 1, str(number), 2) for number in range(6)]
    return Prefetcher(copies, shards, np.repeat(np.arange(6), 2), ahead=ahead)


def test_shards_of_the_next_batches_are_copied_but_not_more():
    copies = Copies()
    batches = [[0, 1], [4, 2], [3, 5], [6, 7], [8, 9], [10, 11]]
    following = make(copies, ahead=2).prefetch(batches)
    assert copies.fetched == []
    assert next(following) == [0, 1]
    assert copies.wait_for(3) == ["0", "1", "2"]
    assert [next(following), next(following)] == batches[1:3]
    assert copies.wait_for(5) == ["0", "1", "2", "3", "4"]
    assert list(following) == batches[3:]  # although a shard could not be copied
    assert copies.wait_for(6) == ["0", "1", "2", "3", "4", "5"]


def test_nothing_is_copied_after_the_loop_has_ended():
    copies = Copies()
    copies.may_continue.clear()
    following = make(copies, ahead=5).prefetch([[0], [2], [4], [6], [8], [10]])
    next(following)
    assert copies.wait_for(2) == ["0", "1"]  # a thread for each
    following.close()  # four are waiting
    copies.may_continue.set()
    assert copies.wait_for(2) == ["0", "1"]


def test_subsets_have_indices_of_their_own():
    copies = Copies()
    prefetcher = make(copies, ahead=0).select([10, 11, 2])
    assert list(prefetcher.prefetch([[2], [0, 1]])) == [[2], [0, 1]]
    assert copies.wait_for(2) == ["1", "5"]
