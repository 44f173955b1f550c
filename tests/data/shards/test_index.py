"""The index of shards, which may come from others."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vision_lab.core.errors import DataError
from vision_lab.data.shards.index import (
    COLUMNS,
    Row,
    Shard,
    ShardIndex,
    digest_bytes,
    dump_index,
    dump_table,
    make_table,
    read_index,
    read_table,
    write_index,
)
from vision_lab.data.shards.storage import Storage

SHARDS = [Shard("train-0.tar", 5000, "a" * 32, 2), Shard("train-1.tar", 4000, "b" * 32, 1)]
ROWS = [
    [Row("ä/1.jpg", 512, 100, 1024, 20, -1), Row("", 2048, 10, 0, 0, 3)],
    [Row("caf\udce9.jpg", 512, 3000, 0, 0, 1)],
]


def write(folder: Path, content: bytes | None = None, **changes: Any) -> Storage:
    storage = Storage(str(folder))
    table = dump_table(make_table(SHARDS, ROWS)) if content is None else content
    storage.write("train.npz", table)
    tables = {"train": ("train.npz", digest_bytes(table))}
    index = ShardIndex({"target_type": "labels"}, {"a": 1}, {"train": SHARDS}, tables)
    values = json.loads(dump_index(index))
    storage.write("index.json", json.dumps(values | changes).encode())
    return storage


def test_index_and_table_are_read_as_they_were_written(tmp_path: Path):
    storage = write(tmp_path)
    index = read_index(storage)
    assert index.spec == {"target_type": "labels"}
    assert index.source == {"a": 1}
    assert index.shards == {"train": SHARDS}
    table = read_table(storage, index, "train")
    assert table.names == ["ä/1.jpg", "", "caf\udce9.jpg"]
    assert table.columns["shards"].tolist() == [0, 0, 1]
    assert table.columns["image_sizes"].tolist() == [100, 10, 3000]
    assert table.columns["labels"].tolist() == [-1, 3, 1]


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "other"},
        {"version": 2},
        {"spec": {"target_type": "os.system"}},
        {"spec": []},
        {"shards": {"train": [["a"]]}},
        {"shards": {"../train": []}},
        {"shards": {"train": [SHARDS[0]._replace(name="../x.tar")._asdict()]}},
        {"shards": {"train": [SHARDS[0]._replace(size=-1)._asdict()]}},
        {"shards": {"train": [{**SHARDS[0]._asdict(), "samples": True}]}},
        {"shards": {"train": [SHARDS[0]._replace(samples=400_000_000)._asdict()]}},
        {"shards": {"train": [SHARDS[0]._replace(samples=10**8, size=10**12)._asdict()]}},
        {"shards": {"train": [{**SHARDS[0]._asdict(), "digest": "../../x"}]}},
        {"tables": {"train": ["/etc/passwd", "0"]}},
        {"tables": {}},
        {"source": None},
    ],
)
def test_an_invalid_index_is_named(tmp_path: Path, changes: dict[str, Any]):
    storage = write(tmp_path, **changes)
    with pytest.raises(DataError, match=r"index\.json is invalid: .*pack the data again"):
        read_index(storage)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"[" * 100_000, b"\xff", b"3"])
def test_files_that_are_no_index_are_named(tmp_path: Path, content: bytes):
    storage = Storage(str(tmp_path))
    storage.write("index.json", content)
    with pytest.raises(DataError, match=r"index\.json is invalid"):
        read_index(storage)


def test_a_table_of_another_index_is_named(tmp_path: Path):
    storage = write(tmp_path)
    index = read_index(storage)
    storage.write("train.npz", b"other")
    with pytest.raises(DataError, match=r"train\.npz is not the one of index\.json"):
        read_table(storage, index, "train")
    storage.delete("train.npz")
    with pytest.raises(DataError, match=r"train\.npz is missing"):
        read_table(storage, index, "train")


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("image_starts", [-1, 0, 0]),
        ("image_sizes", [5000, 0, 0]),
        ("target_sizes", [0, 0, 9000]),
        ("shards", [0, 1, 1]),
        ("labels", [0, 0]),
    ],
)
def test_a_table_that_does_not_fit_its_shards_is_named(
    tmp_path: Path, column: str, values: list[int]
):
    table = make_table(SHARDS, ROWS)
    table = table.__class__(table.shards, {**table.columns, column: np.array(values)}, table.names)
    storage = write(tmp_path, dump_table(table))
    with pytest.raises(DataError, match=r"train\.npz is invalid"):
        read_table(storage, read_index(storage), "train")


def test_a_table_that_would_fill_the_memory_is_refused(tmp_path: Path):
    arrays = {name: np.zeros(3, np.int64) for name in (*COLUMNS, "names")}
    for name in ("labels", "names"):
        stream = io.BytesIO()
        np.savez_compressed(stream, **(arrays | {name: np.zeros(5_000_000, np.int64)}))
        storage = write(tmp_path, stream.getvalue())
        with pytest.raises(DataError, match=rf"{name}\.npy is too large for 3 samples"):
            read_table(storage, read_index(storage), "train")


def test_names_that_are_no_text_are_read_as_they_were_written(tmp_path: Path):
    storage = Storage(str(tmp_path))
    spec = {"target_type": "labels", "class_names": ["caf\udce9", "\ud800", "猫"]}
    write_index(storage, {"train": make_table(SHARDS, ROWS)}, spec=spec, source={})
    assert read_index(storage).spec == spec


def test_a_damaged_table_is_named(tmp_path: Path):
    storage = write(tmp_path, b"PK damaged")
    with pytest.raises(DataError, match=r"train\.npz is invalid"):
        read_table(storage, read_index(storage), "train")
