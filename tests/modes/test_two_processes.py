"""Two CPU processes do what one does with twice the batch, and leave one run."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


def typed(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vision_lab", *words],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_two_processes_are_one_with_twice_the_batch(tmp_path: Path, make_folder: Callable[..., Path]):
    root = make_folder(classes=("ash", "beech", "cedar"), count=17)
    data = ("data=folder", f"data.root={root}", "data.spec.image_size=[16,16]", "data.num_workers=0", "augment=basic")
    words = (*data, "model=squeezenet1_1", "trainer.max_epochs=2", "+model.classifier.dropout=0.0", "optim=sgd")
    for name, extra in {
        "one": ("trainer=cpu", "data.batch_size=4"),
        "two": ("trainer=ddp_cpu", "data.batch_size=2"),
    }.items():
        done = typed(tmp_path, *words, *extra, f"name={name}", "optim.lr=0.02")
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("the run lies in") == 1
    assert sorted(path.name for path in (tmp_path / "outputs").iterdir()) == ["one", "two"]
    results = [json.loads((tmp_path / "outputs" / name / "result.json").read_text()) for name in ("one", "two")]
    # 51 pictures, a tenth held out twice: 5, which two processes share as 3 and 2, in two batches each
    assert [sum(c["samples"] for c in result["per_class"].values()) for result in results] == [5, 5]
    tables = []
    for name in ("one", "two"):
        with (tmp_path / "outputs" / name / "metrics.csv").open() as file:
            tables.append(list(csv.DictReader(file)))
    assert len(tables[0]) == len(tables[1]) == 2
    for one, two in zip(*tables, strict=True):
        for metric in ("train/loss", "train/accuracy", "val/loss", "val/accuracy"):
            assert float(one[metric]) == pytest.approx(float(two[metric]), rel=1e-3), metric
    evaluated = typed(tmp_path, "mode=evaluate", "run=outputs/two")  # by two processes again
    assert evaluated.returncode == 0, evaluated.stderr
    again = json.loads((tmp_path / "outputs" / "two" / "evaluate" / "test.json").read_text())
    assert again["metrics"] == pytest.approx(results[1]["metrics"], rel=1e-5)
    refused = typed(tmp_path, "-m", "trainer=ddp_cpu", "seed=1,2", "name=swept")
    assert refused.returncode == 1
    assert "a sweep (-m) runs on one device for now: type trainer=cpu or trainer=gpu" in refused.stderr
    events = list((tmp_path / "outputs" / "two").glob("events.*"))
    assert len(events) == len(list((tmp_path / "outputs" / "one").glob("events.*")))
