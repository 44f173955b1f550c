"""Folds of a dataset for cross-validation, balanced by class, without splitting groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import torch

from vision_lab.core.errors import DataError

ClassCounts = Mapping[int, int]
"""Number of objects of each class in a sample; one for its label."""


def assign_folds(
    class_counts: Sequence[ClassCounts],
    groups: Sequence[str] | None,
    *,
    num_folds: int,
    seed: int,
) -> list[int]:
    """Assign each sample to a fold, such that folds have similar class frequencies and sizes.

    Groups are assigned one after another, the largest ones first and equal ones in random order:
    each to the fold that has the smallest fraction of the classes of the group.

    Args:
        class_counts: the number of objects of each class in each sample.
        groups: the group of each sample, all of which get the same fold; None if each sample is a
            group.
        num_folds: number of folds.
        seed: seed of the order.

    Returns:
        The fold of each sample, from 0.

    Raises:
        DataError: if there are fewer groups than folds.
    """
    members = _list_members(groups, len(class_counts))
    if len(members) < num_folds:
        what = "images" if groups is None else "groups of images (data.groups)"
        raise DataError(
            f"data.folds={num_folds} requires at least {num_folds} {what}; there are "
            f"{len(members)}: type a smaller number"
        )
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(members), generator=generator).tolist()
    order.sort(key=lambda group: -len(members[group]))
    totals: Counter[int] = Counter()
    for counts in class_counts:
        totals.update(counts)
    folds = [_Fold() for _ in range(num_folds)]
    assigned = [0] * len(class_counts)
    for group in order:
        samples = members[group]
        classes: Counter[int] = Counter()
        for sample in samples:
            classes.update(class_counts[sample])
        costs = [fold.cost(classes, totals) for fold in folds]
        best = costs.index(min(costs))
        folds[best].add(classes, len(samples))
        for sample in samples:
            assigned[sample] = best
    return assigned


class _Fold:
    """The number of samples of a fold, and their objects of each class, so far."""

    def __init__(self) -> None:
        self.size = 0
        self.classes: Counter[int] = Counter()

    def cost(self, classes: ClassCounts, totals: ClassCounts) -> tuple[float, int]:
        """Return the fraction of the given classes that is in this fold already, and its size."""
        overlap = sum(
            self.classes[label] * count / totals[label] for label, count in classes.items()
        )
        return overlap, self.size

    def add(self, classes: ClassCounts, num_samples: int) -> None:
        """Add a group."""
        self.classes.update(classes)
        self.size += num_samples


def _list_members(groups: Sequence[str] | None, num_samples: int) -> list[list[int]]:
    """List the samples of each group, in the order of their first ones."""
    if groups is None:
        return [[sample] for sample in range(num_samples)]
    members: dict[str, list[int]] = {}
    for sample, group in enumerate(groups):
        members.setdefault(group, []).append(sample)
    return list(members.values())
