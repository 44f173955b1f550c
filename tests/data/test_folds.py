"""Folds of cross-validation: every sample once, balanced by class, no group in two."""

from collections import Counter

import pytest

from vision_lab.core.errors import DataError
from vision_lab.data.folds import assign_folds

LABELS = [0] * 50 + [1] * 33 + [2] * 20
COUNTS = [{label: 1} for label in LABELS]


def test_folds_have_equal_sizes_and_class_frequencies():
    folds = assign_folds(COUNTS, None, num_folds=5, seed=0)
    assert sorted(Counter(folds).values()) == [20, 20, 21, 21, 21]
    for fold in range(5):
        classes = Counter(
            label for label, found in zip(LABELS, folds, strict=True) if found == fold
        )
        assert classes[0] == 10
        assert classes[1] in (6, 7)
        assert classes[2] == 4


def test_the_folds_depend_on_the_seed_only():
    assert assign_folds(COUNTS, None, num_folds=3, seed=1) == assign_folds(
        COUNTS, None, num_folds=3, seed=1
    )
    assert assign_folds(COUNTS, None, num_folds=3, seed=1) != assign_folds(
        COUNTS, None, num_folds=3, seed=2
    )


def test_groups_stay_together_and_folds_are_balanced():
    groups = [f"patient {index // 4}" for index in range(len(LABELS))]
    folds = assign_folds(COUNTS, groups, num_folds=4, seed=0)
    assert all(
        len({f for f, g in zip(folds, groups, strict=True) if g == group}) == 1 for group in groups
    )
    sizes = Counter(folds).values()
    assert max(sizes) - min(sizes) <= 4
    for fold in range(4):
        classes = Counter(
            label for label, found in zip(LABELS, folds, strict=True) if found == fold
        )
        assert 8 <= classes[0] <= 17
        assert 4 <= classes[2] <= 8


def test_samples_of_several_classes_are_balanced():
    counts = [{0: 1, 1: index % 3} for index in range(60)]
    folds = assign_folds(counts, None, num_folds=3, seed=0)
    totals = Counter()
    for fold, classes in zip(folds, counts, strict=True):
        totals[fold] += classes[1]
    assert max(totals.values()) - min(totals.values()) <= 2


def test_too_few_groups_are_refused():
    with pytest.raises(DataError, match=r"data.folds=5 requires at least 5 images; there are 3"):
        assign_folds(COUNTS[:3], None, num_folds=5, seed=0)
    with pytest.raises(DataError, match=r"5 groups of images \(data.groups\); there are 1"):
        assign_folds(COUNTS, ["a"] * len(COUNTS), num_folds=5, seed=0)
