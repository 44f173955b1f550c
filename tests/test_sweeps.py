"""A sweep survives its failures and its death."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vision_lab.runs import Run

WORDS = (
    *("-m", "model=resnet20,resnet32,inception_v3,squeezenet1_1", "seed=1", "name=x", "debug=fast", "trainer=cpu"),
    *("logger=none", "+callbacks.kill._target_=tests.killing.Kill"),
)


def typed(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1]), "COLUMNS": "150"}
    command = [sys.executable, "-m", "vision_lab", *WORDS]
    return subprocess.run(command, cwd=folder, env=environment | variables, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_killed_sweep_does_what_is_missing(tmp_path: Path):
    killed = typed(tmp_path, KILL="test:1", DEATH="SIGKILL")  # in the first job's test
    assert killed.returncode == -9
    folder = tmp_path / "outputs" / "x"
    assert {path.parent.name: Run(path.parent).state for path in folder.glob("*/status.json")} == {
        "model-resnet20": "running"
    }
    done = typed(tmp_path)
    assert done.returncode == 1
    assert "goes on      from step 3" in done.stdout
    assert "epoch 1/1" in done.stdout
    assert done.stdout.count("epoch 1/1") == 2  # resnet20's was over; inception_v3 does not begin
    states = {path.parent.name: Run(path.parent).state for path in folder.glob("*/status.json")}
    assert states == {
        "model-resnet20": "finished",
        "model-resnet32": "finished",
        "model-inception_v3": "failed",
        "model-squeezenet1_1": "finished",
    }
    assert "outputs/x: 4 runs" in done.stdout
    again = typed(tmp_path)
    assert again.returncode == 1
    assert again.stdout.count("was finished before") == 3
    assert "epoch 1/1" not in again.stdout
    assert "outputs/x: 4 runs" in again.stdout
    assert "model-inception_v3 failed: inception_v3 is not made for pictures of 32x32 pixels" in again.stdout
