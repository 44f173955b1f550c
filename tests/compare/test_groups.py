"""Groups of runs by what they differ in."""

from pathlib import Path

import pytest

from tests.compare.made_runs import make_run
from vision_lab.compare.groups import Group, find_differing_keys, group_runs
from vision_lab.compare.runs import FinishedRun, find_runs, read_runs
from vision_lab.core.errors import ConfigurationError


def read(folder: Path) -> list[FinishedRun]:
    finished, left_out = read_runs(find_runs([str(folder)]))
    assert left_out == []
    return finished


def names(groups: list[Group]) -> list[str]:
    return [f"{group.name}: {len(group.runs)}" for group in groups]


def test_runs_that_differ_in_their_seeds_are_one_group(tmp_path: Path):
    for seed in range(3):
        make_run(tmp_path / str(seed), score=0.5, config={"seed": seed, "name": f"x{seed}"})
    (group,) = group_runs(read(tmp_path))
    assert group.name == "all runs"
    assert group.values("val/accuracy") == {("0",): 0.5, ("1",): 0.5, ("2",): 0.5}


def test_runs_that_differ_in_their_folds_are_one_group(tmp_path: Path):
    for fold in range(2):
        for seed in range(2):
            config = {"seed": seed, "data.folds": 2, "data.fold": fold}
            make_run(tmp_path / f"{fold}-{seed}", score=0.5 + fold / 10, config=config)
    (group,) = group_runs(read(tmp_path))
    assert group.num_folds == 2
    assert group.overlap == 1
    # Other seeds test on the same images, so that there are as many values as folds.
    assert group.values("val/accuracy") == {("0",): 0.5, ("1",): pytest.approx(0.6)}


def test_keys_that_follow_from_a_choice_are_left_out(tmp_path: Path):
    for model, depth in (("resnet18", 18), ("alexnet", 5)):
        for seed in range(2):
            config = {"seed": seed, "model.network.depth": depth, "optimizer.lr": depth / 100}
            folder = tmp_path / f"{model}-{seed}"
            make_run(folder, score=0.5, choices={"model": model}, config=config)
    groups = group_runs(read(tmp_path))
    assert names(groups) == ["model=alexnet: 2", "model=resnet18: 2"]


def test_keys_that_vary_within_a_choice_are_kept(tmp_path: Path):
    for model in ("resnet18", "alexnet"):
        for lr in (0.1, 0.2):
            folder = tmp_path / f"{model}-{lr}"
            make_run(folder, score=0.5, choices={"model": model}, config={"optimizer.lr": lr})
    runs = read(tmp_path)
    assert list(find_differing_keys(runs)) == ["model", "optimizer.lr"]
    assert len(group_runs(runs)) == 4
    by_rate = group_runs(runs, by=["optimizer.lr"])
    assert names(by_rate) == ["optimizer.lr=0.1: 2", "optimizer.lr=0.2: 2"]
    assert set(by_rate[0].values("val/accuracy")) == {("0", "alexnet"), ("0", "resnet18")}
    with pytest.raises(ConfigurationError, match=r"mode\.by=seed: the runs do not differ in it"):
        group_runs(runs, by=["seed"])


def test_two_runs_of_a_seed_in_a_group_are_refused(tmp_path: Path):
    for name in ("a", "b"):
        make_run(tmp_path / name, score=0.5)
    (group,) = group_runs(read(tmp_path))
    with pytest.raises(ConfigurationError, match="several runs have seed=0, such as"):
        group.values("val/accuracy")
