"""``mode=compare`` on the command line: table, files, order, refusals."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.builders import FAST, Outcome
from tests.compare.made_runs import make_run

Command = Callable[..., Outcome]


@pytest.fixture
def models(command: Command) -> Command:
    """Three models with three seeds each, of which one is better."""
    scores = {
        "alexnet": (0.70, 0.72, 0.73),
        "resnet18": (0.80, 0.83, 0.82),
        "vgg11": (0.81, 0.80, 0.825),
    }
    for model, values in scores.items():
        for seed, score in enumerate(values):
            folder = Path(f"outputs/x/{model}-{seed}")
            make_run(folder, score=score, choices={"model": model}, config={"seed": seed})
    return command


def test_a_comparison(models: Command):
    make_run(Path("outputs/x/late"), score=0.1, state="failed")
    outcome = models("mode=compare", "runs=outputs/x")
    assert outcome.code == 0, outcome.err
    assert "val/accuracy, larger is better" in outcome.out
    assert "left out: outputs/x/late: failed: it failed" in outcome.out
    with Path("outputs/x/compare/compare.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["model"] for row in rows] == ["resnet18", "vgg11", "alexnet"]
    assert [row["verdict"].split()[0] for row in rows] == ["best", "undecided", "worse"]
    assert [row["seeds"] for row in rows] == ["3"] * 3
    found = json.loads(Path("outputs/x/compare/compare.json").read_text())
    assert found["reference"] == {"model": "resnet18"}
    assert found["groups"][2]["difference"]["mean"] == pytest.approx(-0.1, abs=0.01)
    table = Path("outputs/x/compare/compare.md").read_text()
    assert table.startswith("| model | seeds | val/accuracy | verdict | difference |")
    assert "Left out: outputs/x/late: failed: it failed" in table
    assert "\n\n    python -m vision_lab mode=compare runs=outputs/x\n" in table
    assert "![val/accuracy of 3 groups](compare.png)" in table
    assert Path("outputs/x/compare/compare.png").read_bytes().startswith(b"\x89PNG")
    assert len(list(Path("outputs/x/compare/tensorboard").iterdir())) == 3


def test_a_baseline_and_a_metric_that_is_better_if_smaller(models: Command):
    words = ("mode=compare", "runs=outputs/x", "mode.metric=test/loss")
    outcome = models(*words, "mode.baseline=alexnet")
    assert outcome.code == 0, outcome.err
    assert "test/loss, smaller is better" in outcome.out
    found = json.loads(Path("outputs/x/compare/compare.json").read_text())
    assert [group["settings"]["model"] for group in found["groups"]] == [
        "resnet18",
        "vgg11",
        "alexnet",
    ]
    assert [group["verdict"] for group in found["groups"]] == ["better", "better", "baseline"]


def test_other_folders_are_written_beside_the_runs(models: Command):
    outcome = models("mode=compare", "runs=[outputs/x/alexnet-0,outputs/x/resnet18-0]")
    assert outcome.code == 0, outcome.err
    assert "unknown with 1 seed" in outcome.out
    assert len(list(Path("outputs/compare").glob("*/compare.json"))) == 1


def test_different_test_data_is_reported(models: Command):
    file = Path("outputs/x/alexnet-0/data_fingerprint.json")
    file.write_text(file.read_text().replace('"a"', '"other"'))
    outcome = models("mode=compare", "runs=outputs/x")
    assert "warning: the runs have different test data" in outcome.out


def test_an_output_folder_that_is_a_link_is_refused(models: Command, tmp_path: Path):
    kept = tmp_path / "kept"
    (kept / "tensorboard").mkdir(parents=True)
    Path("outputs/x/compare").symlink_to(kept)
    outcome = models("mode=compare", "runs=outputs/x")
    assert outcome.code != 0
    assert "symbolic link" in outcome.err
    assert [path.name for path in kept.iterdir()] == ["tensorboard"]


@pytest.mark.parametrize("folds", [1, True, "5", ".nan", None])
def test_folds_that_are_no_folds_are_left_out(models: Command, folds: object):
    make_run(
        Path("outputs/x/bad"), score=0.9, config={"seed": 7, "data.folds": folds, "data.fold": [0]}
    )
    outcome = models("mode=compare", "runs=outputs/x")
    assert outcome.code == 0, outcome.err
    assert "left out: outputs/x/bad: its files are not those of a run" in outcome.out


def test_folds_and_other_runs_are_not_compared_silently(models: Command):
    config = {"seed": 0, "data.folds": 3, "data.fold": 0}
    make_run(Path("outputs/x/fold"), score=0.9, config=config)
    outcome = models("mode=compare", "runs=outputs/x")
    assert "warning: some of the runs test on folds and others do not" in outcome.out


def test_different_commits_are_reported(models: Command):
    for seed in range(3):
        file = Path(f"outputs/x/alexnet-{seed}/environment.json")
        file.write_text(json.dumps({"versions": {}, "commit": ("a" if seed else "b") * 40}))
    Path("outputs/x/vgg11-0/environment.json").write_text("[")
    outcome = models("mode=compare", "runs=outputs/x")
    assert outcome.code == 0, outcome.err
    assert "warning: the runs are of 2 commits of vision_lab: bbbbbbbbbbbb (outputs/" in outcome.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "type runs=<the folder of a sweep>"),
        (("runs=outputs/none",), "no such folder"),
        (("runs=outputs/x", "mode.metric=val/miou"), "mode.metric=val/miou: no run has it: type"),
        (("runs=outputs/x", "mode.by=[seed]"), "mode.by=seed: the runs do not differ in it"),
        (
            ("runs=outputs/x", "mode.baseline=vit"),
            "mode.baseline=vit is no group: type one of\n  mode.baseline=resnet18",
        ),
        (("runs=outputs/x", "mode.metric_mode=most"), "mode.metric_mode=most: type max, min"),
        (("runs=outputs",), "runs= contains several tasks, which have no common metric"),
    ],
)
def test_invalid_comparisons_are_refused(models: Command, words: tuple[str, ...], message: str):
    make_run(Path("outputs/y"), score=0.1, choices={"task": "segment"})
    outcome = models("mode=compare", *words)
    assert outcome.code != 0
    assert message in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.slow
def test_trained_runs(command: Command):
    assert command("-m", "seed=1,2", "name=x", *FAST).code == 0
    outcome = command("mode=compare", "runs=outputs/x")
    assert outcome.code == 0, outcome.err
    found = json.loads(Path("outputs/x/compare/compare.json").read_text())
    assert found["groups"][0]["metrics"]["val/accuracy"]["size"] == 2
    costs = found["groups"][0]["costs"]
    assert costs["parameters"] > 0
    assert 100e6 < costs["peak_memory"] < 10e9
    assert command("-m", "seed=1,2", "name=x", *FAST).code == 0  # the sweep is not disturbed


def test_folds_are_compared_as_seeds_are(command: Command):
    assert command("-m", "data.folds=3", "data.fold=0,1,2", "name=x", *FAST).code == 0
    outcome = command("mode=compare", "runs=outputs/x")
    assert outcome.code == 0, outcome.err
    assert "different" not in outcome.out  # test data, by fold
    found = json.loads(Path("outputs/x/compare/compare.json").read_text())
    assert len(found["groups"]) == 1
    assert found["groups"][0]["metrics"]["val/accuracy"]["size"] == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data.folds=3"], "data.folds=3: type the fold to test on, from 0 to 2: data.fold=0, or"),
        (["data.folds=3", "data.fold=3"], "data.fold=3 data.folds=3: type the fold to test on"),
        (["data.fold=1"], "data.fold=1 requires data.folds, such as data.folds=5"),
        (["data.folds=1", "data.fold=0"], "data.folds=1: type"),
        (["data.groups=folder"], "data.groups=folder requires images in files"),
        (["data.groups=absent.csv"], "data.groups=absent.csv requires images in files"),
    ],
)
def test_impossible_folds_are_refused(command: Command, words: list[str], message: str):
    outcome = command(*words, *FAST)
    assert outcome.code != 0
    assert message in outcome.err


def test_the_difference_of_two_runs(command: Command):
    assert command("-m", "seed=1", "optimizer.lr=0.001,0.002", "name=x", *FAST).code == 0
    outcome = command("mode=diff", "runs=outputs/x")
    assert outcome.code == 0, outcome.err
    assert "optimizer.lr: 0.001 -> 0.002" in outcome.out
    assert "data: equal" in outcome.out
    assert "code and versions: equal" in outcome.out
    assert "curves part in epoch 1:" in outcome.out
    assert json.loads(Path("outputs/x/diff/diff.json").read_text())["epoch"] == 1
    missing = command("mode=diff", "runs=outputs/x/optimizer.lr-0.001")
    assert missing.code != 0
    assert "runs= contains 1 runs: type runs=[<run>,<other run>]" in missing.err


def test_active_runs_are_followed(models: Command, monkeypatch: pytest.MonkeyPatch):
    """Until the last one has ended, which here happens while the command waits."""
    active = make_run(Path("outputs/x/late"), score=0.9, state="running")
    (active / "metrics.csv").write_text("epoch,step,val/accuracy\n0,3,0.5\n1,6,0.61\n")

    def finish(_: float) -> None:
        (active / "status.json").write_text('{"state": "failed", "error": "lost"}')

    monkeypatch.setattr("vision_lab.modes.compare.time.sleep", finish)
    outcome = models("mode=compare", "runs=outputs/x", "mode.follow=true")
    assert outcome.code == 0, outcome.err
    assert "left out: outputs/x/late: failed: lost" in outcome.out
