"""torchvision's datasets of photographs, in their own layouts."""

import json
from pathlib import Path

import pytest
from scipy.io import savemat

from vision_lab.core.errors import ConfigurationError, DataError
from vision_lab.data.bundled.names import read_names
from vision_lab.data.formats import torchvision_labels


def test_pets_have_their_breeds(tmp_path: Path):
    folder = tmp_path / "oxford-iiit-pet"
    (folder / "annotations").mkdir(parents=True)
    (folder / "images").mkdir()
    lines = "Abyssinian_100 1 1 1\nbeagle_7 5 2 3\n"
    (folder / "annotations" / "trainval.txt").write_text(lines)
    (folder / "annotations" / "test.txt").write_text("yorkshire_terrier_1 37 2 25\n")
    train = torchvision_labels.oxford_pets(split="train", root=str(tmp_path), download=False)
    assert train is not None
    assert train.targets == [0, 4]
    assert train.paths[1] == folder / "images" / "beagle_7.jpg"
    names = read_names("oxford_pets_classes.txt")
    assert [names[label] for label in train.targets] == ["abyssinian", "beagle"]
    test = torchvision_labels.oxford_pets(split="test", root=str(tmp_path), download=False)
    assert test is not None
    assert names[test.targets[0]] == "yorkshire terrier"
    assert torchvision_labels.oxford_pets(split="val", root=str(tmp_path), download=False) is None


def test_food_has_its_dishes_in_the_order_of_their_folders(tmp_path: Path):
    folder = tmp_path / "food-101"
    (folder / "meta").mkdir(parents=True)
    (folder / "images").mkdir()
    names = read_names("food101_classes.txt")
    dishes = [name.replace(" ", "_") for name in names]
    content = {name: [f"{name}/1", f"{name}/2"] for name in reversed(dishes)}
    for split in ("train", "test"):
        (folder / "meta" / f"{split}.json").write_text(json.dumps(content))
    train = torchvision_labels.food101(split="train", root=str(tmp_path), download=False)
    assert train is not None
    assert len(train) == 202
    for path, label in zip(train.paths, train.targets, strict=True):
        assert path.parent.name == dishes[label]


def test_flowers_have_three_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "flowers-102"
    (folder / "jpg").mkdir(parents=True)
    savemat(folder / "setid.mat", {"trnid": [3, 4], "valid": [1, 2], "tstid": [4, 3]})
    savemat(folder / "imagelabels.mat", {"labels": [102, 1, 5, 7]})
    monkeypatch.setattr("torchvision.datasets.flowers102.check_integrity", lambda *_: True)
    found = {}
    for split in ("train", "val", "test"):
        dataset = torchvision_labels.flowers102(split=split, root=str(tmp_path), download=False)
        assert dataset is not None
        found[split] = [
            (path.name, label) for path, label in map(dataset.__getitem__, range(len(dataset)))
        ]
    assert found["val"] == [("image_00001.jpg", 101), ("image_00002.jpg", 0)]
    assert len(read_names("flowers102_classes.txt")) == 102
    monkeypatch.setitem(__import__("sys").modules, "scipy.io", None)
    with pytest.raises(ConfigurationError, match="data=flowers102 requires SciPy"):
        torchvision_labels.flowers102(split="train", root=str(tmp_path), download=False)


@pytest.mark.parametrize("name", ["oxford_pets", "flowers102", "food101"])
def test_missing_files_are_named(tmp_path: Path, name):
    with pytest.raises(DataError, match=r"is missing or incomplete in .*type data.root="):
        getattr(torchvision_labels, name)(split="train", root=str(tmp_path), download=False)
