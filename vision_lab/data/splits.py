"""Splits of a dataset: held-out parts of the training split, and subsets of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch.utils.data import Subset

from vision_lab.core.errors import DataError
from vision_lab.core.protocols import Dataset
from vision_lab.core.spec import Split
from vision_lab.training.seeding import derive_seed


def split_dataset(
    datasets: Mapping[Split, Dataset | None],
    labels: Sequence[int] | None,
    *,
    holdout_fraction: float,
    seed: int,
) -> dict[Split, Dataset]:
    """Replace missing splits by held-out parts of the training split, stratified by label.

    Args:
        datasets: the splits; None for missing ones, except for train.
        labels: labels of the training split; None if it has none.
        holdout_fraction: size of each held-out part, as a fraction of the training split.
        seed: seed of the selection.

    Returns:
        All three splits.

    Raises:
        DataError: if the training split is too small.
    """
    train = datasets["train"]
    assert train is not None
    labels = labels or [0] * len(train)
    remaining = list(range(len(train)))
    count = max(1, round(holdout_fraction * len(train)))
    splits: dict[Split, Dataset] = {}
    names: tuple[Split, ...] = ("test", "val")
    for salt, split in enumerate(names):
        dataset = datasets[split]
        if dataset is None:
            remaining_labels = [labels[index] for index in remaining]
            seed_of_split = derive_seed(seed, salt)
            positions = _stratified_sample(remaining_labels, count=count, seed=seed_of_split)
            held_out = {remaining[position] for position in positions}
            dataset = Subset(train, sorted(held_out))  # type: ignore[arg-type]
            others = []
            for index in remaining:
                if index not in held_out:
                    others.append(index)
            remaining = others
        splits[split] = dataset
    if not remaining:
        raise DataError(
            f"{len(train)} images cannot be split into train, val and test: provide at least 3 "
            "images, or separate splits"
        )
    is_whole = len(remaining) == len(train)
    splits["train"] = train if is_whole else Subset(train, remaining)  # type: ignore[arg-type]
    return splits


def evenly_spaced(size: int, count: int) -> list[int]:
    """Return ``count`` evenly spaced integers from 0 to below ``size``."""
    return [index * size // count for index in range(count)]


def sample_per_class(
    labels: Sequence[int],
    *,
    count: int,
    seed: int,
) -> list[int]:
    """Sample a number of indices of each class.

    Args:
        labels: the labels.
        count: number of indices per class; all of them if there are fewer.
        seed: seed of the selection.

    Returns:
        The indices, in ascending order.
    """
    generator = torch.Generator().manual_seed(seed)
    counts: Counter[int] = Counter()
    selected = []
    for index in torch.randperm(len(labels), generator=generator).tolist():
        counts[labels[index]] += 1
        if counts[labels[index]] <= count:
            selected.append(index)
    return sorted(selected)


def _stratified_sample(
    labels: Sequence[int],
    *,
    count: int,
    seed: int,
) -> list[int]:
    """Sample ``count`` indices with the class frequencies of ``labels``, in ascending order.

    The members of each class, in random order, are spread evenly over (0, 1); the first ``count``
    of all classes together then have the frequencies of the whole.
    """
    generator = torch.Generator().manual_seed(seed)
    sizes = Counter(labels)
    seen: Counter[int] = Counter()
    ranked = []
    for index in torch.randperm(len(labels), generator=generator).tolist():
        label = labels[index]
        seen[label] += 1
        ranked.append(((seen[label] - 0.5) / sizes[label], index))
    return sorted(index for _, index in sorted(ranked)[:count])
