"""What is reported of two runs that differ in one thing."""

import json
from pathlib import Path

import pytest

from tests.compare.made_runs import make_run
from vision_lab.compare.difference import RunDifference, compare_two
from vision_lab.run_folders.folder import Run

ENVIRONMENT = {"python": "3.11", "versions": {"torch": "2.6"}, "commit": "a", "uncommitted": False}
CURVE = "epoch,step,val/loss\n0,3,0.5\n1,6,0.4\n2,9,0.3\n"


def two_runs(folder: Path) -> list[Path]:
    folders = []
    for name in ("a", "b"):
        made = make_run(folder / name, score=0.5, config={"name": name})
        (made / "environment.json").write_text(json.dumps(ENVIRONMENT))
        (made / "metrics.csv").write_text(CURVE)
        folders.append(made)
    return folders


def compare(folders: list[Path]) -> RunDifference:
    return compare_two(*map(Run, folders))


def test_equal_runs(tmp_path: Path):
    found = compare(two_runs(tmp_path))
    assert found == RunDifference({}, {}, {}, None, {}, 3)


@pytest.mark.parametrize(
    ("file", "old", "new", "field", "expected"),
    [
        ("config.yaml", "lr: 0.1", "lr: 0.2", "config", {"optimizer.lr": (0.1, 0.2)}),
        (
            "data_fingerprint.json",
            '"labels": "b"',
            '"labels": "c"',
            "data",
            {"val": ({"count": 5, "labels": "b"}, {"count": 5, "labels": "c"})},
        ),
        (
            "environment.json",
            '"commit": "a"',
            '"commit": "b"',
            "environment",
            {"commit": ("a", "b")},
        ),
        ("environment.json", '"2.6"', '"2.7"', "environment", {"torch": ("2.6", "2.7")}),
        ("metrics.csv", "1,6,0.4", "1,6,0.41", "metrics", {"val/loss": ("0.4", "0.41")}),
    ],
)
def test_one_difference(
    tmp_path: Path, file: str, old: str, new: str, field: str, expected: object
):
    folders = two_runs(tmp_path)
    text = (folders[1] / file).read_text()
    assert old in text
    (folders[1] / file).write_text(text.replace(old, new))
    found = compare(folders)
    assert getattr(found, field) == expected
    assert found.epoch == (2 if field == "metrics" else None)
    others = {"config", "data", "environment", "metrics"} - {field}
    assert all(getattr(found, other) == {} for other in others)


def test_changes_that_were_not_committed(tmp_path: Path):
    folders = two_runs(tmp_path)
    (folders[0] / "uncommitted.diff").write_text("+a = 1\n")
    (folders[1] / "uncommitted.diff").write_text("+a = 2\n")
    assert compare(folders).environment == {"uncommitted": ("+a = 1\n", "+a = 2\n")}


def test_runs_without_common_epochs(tmp_path: Path):
    folders = two_runs(tmp_path)
    (folders[1] / "metrics.csv").unlink()
    assert compare(folders).epochs == 0
