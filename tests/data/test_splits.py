"""Held-out splits and subsets."""

from collections import Counter
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from vision_lab.core.errors import DataError
from vision_lab.data.fingerprint import get_labels
from vision_lab.data.formats.box_dataset import BoxAnnotation, ImageAnnotation, box_dataset
from vision_lab.data.formats.image_folder import LabeledImages
from vision_lab.data.splits import SplitSettings, evenly_spaced, sample_per_class, split_dataset

LABELS = [0] * 50 + [1] * 30 + [2] * 20


SETTINGS = SplitSettings(holdout_fraction=0.1, seed=0)


def labeled(labels: list[int], folder: str = "images", per_group: int = 1) -> LabeledImages:
    paths = [Path(folder, f"group_{i // per_group}", f"{i}.jpg") for i in range(len(labels))]
    return LabeledImages(paths, labels)


def split(seed: int = 0, **given: Any) -> dict[str, list[int]]:
    datasets: Any = {"train": labeled(LABELS), "val": None, "test": None, **given}
    parts = split_dataset(datasets, "labels", replace(SETTINGS, seed=seed))
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
    datasets: Any = {"train": labeled([0, 1]), "val": None, "test": None}
    with pytest.raises(DataError, match="2 images cannot be split into train, val and test"):
        split_dataset(datasets, "labels", SETTINGS)


def read(dataset: Any) -> list[Any]:
    return [dataset[index][0] for index in range(len(dataset))]


def split_folds(datasets: Any, target_type: Any, **settings: Any) -> list[dict[str, list[Any]]]:
    found = []
    for fold in range(5):
        fold_settings = replace(SETTINGS, num_folds=5, fold=fold, **settings)
        parts = split_dataset(datasets, target_type, fold_settings)
        found.append({name: read(part) for name, part in parts.items()})
    return found


def test_each_image_of_train_and_val_is_tested_in_one_fold():
    datasets = {
        "train": labeled(LABELS),
        "val": labeled([0, 1, 2] * 5, "val"),
        "test": labeled([1]),
    }
    everything = read(datasets["train"]) + read(datasets["val"])
    folds = split_folds(datasets, "labels")
    assert sorted(chain.from_iterable(parts["test"] for parts in folds)) == sorted(everything)
    for parts in folds:
        assert sorted(chain.from_iterable(parts.values())) == sorted(everything)
        assert len(parts["test"]) == 23
        assert len(parts["val"]) == 9
    parts = split_dataset(datasets, "labels", replace(SETTINGS, num_folds=5, fold=1))
    assert [Counter(get_labels(parts["test"]))[label] for label in range(3)] == [11, 7, 5]


def test_no_group_is_in_two_splits():
    datasets = {"train": labeled(LABELS, per_group=4), "val": None, "test": None}
    folds = split_folds(datasets, "labels", groups="folder")
    assert len(list(chain.from_iterable(parts["test"] for parts in folds))) == 100
    for parts in [*folds, {name: read(part) for name, part in held_out(datasets).items()}]:
        groups = [{path.parent for path in paths} for paths in parts.values()]
        assert all(groups)
        assert sum(map(len, groups)) == len(set.union(*groups)) == 25


def test_the_largest_group_is_not_held_out():
    paths = [Path("large", f"{i}.jpg") for i in range(50)]
    paths += [Path(f"small_{i // 5}", f"{i}.jpg") for i in range(50)]
    dataset = LabeledImages(paths, [i % 2 for i in range(100)])
    parts = held_out({"train": dataset, "val": None, "test": None})
    assert {path.parent.name for path in read(parts["train"])} > {"large"}
    assert len(parts["test"]) == len(parts["val"]) == 10


def test_groups_that_are_classes_are_refused():
    paths = [Path("cat" if i % 2 else "dog", f"{i}.jpg") for i in range(20)]
    dataset = LabeledImages(paths, [i % 2 for i in range(20)])
    with pytest.raises(DataError, match=r"data.groups=folder: each group is a class"):
        held_out({"train": dataset, "val": None, "test": None})


def test_a_part_cannot_be_held_out_of_one_group():
    paths = [Path("a" if i % 2 else "b", f"{i}.jpg") for i in range(20)]
    dataset = LabeledImages(paths, [i // 10 for i in range(20)])
    with pytest.raises(DataError, match="all images that are left are of one group"):
        held_out({"train": dataset, "val": None, "test": None})


def held_out(datasets: Any) -> Any:
    return split_dataset(datasets, "labels", replace(SETTINGS, groups="folder"))


def test_folds_are_balanced_by_the_boxes_of_each_class():
    annotations = []
    for index in range(40):
        boxes = [BoxAnnotation((0, 0, 9, 9), "rare" if index < 10 else "usual")] * 2
        annotations.append(ImageAnnotation(Path(f"{index}.jpg"), boxes, (10, 10), Path("x.csv")))
    dataset = box_dataset(annotations, class_names=["usual", "rare"], on_error="raise")
    folds = split_folds({"train": dataset, "val": None, "test": None}, "boxes")
    for parts in folds:
        assert len(parts["test"]) == 8
        assert sum(int(path.stem) < 10 for path in parts["test"]) == 2


def test_folds_of_masks_have_equal_sizes():
    masks = [(Path(f"{index}.png"), index) for index in range(23)]
    folds = split_folds({"train": masks, "val": None, "test": None}, "masks")
    assert sorted(len(parts["test"]) for parts in folds) == [4, 4, 5, 5, 5]


def test_subsets_are_evenly_spaced():
    assert evenly_spaced(10, 5) == [0, 2, 4, 6, 8]
    assert evenly_spaced(3, 3) == [0, 1, 2]


def test_samples_of_each_class():
    indices = sample_per_class(LABELS, count=25, seed=3)
    assert Counter(LABELS[index] for index in indices) == {0: 25, 1: 25, 2: 20}
    assert indices == sorted(indices)
