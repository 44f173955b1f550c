"""Parts of a data set: what stands in for a missing split, and a few of each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch.utils.data import Subset

from vision_lab.core.errors import DataError
from vision_lab.core.protocols import Dataset
from vision_lab.core.spec import Split
from vision_lab.training.seeding import derive_seed


def split_dataset(
    found: Mapping[Split, Dataset | None],
    labels: Sequence[int] | None,
    *,
    holdout: float,
    seed: int,
) -> dict[Split, Dataset]:
    """The splits, with parts of train for those that are missing, in which each label has its share."""
    train = found["train"]
    assert train is not None
    labels = labels or [0] * len(train)
    remaining = list(range(len(train)))
    splits: dict[Split, Dataset] = {}
    part = max(1, round(holdout * len(train)))
    for salt, split in enumerate(("test", "val")):
        dataset = found[split]  # type: ignore[index]
        if dataset is None:
            places = _stratified(
                [labels[index] for index in remaining], count=part, seed=derive_seed(seed, salt)
            )
            held = {remaining[place] for place in places}
            dataset = Subset(train, sorted(held))  # type: ignore[arg-type]
            remaining = [index for index in remaining if index not in held]
        splits[split] = dataset  # type: ignore[index]
    if not remaining:
        raise DataError(
            f"{len(train)} pictures cannot be divided into train, val and test: there must be 3 at least, or splits of "
            "their own"
        )
    splits["train"] = train if len(remaining) == len(train) else Subset(train, remaining)  # type: ignore[arg-type]
    return splits


def evenly_spaced(size: int, count: int) -> list[int]:
    """So many of the places from 0 to below ``size``, evenly spaced."""
    return [place * size // count for place in range(count)]


def _stratified(labels: Sequence[int], *, count: int, seed: int) -> list[int]:
    """``count`` places in which each class has its share, by seed, in rising order."""
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(labels), generator=generator).tolist()
    # Spread the members of each class evenly over (0, 1): the first of all classes' members are then a fair sample.
    seen: dict[int, int] = {}
    sizes: dict[int, int] = {}
    for label in labels:
        sizes[label] = sizes.get(label, 0) + 1
    ranks = []
    for place in shuffled:
        label = labels[place]
        seen[label] = seen.get(label, 0) + 1
        ranks.append(((seen[label] - 0.5) / sizes[label], place))
    return sorted(place for _, place in sorted(ranks)[:count])


def sample_per_class(labels: Sequence[int], *, count: int, seed: int) -> list[int]:
    """Places of ``count`` members of each class, or of all where there are fewer; by seed, in rising order."""
    generator = torch.Generator().manual_seed(seed)
    taken: dict[int, int] = {}
    chosen = []
    for place in torch.randperm(len(labels), generator=generator).tolist():
        taken[labels[place]] = taken.get(labels[place], 0) + 1
        if taken[labels[place]] <= count:
            chosen.append(place)
    return sorted(chosen)
