"""Copies of shards in a folder of limited size."""

import errno
import os
import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock

from tests.data.shards.servers import Fault, FaultyProxy
from vision_lab.core.errors import DataError
from vision_lab.data.shards.cache import ShardCache
from vision_lab.data.shards.index import Shard, digest_bytes
from vision_lab.data.shards.storage import Storage


@pytest.fixture
def files(s3: FaultyProxy, tmp_path: Path) -> Storage:
    return Storage(f"s3://bucket/{tmp_path.name}")


def add_shard(files: Storage, number: int, size: int = 1000) -> Shard:
    content = bytes([number]) * size
    files.write(f"train-{number}.tar", content)
    return Shard(f"train-{number}.tar", size, digest_bytes(content), 1)


def copies(cache: ShardCache) -> set[str]:
    return {path.name for path in cache.folder.iterdir() if not path.name.endswith(".lock")}


def test_copies_that_were_not_used_for_longest_are_deleted(files: Storage, tmp_path: Path):
    cache = ShardCache(files, limit=2500, folder=tmp_path / "copies")
    shards = [add_shard(files, number) for number in range(4)]
    for number in (0, 1, 0, 2):
        path = cache.fetch(shards[number])
        assert path.read_bytes() == bytes([number]) * 1000
        os.utime(path, (time.time() - 100 + 10 * number,) * 2)
    assert copies(cache) == {cache.path(shards[number]).name for number in (1, 2)}
    cache.fetch(shards[1])  # now it was used last
    cache.fetch(shards[3])
    assert copies(cache) == {cache.path(shards[number]).name for number in (1, 3)}


def test_a_changed_shard_is_named_and_nothing_is_kept(files: Storage, tmp_path: Path):
    cache = ShardCache(files, limit=10_000, folder=tmp_path / "copies")
    shard = add_shard(files, 1)
    files.write(shard.name, b"x" * 1000)
    with pytest.raises(DataError, match=r"train-1\.tar has changed: its digest is .*pack the data"):
        cache.fetch(shard)
    files.write(shard.name, b"x" * 900)
    with pytest.raises(DataError, match=r"train-1\.tar cannot be reached .*it ends after 900"):
        cache.fetch(shard)
    assert copies(cache) == set()


def test_a_missing_shard_is_named(files: Storage, tmp_path: Path):
    cache = ShardCache(files, limit=10_000, folder=tmp_path / "copies")
    with pytest.raises(DataError, match=r"train-9\.tar does not exist"):
        cache.fetch(Shard("train-9.tar", 10, "0" * 32, 1))


def test_several_threads_make_one_copy(s3: FaultyProxy, files: Storage, tmp_path: Path):
    cache = ShardCache(files, limit=10_000, folder=tmp_path / "copies")
    shard = add_shard(files, 1)
    s3.faults.append(Fault(shard.name, times=1, delay=0.3))
    s3.requests.clear()
    threads = [threading.Thread(target=cache.fetch, args=(shard,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(request.startswith("GET") for request in s3.requests) == 1
    assert copies(cache) == {f"{shard.digest}.tar"}


def test_incomplete_copies_of_killed_processes_are_deleted(files: Storage, tmp_path: Path):
    cache = ShardCache(files, limit=2500, folder=tmp_path / "copies")
    cache.folder.mkdir()
    abandoned, active = cache.folder / "a.part", cache.folder / "b.part"
    for path in (abandoned, active):
        path.write_bytes(b"x" * 1000)
    with FileLock(cache.folder / ".b.lock"):
        cache.fetch(add_shard(files, 1))
    assert not abandoned.exists()
    assert active.exists()


def test_a_full_disk_says_what_to_type(
    files: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    cache = ShardCache(files, limit=10_000, folder=tmp_path / "copies")
    shard = add_shard(files, 1)

    def fail(*arguments: object, **options: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Storage, "download", fail)
    with pytest.raises(
        DataError, match=r"is full .*type a smaller data\.shard_cache_limit .* VISION_LAB_CACHE to"
    ):
        cache.fetch(shard)
    assert copies(cache) == set()


@pytest.mark.usefixtures("small_files")
def test_a_copy_that_cannot_be_written_leaves_nothing(files: Storage, tmp_path: Path):
    cache = ShardCache(files, limit=100_000, folder=tmp_path / "copies")
    files_content = b"x" * 20_000
    files.write("train-1.tar", files_content)
    shard = Shard("train-1.tar", 20_000, digest_bytes(files_content), 1)
    with pytest.raises(DataError, match=r"train-1\.tar: cannot be copied to"):
        cache.fetch(shard)
    assert copies(cache) == set()


def test_a_damaged_copy_is_made_again(files: Storage, tmp_path: Path):
    cache = ShardCache(files, limit=10_000, folder=tmp_path / "copies")
    shard = add_shard(files, 1)
    path = cache.fetch(shard)
    path.write_bytes(b"")
    assert cache.fetch(shard).read_bytes() == bytes([1]) * 1000


def test_few_files_are_locked(files: Storage, tmp_path: Path):
    cache = ShardCache(files, limit=10_000, folder=tmp_path)
    shards = [add_shard(files, number) for number in range(3)]
    for shard in shards:
        cache.fetch(shard)
    locks = {path.name for path in tmp_path.iterdir() if path.suffix == ".lock"}
    assert locks == {".room.lock", *(f".{shard.digest[:2]}.lock" for shard in shards)}
