"""Fingerprints of datasets, which change when the data changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from itertools import chain
from os.path import commonpath
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset

from vision_lab.core.errors import DataError
from vision_lab.core.protocols import Dataset

LABEL_RULE = "labels must be integers from 0, one for each sample"


def fingerprint(dataset: Dataset, *, has_labels: bool) -> dict[str, Any]:
    """Hash the labels, the files' names and sizes, and the annotations of a dataset.

    A dataset describes its samples by ``targets`` and ``samples``, as torchvision's do: the latter
    is a list of (path, target), whose target may be a path, or the bytes of an annotation. A
    generated dataset returns its settings as ``config_key``. File names are relative to the folder
    that all files share, so a dataset may be moved. Files are not opened: an image that changes
    without a change of its size is not noticed.

    Args:
        dataset: the dataset.
        has_labels: whether targets are class labels; other targets are not read.

    Returns:
        The number of samples, and the hashes that apply.
    """
    result: dict[str, Any] = {"count": len(dataset)}
    if has_labels:
        result["labels"] = _digest(map(str, get_labels(dataset)))
    samples = get_samples(dataset)
    if samples is None and has_labels and has_paths(dataset):
        samples = [(dataset[index][0], None) for index in range(len(dataset))]
    paths: list[Path] = []
    annotations: list[str] = []
    for part in chain.from_iterable(samples or ()):
        if isinstance(part, bytes):
            annotations.append(str(part))
        elif isinstance(part, str | Path):
            paths.append(Path(part))
    if paths:
        result["files"] = _digest(_describe_files(paths))
    elif isinstance(dataset, Subset) and len(dataset) < len(dataset.dataset):  # type: ignore[arg-type]
        result["indices"] = _digest(list_origins(dataset, {}))  # others may have the same labels
    config_key = _get_config_key(dataset)
    if annotations or config_key:
        result["annotations"] = _digest([*annotations, repr(config_key)])
    return result


def get_labels(dataset: Dataset) -> list[int]:
    """Return the label of each sample: the attribute ``targets`` if there is one, else all targets.

    Raises:
        DataError: if a label is not an integer.
    """
    if isinstance(dataset, Subset):
        labels = get_labels(dataset.dataset)  # type: ignore[arg-type]
        return [labels[index] for index in dataset.indices]
    if isinstance(dataset, ConcatDataset):
        return list(chain.from_iterable(map(get_labels, dataset.datasets)))  # type: ignore[arg-type]
    targets = getattr(dataset, "targets", None)
    if targets is None:
        targets = [dataset[index][1] for index in range(len(dataset))]
    try:
        tensor = torch.as_tensor(targets)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{LABEL_RULE}: {error}") from error
    _check_integers(tensor)
    return tensor.long().tolist()


def get_samples(dataset: Dataset) -> Sequence[tuple[Any, Any]] | None:
    """Return the attribute ``samples`` of a dataset or its parts; None if there is none."""
    if isinstance(dataset, Subset):
        samples = get_samples(dataset.dataset)  # type: ignore[arg-type]
        if samples is None:
            return None
        return [samples[index] for index in dataset.indices]
    if isinstance(dataset, ConcatDataset):
        parts = [get_samples(part) for part in dataset.datasets]  # type: ignore[arg-type]
        if None in parts:
            return None
        return [sample for part in parts for sample in part or ()]
    return getattr(dataset, "samples", None)


def get_shards(dataset: Dataset) -> Tensor | None:
    """Return the index of the shard of each sample, (n,) int64, from 0; None without shards.

    These are the attribute ``shard_of`` of a dataset.
    """
    if isinstance(dataset, Subset):
        shards = get_shards(dataset.dataset)  # type: ignore[arg-type]
        if shards is None:
            return None
        return shards[list(dataset.indices)].unique(return_inverse=True)[1]
    shard_of = getattr(dataset, "shard_of", None)
    return None if shard_of is None else torch.from_numpy(shard_of)


def get_window(dataset: Dataset) -> int:
    """Return the attribute ``window`` of a dataset with shards."""
    if isinstance(dataset, Subset):
        return get_window(dataset.dataset)  # type: ignore[arg-type]
    window: int = dataset.window  # type: ignore[attr-defined]
    return window


def list_paths(dataset: Dataset) -> list[Path] | None:
    """List the path of each image.

    Args:
        dataset: the dataset.

    Returns:
        The paths; None if the images are not files.
    """
    samples = get_samples(dataset)
    if samples is None and has_paths(dataset):
        samples = [dataset[index] for index in range(len(dataset))]
    if not samples or not isinstance(samples[0][0], str | Path):
        return None
    return [Path(sample[0]) for sample in samples]


def list_origins(dataset: Dataset, names: Mapping[int, str]) -> list[str]:
    """List the dataset and the index that each sample of a subset is from, such as ``train 17``.

    Args:
        dataset: a dataset, or subsets and concatenations of datasets.
        names: names of the datasets by ``id``.
    """
    if isinstance(dataset, Subset) and id(dataset) not in names:
        origins = list_origins(dataset.dataset, names)  # type: ignore[arg-type]
        return [origins[index] for index in dataset.indices]
    if isinstance(dataset, ConcatDataset) and id(dataset) not in names:
        parts: list[Any] = dataset.datasets
        return [origin for part in parts for origin in list_origins(part, names)]
    name = names.get(id(dataset), "sample")
    return [f"{name} {index}" for index in range(len(dataset))]


def has_paths(dataset: Dataset) -> bool:
    """Return whether images are paths, so that samples can be read without decoding images."""
    if get_shards(dataset) is not None:
        return False  # reading a sample may copy a shard
    return len(dataset) > 0 and isinstance(dataset[0][0], str | Path)


def _check_integers(labels: Tensor) -> None:
    if labels.ndim != 1:
        shape = list(labels.shape[1:])
        raise DataError(f"{LABEL_RULE}; the label of a sample has shape {shape}")
    if labels.is_floating_point():
        invalid = (labels != labels.round()).nonzero().flatten().tolist()
        if invalid:
            value = labels[invalid[0]].item()
            raise DataError(f"{LABEL_RULE}; sample {invalid[0]} has {value:g}")


def _describe_files(paths: Sequence[Path]) -> Iterable[str]:
    folder = commonpath([path.parent for path in paths])
    for path in paths:
        size = path.stat().st_size if path.exists() else None
        yield f"{path.relative_to(folder)}:{size}"


def _get_config_key(dataset: Any) -> Any:
    if isinstance(dataset, Subset):
        return _get_config_key(dataset.dataset)
    if isinstance(dataset, ConcatDataset):
        keys = [_get_config_key(part) for part in dataset.datasets]
        return keys if any(keys) else None
    return getattr(dataset, "config_key", None)


def _digest(lines: Iterable[str]) -> str:
    digest = blake2b(digest_size=8)
    for line in lines:
        digest.update(f"{line}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()
