"""Held-out splits and subsets."""

from collections import Counter
from itertools import chain
from typing import Any

import pytest

from vision_lab.core.errors import DataError
from vision_lab.data.splits import evenly_spaced, sample_per_class, split_dataset

LABELS = [0] * 50 + [1] * 30 + [2] * 20


def split(seed: int = 0, **given: Any) -> dict[str, list[int]]:
    datasets: Any = {"train": LABELS, "val": None, "test": None, **given}
    parts = split_dataset(datasets, LABELS, holdout_fraction=0.1, seed=seed)
    return {name: list(getattr(part, "indices", [])) for name, part in parts.items()}


def test_missing_splits_are_disjoint_and_stratified():
    parts = split()
    assert sorted(chain.from_iterable(parts.values())) == list(range(100))
    for name in ("val", "test"):
        assert Counter(LABELS[index] for index in parts[name]) == {0: 5, 1: 3, 2: 2}


def test_the_selection_depends_on_the_seed():
    assert split() == split()
    assert split() != split(seed=1)


def test_given_splits_are_kept():
    parts = split(val=[7, 8], test=[9])
    assert parts == {"train": [], "val": [], "test": []}  # no subsets
    val_only = split(val=[7, 8])
    assert len(val_only["test"]) == 10
    assert len(val_only["train"]) == 90


def test_too_few_images_are_refused():
    datasets: Any = {"train": [0, 1], "val": None, "test": None}
    with pytest.raises(DataError, match="2 images cannot be split into train, val and test"):
        split_dataset(datasets, [0, 1], holdout_fraction=0.1, seed=0)


def test_subsets_are_evenly_spaced():
    assert evenly_spaced(10, 5) == [0, 2, 4, 6, 8]
    assert evenly_spaced(3, 3) == [0, 1, 2]


def test_samples_of_each_class():
    indices = sample_per_class(LABELS, count=25, seed=3)
    assert Counter(LABELS[index] for index in indices) == {0: 25, 1: 25, 2: 20}
    assert indices == sorted(indices)
