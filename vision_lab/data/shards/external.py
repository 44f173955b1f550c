"""Shards that another program has written, without an index: they are read once to make one."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path

from filelock import FileLock

from vision_lab.core.console import track
from vision_lab.core.errors import DataError
from vision_lab.core.machine import CACHE_VARIABLE, cache_folder
from vision_lab.core.text import summarize_names
from vision_lab.data.formats.layout import divide_by_split
from vision_lab.data.shards.index import (
    Row,
    Shard,
    SplitTable,
    make_table,
    read_index,
    read_table,
    write_index,
)
from vision_lab.data.shards.storage import FileInfo, Storage, digest_file, is_plain_name
from vision_lab.data.shards.tar_file import read_rows

MAX_LISTED = 5


def find_shards(storage: Storage) -> dict[str, dict[str, FileInfo]]:
    """Find the tar files of each split, whose names have train, val or test as a word.

    Args:
        storage: the folder or address.

    Raises:
        DataError: if there are none for training, or a name is unusual.
    """
    files = storage.list_files(".tar")
    names = list(files)
    for name in names:
        if not is_plain_name(name):
            raise DataError(
                f"{storage.locate(name)}: rename it: names of shards have letters, digits, _, - "
                "and ."
            )
    names_by_split = divide_by_split(names)
    if not names_by_split["train"]:
        listed = summarize_names(names, MAX_LISTED) or "none"
        raise DataError(
            f"{storage} has no shards: type data.root=<folder or address with train-000000.tar "
            f"..., as written by mode=pack>; tar files there: {listed}"
        )
    return {
        split: {name: files[name] for name in split_names}
        for split, split_names in names_by_split.items()
        if split_names
    }


def index_external_shards(storage: Storage, target_type: str) -> Storage:
    """Index shards without an index; the result is kept in the user's folder of caches.

    Args:
        storage: where the shards are.
        target_type: type of the targets to find.

    Returns:
        Where the index is, which is made again if a shard has changed.

    Raises:
        DataError: if there are no shards, or one cannot be read.
    """
    shards = find_shards(storage)
    address = str(storage.folder.absolute()) if storage.folder else storage.address
    content = json.dumps([address, shards, target_type]).encode()
    key = blake2b(content, digest_size=16).hexdigest()
    folder = cache_folder() / "shards" / f"index-{key}"
    index_storage = Storage(str(folder))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            if not _is_intact(index_storage, list(shards)):
                tables = {
                    split: _index_split(storage, files, split, target_type)
                    for split, files in shards.items()
                }
                write_index(index_storage, tables, spec={"target_type": target_type}, source={})
    except OSError as error:
        raise DataError(
            f"an index of {storage} cannot be made in {folder}: {error}: set {CACHE_VARIABLE} to "
            "another folder"
        ) from error
    return index_storage


def _is_intact(index_storage: Storage, splits: Sequence[str]) -> bool:
    """Return whether an index and its tables are complete."""
    try:
        index = read_index(index_storage)
        for split in splits:
            read_table(index_storage, index, split)
    except (FileNotFoundError, DataError):
        return False
    return True


def _index_split(
    storage: Storage, files: Mapping[str, FileInfo], split: str, target_type: str
) -> SplitTable:
    shards: list[Shard] = []
    rows: list[list[Row]] = []
    title = f"reading {len(files):,} shards of {split}"
    for name in track(files, title, total=len(files)):
        shard, shard_rows = _index_shard(storage, name, files[name].size, target_type)
        if shard_rows:
            shards.append(shard)
            rows.append(shard_rows)
    if not shards:
        raise DataError(
            f"{storage}: the shards of {split} contain no images: their names must end with the "
            "suffix of an image after their first dot, as in 000012.jpg"
        )
    return make_table(shards, rows)


def _index_shard(
    storage: Storage, name: str, size: int, target_type: str
) -> tuple[Shard, list[Row]]:
    if not size:
        raise DataError(f"{storage.locate(name)} is empty")
    if storage.folder is not None:
        path = storage.folder / name
        rows = read_rows(path, str(path), target_type=target_type)
        return Shard(name, size, digest_file(path), len(rows)), rows
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        with path.open("wb") as file:
            digest = storage.download(name, file, size=size)
        rows = read_rows(path, storage.locate(name), target_type=target_type)
        return Shard(name, size, digest, len(rows)), rows
