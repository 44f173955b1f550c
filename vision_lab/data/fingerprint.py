"""What a data set holds, in a few numbers that change when it does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from os.path import commonpath
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Subset

from vision_lab.core.errors import DataError
from vision_lab.core.protocols import Dataset


def fingerprint(dataset: Dataset, *, labelled: bool) -> dict[str, Any]:
    """How many samples there are, and hashes of their labels, of their files' names and sizes, and of what is told.

    A data set says what its samples are by ``targets`` and ``samples``, as torchvision's do: the latter a list of
    (path, target), whose target may be a path too, or the words of an annotation; one that is made by a rule says
    what it follows by ``identity``. Names are taken from the folder that all files share, so that a data set may
    move. No file is opened: a picture that is changed without a change of its size goes unnoticed.

    Args:
        dataset: any.
        labelled: whether targets are labels; other targets are not read one by one.
    """
    found: dict[str, Any] = {"count": len(dataset)}
    if labelled:
        found["labels"] = _digest(map(str, labels_of(dataset)))
    samples = samples_of(dataset)
    if samples is None and labelled and len(dataset) and isinstance(dataset[0][0], str | Path):
        samples = [(dataset[index][0], None) for index in range(len(dataset))]
    paths = [
        Path(part) for sample in samples or () for part in sample if isinstance(part, str | Path)
    ]
    if paths:
        base = commonpath([path.parent for path in paths])
        sizes = (
            f"{path.relative_to(base)}:{path.stat().st_size if path.exists() else None}"
            for path in paths
        )
        found["files"] = _digest(sizes)
    told = [str(part) for sample in samples or () for part in sample if isinstance(part, bytes)]
    identity = _identity(dataset)
    if told or identity:
        found["made_of"] = _digest(iter([*told, repr(identity)]))
    return found


def labels_of(dataset: Dataset) -> list[int]:
    """The label of each sample: the data set's ``targets`` (torchvision's convention), or else read one by one.

    Raises:
        DataError: if one is no whole number.
    """
    if isinstance(dataset, Subset):
        labels = labels_of(dataset.dataset)  # type: ignore[arg-type]
        return [labels[index] for index in dataset.indices]
    targets = getattr(dataset, "targets", None)
    if targets is None:
        targets = [dataset[index][1] for index in range(len(dataset))]
    try:
        found = torch.as_tensor(targets)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"labels are to be whole numbers from 0, one a sample: {error}") from error
    _check_whole_numbers(found)
    return found.long().tolist()


def _check_whole_numbers(labels: Tensor) -> None:
    what = "labels are to be whole numbers from 0, one a sample: let the data set give the number of each one's class"
    if labels.ndim != 1:
        raise DataError(f"{what}; now a sample has labels of the shape {list(labels.shape[1:])}")
    wrong = (
        (labels != labels.round()).nonzero()
        if labels.is_floating_point()
        else labels.new_zeros(0, 1)
    )
    if len(wrong):
        raise DataError(f"{what}; now sample {wrong[0].item()} has {labels[wrong[0]].item():g}")


def samples_of(dataset: Dataset) -> Sequence[tuple[Any, Any]] | None:
    """What a data set says of its samples without opening any; None where it says nothing."""
    if isinstance(dataset, Subset):
        whole = samples_of(dataset.dataset)  # type: ignore[arg-type]
        return None if whole is None else [whole[index] for index in dataset.indices]
    return getattr(dataset, "samples", None)


def _identity(dataset: Any) -> Any:
    return (
        _identity(dataset.dataset)
        if isinstance(dataset, Subset)
        else getattr(dataset, "identity", None)
    )


def _digest(lines: Iterator[str]) -> str:
    digest = blake2b(digest_size=8)
    for line in lines:
        digest.update(f"{line}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()
