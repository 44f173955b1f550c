"""What a data set holds, in a few numbers that change when it does."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from os.path import commonpath
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Subset

from vision_lab.types import Dataset


def fingerprint(dataset: Dataset, *, labelled: bool = True) -> dict[str, Any]:
    """How many samples there are, and hashes of their labels and, where samples are files, of names and sizes.

    Names are taken from the folder that all files share, so that a data set may move. No file is opened: a picture
    that is changed without a change of its size goes unnoticed.
    """
    found: dict[str, Any] = {"count": len(dataset)}
    if labelled:
        found["labels"] = _digest(map(str, labels_of(dataset)))
    paths = paths_of(dataset)
    if paths:
        base = commonpath([path.parent for path in paths])
        sizes = (f"{path.relative_to(base)}:{path.stat().st_size if path.exists() else None}" for path in paths)
        found["files"] = _digest(sizes)
    return found


def labels_of(dataset: Dataset) -> list[int]:
    """The label of each sample: the data set's ``targets`` (torchvision's convention), or else read one by one."""
    if isinstance(dataset, Subset):
        labels = labels_of(dataset.dataset)  # type: ignore[arg-type]
        return [labels[index] for index in dataset.indices]
    targets = getattr(dataset, "targets", None)
    if targets is None:
        targets = [dataset[index][1] for index in range(len(dataset))]
    return torch.as_tensor(targets).tolist()


def paths_of(dataset: Dataset) -> list[Path]:
    """The file of each sample; none where samples are no files."""
    if isinstance(dataset, Subset):
        paths = paths_of(dataset.dataset)  # type: ignore[arg-type]
        return [paths[index] for index in dataset.indices] if paths else []
    if samples := getattr(dataset, "samples", None):  # torchvision's convention for folders
        return [Path(path) for path, _ in samples]
    if not len(dataset) or not isinstance(dataset[0][0], str | Path):
        return []
    return [Path(dataset[index][0]) for index in range(len(dataset))]


def _digest(lines: Iterator[str]) -> str:
    digest = blake2b(digest_size=8)
    for line in lines:
        digest.update(f"{line}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()
