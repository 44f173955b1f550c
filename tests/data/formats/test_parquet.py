"""Parquet files of Hugging Face."""

import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from tests.data.shards.samples import photograph
from vision_lab.core.errors import ConfigurationError, DataError, UnreadableFileError
from vision_lab.data.formats.parquet import ParquetImages, class_names, find_files, labeled_rows

FEATURES = {
    "image": {"_type": "Image"},
    "label": {"names": ["ash", "beech", "cedar"], "_type": "ClassLabel"},
}


def write(file: Path, labels: list[Any], *, as_bytes: bool = False, named: bool = True) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    first = hash(file.name) % 1000
    images: list[Any] = [photograph(first + number) for number in range(len(labels))]
    if not as_bytes:
        images = [{"bytes": image, "path": f"{i}.jpg"} for i, image in enumerate(images)]
    table = pyarrow.table({"image": images, "label": labels})
    if named:
        info = json.dumps({"info": {"features": FEATURES}})
        table = table.replace_schema_metadata({b"huggingface": info.encode()})
    parquet.write_table(table, file, row_group_size=2)


def read(root: Path, split: Any = "train", **changes: Any) -> ParquetImages:
    columns = {"image_column": "image", "label_column": "label", "window": 2}
    dataset = labeled_rows(str(root), split=split, **(columns | changes))
    assert dataset is not None
    return dataset


@pytest.mark.parametrize("as_bytes", [False, True])
def test_rows_are_read_in_any_order(tmp_path: Path, as_bytes: bool):
    write(tmp_path / "data" / "train-00000-of-00002.parquet", [0, 1, 2], as_bytes=as_bytes)
    write(tmp_path / "data" / "train-00001-of-00002.parquet", [2, 0], as_bytes=as_bytes)
    write(tmp_path / "data" / "test-00000-of-00001.parquet", [1])
    dataset = read(tmp_path)
    assert dataset.targets == [0, 1, 2, 2, 0]
    assert dataset.shard_of.tolist() == [0, 0, 1, 2, 2]
    first = hash("train-00001-of-00002.parquet") % 1000
    for index in (4, 0, 2, 3, 4):
        image, label = dataset[index]
        assert label == dataset.targets[index]
        if index >= 3:
            assert image.content == photograph(first + index - 3)
    assert dataset[1][0].path == ("train-00000-of-00002.parquet row 1" if as_bytes else "1.jpg")
    assert len(dataset._recent) == 2
    assert read(tmp_path, "test").targets == [1]
    assert (
        labeled_rows(
            str(tmp_path), split="val", image_column="image", label_column="label", window=1
        )
        is None
    )


def test_splits_are_found_by_names_of_files_or_folders(tmp_path: Path):
    names = ("a/train/0000.parquet", "a/validation/0000.parquet", "a/train/test-0.parquet")
    for name in (*names, "README.md"):
        write(tmp_path / name, [0])
    found = find_files(tmp_path)
    assert [path.name for path in found["train"]] == ["0000.parquet"]
    assert found["val"] == [tmp_path / "a" / "validation" / "0000.parquet"]
    assert found["test"] == [tmp_path / "a" / "train" / "test-0.parquet"]


def test_class_names_are_those_of_hugging_face(tmp_path: Path):
    write(tmp_path / "train-0.parquet", [0])
    assert class_names(str(tmp_path), "label") == ["ash", "beech", "cedar"]
    write(tmp_path / "train-0.parquet", [0], named=False)
    with pytest.raises(DataError, match=r"does not name the classes of column label: type data\.s"):
        class_names(str(tmp_path), "label")


def test_a_missing_column_or_damaged_file_is_named(tmp_path: Path):
    write(tmp_path / "train-0.parquet", [0])
    with pytest.raises(
        DataError, match=r"has no column img, but image, label: type data.image_col"
    ):
        read(tmp_path, image_column="img")
    (tmp_path / "train-1.parquet").write_bytes(b"PAR1 damaged")
    with pytest.raises(DataError, match=r"train-1\.parquet is not a Parquet file"):
        read(tmp_path)


@pytest.mark.parametrize("labels", [["a", "b"], [0.5, 1.0], [0, None]])
def test_labels_that_are_no_integers_are_named(tmp_path: Path, labels: list[Any]):
    write(tmp_path / "train-0.parquet", labels)
    with pytest.raises(DataError, match=r"train-0\.parquet: column label has"):
        read(tmp_path)


def test_a_row_without_image_is_unreadable(tmp_path: Path):
    table = pyarrow.table({"image": [None, b"x"], "label": [0, 1]})
    parquet.write_table(table, tmp_path / "train-0.parquet")
    dataset = read(tmp_path)
    with pytest.raises(UnreadableFileError, match="row 0: column image has no bytes"):
        dataset[0]
    assert dataset[1][1] == 1


def test_a_folder_without_files_is_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"has no Parquet files for training .* there are none"):
        find_files(tmp_path)


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path / "train-0.parquet", [0])
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(ConfigurationError, match=r"type pip install 'vision_lab\[parquet\]'"):
        read(tmp_path)


def test_a_test_split_without_labels_is_left_out(tmp_path: Path):
    write(tmp_path / "train-0.parquet", [0, 1])
    write(tmp_path / "test-0.parquet", [-1, -1])
    arguments: dict[str, Any] = {"image_column": "image", "label_column": "label", "window": 1}
    assert labeled_rows(str(tmp_path), split="test", **arguments) is None


def test_the_path_of_an_image_may_be_of_any_type(tmp_path: Path):
    images = [{"bytes": b"x", "path": 3}, {"bytes": b"x", "path": 4}]
    parquet.write_table(
        pyarrow.table({"image": images, "label": [0, 1]}), tmp_path / "train-0.parquet"
    )
    assert read(tmp_path)[1][0].path == "train-0.parquet row 1"


def test_a_column_that_pyarrow_cannot_convert_is_named(tmp_path: Path):
    labels = pyarrow.array([[0], [1]])
    table = pyarrow.table({"image": [b"x", b"x"], "label": labels})
    parquet.write_table(table, tmp_path / "train-0.parquet")
    with pytest.raises(DataError, match=r"train-0\.parquet: column label has no numbers"):
        read(tmp_path)
