"""``data=parquet``: Parquet files with images and labels, as Hugging Face stores datasets.

A file consists of groups of rows, which are read as a whole. So samples are shuffled like those of
shards: a window of groups at a time. Does not import torch.
"""

from __future__ import annotations

import json
import logging
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vision_lab.core.arguments import Count
from vision_lab.core.errors import ConfigurationError, DataError, UnreadableFileError
from vision_lab.core.spec import UNKNOWN_LABEL
from vision_lab.core.text import first_line, summarize_names
from vision_lab.data.encoded_image import EncodedImage
from vision_lab.data.formats.layout import divide_by_split, require_root

log = logging.getLogger(__name__)

CONTENT = "Parquet files"

MAX_LISTED = 5


class ParquetImages:
    """A map-style dataset of (image file, label) in Parquet files.

    Args:
        files: the files.
        image_column: column with the image files.
        label_column: column with the labels.
        window: number of groups of rows that are shuffled together, and kept in memory.

    Raises:
        DataError: if a file cannot be read, or does not have the columns.
    """

    def __init__(
        self, files: Sequence[Path], *, image_column: str, label_column: str, window: int
    ) -> None:
        self.files = files
        self.image_column = image_column
        self.window = window
        self.groups: list[tuple[int, int]] = []
        """File, and index in it, of each group of rows."""
        sizes: list[int] = []
        labels: list[NDArray[np.int64]] = []
        self._file_starts: list[int] = []
        """Index of the first sample of each file."""
        for number, file in enumerate(files):
            self._file_starts.append(sum(sizes))
            opened = _open(file, (image_column, label_column))
            labels.append(_read_labels(opened, file, label_column))
            for group in range(opened.metadata.num_row_groups):
                self.groups.append((number, group))
                sizes.append(opened.metadata.row_group(group).num_rows)
        self.shard_of = np.repeat(np.arange(len(sizes)), sizes)
        self._starts = np.cumsum([0, *sizes])
        self._labels = np.concatenate(labels) if labels else np.zeros(0, np.int64)
        self._recent: OrderedDict[int, Sequence[Any]] = OrderedDict()
        """The images of groups, that used last at the end."""

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_recent": OrderedDict()}

    def __len__(self) -> int:
        return len(self.shard_of)

    @property
    def targets(self) -> list[int]:
        """The label of each sample."""
        labels: list[int] = self._labels.tolist()
        return labels

    @property
    def config_key(self) -> list[tuple[str, int]]:
        """Name and size of each file, for fingerprints."""
        return [(file.name, file.stat().st_size) for file in self.files]

    def __getitem__(self, index: int) -> tuple[EncodedImage, int]:
        group = int(self.shard_of[index])
        row = index - int(self._starts[group])
        image = self._read_group(group)[row]
        file, _ = self.groups[group]
        path = f"{self.files[file].name} row {index - self._file_starts[file]}"
        if isinstance(image, dict):
            stored = image.get("path")
            path = stored if stored and isinstance(stored, str) else path
            image = image.get("bytes")
        if not isinstance(image, bytes):
            raise UnreadableFileError(path, f"column {self.image_column} has no bytes in this row")
        return EncodedImage(image, path), int(self._labels[index])

    def _read_group(self, group: int) -> Sequence[Any]:
        if group in self._recent:
            self._recent.move_to_end(group)
            return self._recent[group]
        number, group_in_file = self.groups[group]
        file = self.files[number]
        try:
            table = _open(file, ()).read_row_group(group_in_file, columns=[self.image_column])
        except Exception as error:  # pyarrow has errors of several kinds
            raise DataError(f"{file} cannot be read: {first_line(error)}") from error
        self._recent[group] = table.column(self.image_column).to_pylist()
        if len(self._recent) > self.window:
            self._recent.popitem(last=False)
        return self._recent[group]


def labeled_rows(
    root: str,
    *,
    split: Literal["train", "val", "test"],
    image_column: str,
    label_column: str,
    window: Count,
) -> ParquetImages | None:
    """Create the dataset of a split.

    Args:
        root: folder with Parquet files, or with folders of them; the name of a file, or of its
            folder, has the split as a word. Without any such name all files are for training.
        split: the split.
        image_column: column with the image files, as bytes or ``{"bytes": ..., "path": ...}``.
        label_column: column with the labels, integers from 0.
        window: number of groups of rows that are shuffled together, and kept in memory.

    Returns:
        The dataset; None if there is no such split, or one for testing has no labels.

    Raises:
        DataError: if there are no files, or one cannot be read.
        ConfigurationError: if pyarrow is not installed.
    """
    files = find_files(require_root(root, content=CONTENT))[split]
    if not files:
        return None
    dataset = ParquetImages(
        files, image_column=image_column, label_column=label_column, window=window
    )
    if split == "test" and not any(label != UNKNOWN_LABEL for label in dataset.targets):
        log.warning("%s: no image of test has a label: the split is left out", root)
        return None
    return dataset


def find_files(root: Path) -> dict[str, list[Path]]:
    """Find the Parquet files of each split.

    Raises:
        DataError: if there are none for training.
    """
    paths = sorted(path for path in root.rglob("*.parquet") if path.is_file())
    by_name = {str(path.relative_to(root)): path for path in paths}
    files_by_split = {
        split: [by_name[name] for name in names]
        for split, names in divide_by_split(list(by_name)).items()
    }
    if not files_by_split["train"]:
        names = summarize_names([path.name for path in paths], MAX_LISTED) or "none"
        raise DataError(
            f"{root} has no Parquet files for training (train-00000-of-00004.parquet ...); there "
            f"are {names}: type data.root=<folder with {CONTENT}>"
        )
    return files_by_split


def class_names(root: str, label_column: str) -> list[str]:
    """Return the class names that Hugging Face stores in the first file.

    Args:
        root: folder of the dataset.
        label_column: column with the labels.

    Raises:
        DataError: if there are none.
    """
    file = find_files(require_root(root, content=CONTENT))["train"][0]
    metadata = _open(file, (label_column,)).schema_arrow.metadata or {}
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        names = features[label_column]["names"]
    except (KeyError, ValueError, TypeError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(
            f"{file} does not name the classes of column {label_column}: type "
            "data.spec.class_names=[cat,dog]"
        )
    return names


def _open(file: Path, columns: Sequence[str]) -> Any:
    """Open a file that has some columns."""
    try:
        import pyarrow.parquet as parquet  # type: ignore[import-untyped]
    except ImportError as error:
        raise ConfigurationError(
            "data=parquet requires pyarrow: type pip install 'vision_lab[parquet]'"
        ) from error
    try:
        opened = parquet.ParquetFile(file)
    except Exception as error:  # pyarrow has errors of several kinds
        raise DataError(f"{file} is not a Parquet file: {first_line(error)}") from error
    names = opened.schema_arrow.names
    for column in columns:
        if column not in names:
            raise DataError(
                f"{file} has no column {column}, but {', '.join(names)}: type "
                "data.image_column=... and data.label_column=..."
            )
    return opened


def _read_labels(opened: Any, file: Path, column: str) -> NDArray[np.int64]:
    try:
        labels = opened.read(columns=[column]).column(column).to_numpy()
        with np.errstate(invalid="ignore"):  # of NaN, which is compared below
            integers = labels.astype(np.int64)
    except Exception as error:  # pyarrow has errors of several kinds
        raise DataError(f"{file}: column {column} has no numbers: {first_line(error)}") from error
    if not np.array_equal(integers, labels):
        raise DataError(f"{file}: column {column} has values that are not integers")
    return integers
