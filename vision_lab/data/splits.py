"""Splits of a dataset: held-out parts of the training split, folds, and subsets."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import ConcatDataset, Subset

from vision_lab.core.errors import DataError
from vision_lab.core.protocols import Dataset
from vision_lab.core.spec import Split, Target
from vision_lab.data.fingerprint import get_labels, has_paths
from vision_lab.data.folds import ClassCounts, assign_folds
from vision_lab.data.sample_groups import find_groups
from vision_lab.training.seeding import derive_seed

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SplitSettings:
    """How the samples of a dataset are divided.

    Attributes:
        holdout_fraction: size of each held-out part, as a fraction of the training split.
        seed: seed of the selection.
        num_folds: number of folds of cross-validation; None for the splits of the dataset.
        fold: the fold that is the test split.
        groups: which samples belong together, see ``find_groups``; None for none.
    """

    holdout_fraction: float
    seed: int
    num_folds: int | None = None
    fold: int = 0
    groups: str | None = None


def split_dataset(
    datasets: Mapping[Split, Dataset | None],
    target_type: Target,
    settings: SplitSettings,
) -> dict[Split, Dataset]:
    """Complete the splits of a dataset.

    Without folds, missing splits are replaced by held-out parts of the training split. With folds,
    the training and validation images are divided into folds; one is the test split, and of the
    others a part is held out for validation. Parts are stratified by label, and folds also by the
    boxes of each class. Samples of a group stay together.

    Args:
        datasets: the splits; None for missing ones, except for train.
        target_type: type of the targets.
        settings: the settings.

    Returns:
        All three splits.

    Raises:
        DataError: if the training split is too small, or groups cannot be used.
    """
    train = datasets["train"]
    assert train is not None
    if settings.num_folds is not None:
        if datasets["test"] is not None:
            log.info(
                "data.folds=%s: the test split of the data (%s images) is not used",
                settings.num_folds,
                len(datasets["test"]),
            )
        others, fold = _split_fold(_join(train, datasets["val"]), target_type, settings)
        datasets = {"train": others, "val": None, "test": fold}
    return _hold_out(datasets, target_type, settings)


def _join(train: Dataset, val: Dataset | None) -> Dataset:
    return train if val is None else ConcatDataset([train, val])  # type: ignore[list-item]


def _split_fold(
    dataset: Dataset, target_type: Target, settings: SplitSettings
) -> tuple[Dataset, Dataset]:
    """Divide a dataset into the other folds and the selected one."""
    assert settings.num_folds is not None
    assigned = assign_folds(
        _count_classes(dataset, target_type),
        _find_groups(dataset, target_type, settings),
        num_folds=settings.num_folds,
        seed=settings.seed,
    )
    others: list[int] = []
    selected: list[int] = []
    for index, fold in enumerate(assigned):
        (selected if fold == settings.fold else others).append(index)
    return Subset(dataset, others), Subset(dataset, selected)  # type: ignore[arg-type]


def _find_groups(
    dataset: Dataset, target_type: Target, settings: SplitSettings
) -> list[str] | None:
    """Find the group of each sample; None without groups.

    Raises:
        DataError: if groups cannot be used, or if each is a class.
    """
    if settings.groups is None:
        return None
    groups = find_groups(dataset, settings.groups)
    if target_type == "labels":
        labels = get_labels(dataset)
        num_pairs = len(set(zip(groups, labels, strict=True)))
        if num_pairs == len(set(groups)) == len(set(labels)) > 1:
            raise DataError(
                f"data.groups={settings.groups}: each group is a class, so that networks would be "
                "tested on classes that they were not trained on: use other groups, or null"
            )
    return groups


def _count_classes(dataset: Dataset, target_type: Target) -> list[ClassCounts]:
    """Count the objects of each class in each sample; all are one class if that is not known."""
    if target_type == "labels":
        return [{label: 1} for label in get_labels(dataset)]
    if target_type == "boxes" and has_paths(dataset):
        targets = [dataset[index][1] for index in range(len(dataset))]
        return [Counter(map(int, target["labels"])) for target in targets]
    return [{0: 1}] * len(dataset)


def _hold_out(
    datasets: Mapping[Split, Dataset | None],
    target_type: Target,
    settings: SplitSettings,
) -> dict[Split, Dataset]:
    """Replace missing splits by held-out parts of the training split."""
    train = datasets["train"]
    assert train is not None
    labels = get_labels(train) if target_type == "labels" else [0] * len(train)
    groups = _find_groups(train, target_type, settings)
    remaining = list(range(len(train)))
    count = max(1, round(settings.holdout_fraction * len(train)))
    splits: dict[Split, Dataset] = {}
    names: tuple[Split, ...] = ("test", "val")
    for salt, split in enumerate(names):
        dataset = datasets[split]
        if dataset is None:
            positions = _select(
                [labels[index] for index in remaining],
                [groups[index] for index in remaining] if groups else None,
                count=count,
                seed=derive_seed(settings.seed, salt),
            )
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


def _select(
    labels: Sequence[int],
    groups: Sequence[str] | None,
    *,
    count: int,
    seed: int,
) -> list[int]:
    """Select about ``count`` samples, stratified by label; of groups, all samples or none."""
    if groups is None or not labels:
        return _stratified_sample(labels, count=count, seed=seed)
    num_groups = len(set(groups))
    if num_groups < 2:
        raise DataError(
            "data.groups: all images that are left are of one group, of which no part can be held "
            "out: provide more groups, or separate splits"
        )
    counts = [{label: 1} for label in labels]
    num_parts = min(max(2, round(len(labels) / count)), num_groups)
    parts = assign_folds(counts, groups, num_folds=num_parts, seed=seed)
    sizes = Counter(parts)
    selected: set[int] = set()
    total = 0
    for part in sorted(sizes, key=lambda part: (sizes[part], part)):
        # The smallest ones first, since the largest group may be larger than what is asked for.
        if not selected or abs(total + sizes[part] - count) < abs(total - count):
            selected.add(part)
            total += sizes[part]
    return [index for index, part in enumerate(parts) if part in selected]


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
