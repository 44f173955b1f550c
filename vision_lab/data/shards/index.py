"""The index of a set of shards: what they contain, and where each sample is.

``index.json`` has the spec of the data, and for each split the names, sizes and digests of its
shards. A table for each split has a row for each sample. Both are read before anything else, so
they are checked like all files of others. Does not import torch.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vision_lab.core.documents import DocumentError, check_depth
from vision_lab.core.errors import DataError
from vision_lab.core.text import first_line
from vision_lab.data.formats.layout import SPLITS
from vision_lab.data.shards.storage import Storage, is_plain_name

INDEX_FILENAME = "index.json"

PLAN_FILENAME = "packing"
"""Hash of what an unfinished ``mode=pack`` writes; there is no index then."""

FORMAT = "vision_lab shards"

VERSION = 1
"""Version of index and tables."""

MAX_INDEX_BYTES = 100_000_000

MAX_SAMPLES = 50_000_000
"""Maximum number of samples of a split, whose table has about 100 bytes for each in memory."""

MAX_TABLE_BYTES = 4_000_000_000

MAX_NAME_BYTES = 500
"""Maximum length of the name of a sample, on average."""

MIN_SAMPLE_BYTES = 1024
"""Size of the smallest sample in a tar file: a header and a block."""

MAX_HEADER_BYTES = 10_000
"""Maximum size of the header of a column in a table."""

TARGET_TYPES = ("labels", "masks", "boxes", "none")

COLUMNS = ("shards", "image_starts", "image_sizes", "target_starts", "target_sizes", "labels")
"""Integers of each sample. Starts and sizes are in bytes of the shard; a size of 0 is no file."""


class Shard(NamedTuple):
    """A tar file with samples.

    Attributes:
        name: name of the file.
        size: its size in bytes.
        digest: its digest, see ``storage.digest_file``.
        samples: number of samples in it.
    """

    name: str
    size: int
    digest: str
    samples: int


class Row(NamedTuple):
    """Where a sample is in its shard.

    Attributes:
        name: its original path; empty if it was not a file.
        image_start: first byte of the image.
        image_size: number of bytes of the image.
        target_start: first byte of the mask or boxes.
        target_size: number of bytes of them, 0 if there are none.
        label: its label; ``UNKNOWN_LABEL`` if its target is none, a mask or boxes.
    """

    name: str
    image_start: int
    image_size: int
    target_start: int
    target_size: int
    label: int


@dataclass(frozen=True)
class SplitTable:
    """The samples of a split.

    Attributes:
        shards: the tar files.
        columns: (n,) int64 of each of ``COLUMNS``; ``shards`` is an index of the attribute.
        names: the original path of each sample; empty if it was not a file.
    """

    shards: Sequence[Shard]
    columns: Mapping[str, NDArray[np.int64]]
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class ShardIndex:
    """The content of ``index.json``.

    Attributes:
        spec: attributes of ``DataSpec``.
        source: where the samples come from: fingerprint of each split, settings of packing.
        shards: the shards of each split.
        tables: name and digest of the table of each split.
    """

    spec: Mapping[str, Any]
    source: Mapping[str, Any]
    shards: Mapping[str, Sequence[Shard]]
    tables: Mapping[str, tuple[str, str]]


def make_table(shards: Sequence[Shard], rows: Sequence[Sequence[Row]]) -> SplitTable:
    """Combine the samples of all shards of a split.

    Args:
        shards: the shards.
        rows: the samples of each of them.
    """
    flat = [(number, *row[1:]) for number, shard in enumerate(rows) for row in shard]
    values = np.array(flat, dtype=np.int64).reshape(-1, len(COLUMNS))
    columns = {name: np.ascontiguousarray(values[:, i]) for i, name in enumerate(COLUMNS)}
    return SplitTable(shards, columns, [row.name for shard in rows for row in shard])


def dump_table(table: SplitTable) -> bytes:
    """Return the content of the file of a table."""
    stream = io.BytesIO()
    names = "\0".join(table.names).encode(errors="surrogateescape")
    arrays: dict[str, Any] = {"names": np.frombuffer(names, np.uint8), **table.columns}
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def dump_index(index: ShardIndex) -> str:
    """Return the content of ``index.json``."""
    content = {"format": FORMAT, "version": VERSION, **asdict(index)}
    content["shards"] = {
        split: [shard._asdict() for shard in shards] for split, shards in index.shards.items()
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def write_index(
    storage: Storage,
    tables: Mapping[str, SplitTable],
    *,
    spec: Mapping[str, Any],
    source: Mapping[str, Any],
) -> ShardIndex:
    """Write the tables and ``index.json``, which makes shards complete.

    Args:
        storage: where the shards are.
        tables: the samples of each split.
        spec: attributes of ``DataSpec``.
        source: where the samples come from.
    """
    entries: dict[str, tuple[str, str]] = {}
    for split, table in tables.items():
        content = dump_table(table)
        name = f"{split}.npz"
        storage.write(name, content)
        entries[split] = (name, digest_bytes(content))
    shards = {split: table.shards for split, table in tables.items()}
    index = ShardIndex(spec, source, shards, entries)
    storage.write(INDEX_FILENAME, dump_index(index).encode(errors="backslashreplace"))
    return index


def read_index(storage: Storage) -> ShardIndex:
    """Read ``index.json``.

    Raises:
        FileNotFoundError: if there is none.
        DataError: if it is invalid.
    """
    content = storage.read(INDEX_FILENAME, max_bytes=MAX_INDEX_BYTES)
    address = storage.locate(INDEX_FILENAME)
    try:
        values = json.loads(content)
        check_depth(values)
        if values.get("format") != FORMAT or values.get("version") != VERSION:
            raise ValueError(f"it is not of the format {FORMAT!r}, version {VERSION}")
        return _parse(values)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = str(error) if isinstance(error, DocumentError) else first_line(error)
        raise DataError(
            f"{address} is invalid: {reason}: pack the data again with mode=pack"
        ) from error


def _parse(values: Mapping[str, Any]) -> ShardIndex:
    shards: dict[str, list[Shard]] = {}
    tables: dict[str, tuple[str, str]] = {}
    for split, entries in values["shards"].items():
        if split not in SPLITS:
            raise ValueError(f"there is no split {split!r}")
        shards[split] = [_parse_shard(entry) for entry in entries]
        count = sum(shard.samples for shard in shards[split])
        if count > MAX_SAMPLES:
            raise ValueError(f"{split} has {count:,} samples, more than {MAX_SAMPLES:,}")
        name, digest = values["tables"][split]
        if not is_plain_name(name) or not isinstance(digest, str):
            raise ValueError(f"{name!r} is not the name of a table")
        tables[split] = (name, digest)
    spec = values["spec"]
    if not isinstance(spec, dict) or spec.get("target_type") not in TARGET_TYPES:
        raise ValueError("it has no spec with a target_type")
    return ShardIndex(spec, dict(values["source"]), shards, tables)


def _parse_shard(entry: Mapping[str, Any]) -> Shard:
    shard = Shard(**entry)
    if not is_plain_name(shard.name) or not is_plain_name(shard.digest):
        raise ValueError(f"{shard.name!r} is not the name of a shard")
    numbers = (shard.size, shard.samples)
    if not all(type(number) is int and number > 0 for number in numbers):
        raise ValueError(f"{shard.name} has no size or number of samples")
    if shard.samples * MIN_SAMPLE_BYTES > shard.size:
        raise ValueError(f"{shard.name} is too small for {shard.samples:,} samples")
    return shard


def reject_unfinished(storage: Storage) -> None:
    """Check that shards without an index are not those of an interrupted ``mode=pack``.

    Raises:
        DataError: if they are.
    """
    if storage.size(PLAN_FILENAME) is not None:
        raise DataError(
            f"{storage} has shards whose packing has not ended: repeat the command with mode=pack, "
            "which continues it"
        )


def read_table(storage: Storage, index: ShardIndex, split: str) -> SplitTable:
    """Read the table of a split.

    Args:
        storage: where the table is.
        index: the index that belongs to it.
        split: the split.

    Raises:
        DataError: if it is missing or invalid, or does not belong to the index.
    """
    name, digest = index.tables[split]
    try:
        content = storage.read(name, max_bytes=MAX_TABLE_BYTES)
    except FileNotFoundError as error:
        raise DataError(f"{storage.locate(name)} is missing: pack the data again") from error
    if digest_bytes(content) != digest:
        raise DataError(f"{storage.locate(name)} is not the one of {INDEX_FILENAME}: pack again")
    try:
        _check_inflated_size(content, sum(shard.samples for shard in index.shards[split]))
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            columns = {name: arrays[name].astype(np.int64) for name in COLUMNS}
            names = arrays["names"]
        if np.count_nonzero(names == 0) + 1 != len(columns["shards"]):
            raise ValueError("its names do not have the length of the index")
        text = names.tobytes().decode(errors="surrogateescape")
        table = SplitTable(index.shards[split], columns, text.split("\0"))
        _check_table(table)
    except Exception as error:  # numpy raises any exception for a damaged file
        raise DataError(f"{storage.locate(name)} is invalid: {first_line(error)}") from error
    return table


def _check_inflated_size(content: bytes, count: int) -> None:
    """Check that the arrays of a table have the size of a number of samples."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for info in archive.infolist():
            limit = MAX_NAME_BYTES if info.filename == "names.npy" else 8
            if info.file_size > count * limit + MAX_HEADER_BYTES:
                raise ValueError(f"{info.filename} is too large for {count:,} samples")


def _check_table(table: SplitTable) -> None:
    """Check that all samples are inside their shards, which follow each other."""
    counts = [shard.samples for shard in table.shards]
    expected = np.repeat(np.arange(len(counts)), counts)
    if any(column.shape != expected.shape for column in table.columns.values()):
        raise ValueError("its columns do not have the length of the index")
    if len(table) != len(expected) or not np.array_equal(table.columns["shards"], expected):
        raise ValueError("its samples are not those of the shards")
    sizes = np.array([shard.size for shard in table.shards])[expected]
    for kind in ("image", "target"):
        start, size = table.columns[f"{kind}_starts"], table.columns[f"{kind}_sizes"]
        if ((start < 0) | (size < 0) | (size > sizes) | (start > sizes - size)).any():
            raise ValueError("a sample is outside its shard")


def digest_bytes(content: bytes) -> str:
    """Compute the digest of bytes, as ``storage.digest_file``."""
    return blake2b(content, digest_size=16).hexdigest()
