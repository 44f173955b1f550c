"""Shards that another program has written, without an index: they are read once to make one."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

from vision_lab.core.console import track
from vision_lab.core.errors import DataError
from vision_lab.core.files import write_file
from vision_lab.core.machine import cache_folder
from vision_lab.core.text import summarize_names
from vision_lab.data.formats.layout import SPLITS as SPLIT_NAMES
from vision_lab.data.shards.index import (
    Row,
    Shard,
    ShardIndex,
    SplitTable,
    digest_bytes,
    dump_index,
    dump_table,
    make_table,
    read_index,
)
from vision_lab.data.shards.storage import Storage, digest_file, is_plain_name
from vision_lab.data.shards.tar_file import read_rows

MAX_LISTED = 5


def find_shards(storage: Storage) -> dict[str, list[str]]:
    """Find the tar files of each split, whose names begin with train, val or test.

    Args:
        storage: the folder or address.

    Raises:
        DataError: if there are none for training.
    """
    names = [name for name in storage.list_files() if name.endswith(".tar")]
    found: dict[str, list[str]] = {}
    for split, prefixes in SPLIT_NAMES.items():
        pattern = re.compile(rf"({'|'.join(prefixes)})(?![a-z])", re.IGNORECASE)
        found[split] = [name for name in names if pattern.match(name) and is_plain_name(name)]
    if not any(found.values()):
        found["train"] = [name for name in names if is_plain_name(name)]
    if not found["train"]:
        listed = summarize_names(names, MAX_LISTED) or "none"
        raise DataError(
            f"{storage} has no shards: type data.root=<folder or address with train-000000.tar "
            f"..., as written by mode=pack>; tar files there: {listed}"
        )
    return {split: names for split, names in found.items() if names}


def index_foreign_shards(storage: Storage) -> Storage:
    """Index shards without an index; the result is kept in the user's folder of caches.

    Args:
        storage: where the shards are.

    Returns:
        Where the index is, which is made again if the name or size of a shard has changed.

    Raises:
        DataError: if there are no shards, or one cannot be read.
    """
    shards = find_shards(storage)
    listing = [
        (split, name, storage.size(name)) for split, names in shards.items() for name in names
    ]
    key = blake2b(json.dumps([str(storage), listing]).encode(), digest_size=16).hexdigest()
    folder = cache_folder() / "shards" / f"index-{key}"
    kept = Storage(str(folder))
    try:
        read_index(kept)
    except (FileNotFoundError, DataError):
        folder.mkdir(parents=True, exist_ok=True)
        _write_index(storage, shards, folder)
    return kept


def _write_index(storage: Storage, shards: dict[str, list[str]], folder: Path) -> None:
    tables: dict[str, tuple[str, str]] = {}
    entries: dict[str, Sequence[Shard]] = {}
    has_target = False
    for split, names in shards.items():
        table = _index_split(storage, names, split)
        has_target |= bool(table.columns["target_sizes"].any())
        content = dump_table(table)
        write_file(folder, f"{split}.npz", content)
        tables[split] = (f"{split}.npz", digest_bytes(content))
        entries[split] = table.shards
    spec = {"target_type": "none" if has_target else "labels"}
    index = ShardIndex(spec, {"address": str(storage)}, entries, tables)
    write_file(folder, "index.json", dump_index(index))


def _index_split(storage: Storage, names: Sequence[str], split: str) -> SplitTable:
    shards: list[Shard] = []
    rows: list[list[Row]] = []
    title = f"reading {len(names):,} shards of {split}"
    for name in track(names, title, total=len(names)):
        shard, found = _index_shard(storage, name)
        if found:
            shards.append(shard)
            rows.append(found)
    if not shards:
        raise DataError(f"{storage}: the shards of {split} contain no images")
    return make_table(shards, rows)


def _index_shard(storage: Storage, name: str) -> tuple[Shard, list[Row]]:
    size = storage.size(name)
    if not size:
        raise DataError(f"{storage.locate(name)} is empty")
    if storage.folder is not None:
        path = storage.folder / name
        rows = read_rows(path)
        return Shard(name, size, digest_file(path), len(rows)), rows
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        with path.open("wb") as file:
            digest = storage.download(name, file, size=size)
        rows = read_rows(path)
        return Shard(name, size, digest, len(rows)), rows
