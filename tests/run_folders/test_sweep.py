"""A sweep continues after failed jobs and after it was killed."""

from pathlib import Path

import pytest

from tests.processes import ForkedCommand, fork_command
from vision_lab.run_folders.folder import Run

MODELS = ("resnet20", "inception_v3", "squeezenet1_1", "resnet32")
"""inception_v3 fails, since it does not support small images."""

WORDS = (
    "-m",
    f"model={','.join(MODELS)}",
    "seed=1",
    "name=x",
    "debug=fast",
    "trainer=cpu",
    "logger=none",
    "+callbacks.kill._target_=tests.kill_callback.Kill",
)


def run(folder: Path, **variables: str) -> ForkedCommand:
    return fork_command(folder, *WORDS, COLUMNS="150", **variables)


def states(folder: Path) -> dict[str, str | None]:
    return {
        path.parent.name.removeprefix("model-"): Run(path.parent).state
        for path in folder.glob("*/status.json")
    }


def models(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("model.pth")}


@pytest.mark.slow
def test_a_killed_sweep_continues_with_its_missing_runs(tmp_path: Path):
    folder = tmp_path / "outputs" / "x"
    killed = run(
        tmp_path, KILL="step:2", RUN="2", DEATH="SIGKILL"
    )  # squeezenet1_1, the second that trains
    assert killed.returncode == -9
    assert states(folder) == {
        "resnet20": "finished",
        "inception_v3": "failed",
        "squeezenet1_1": "running",
    }
    first = models(folder)
    assert len(first) == 1
    done = run(tmp_path)
    assert done.returncode == 1
    assert done.stdout.count("is already finished") == 1
    assert done.stdout.count("epoch 1/1") == 2
    assert states(folder) == {
        name: "failed" if name == "inception_v3" else "finished" for name in MODELS
    }
    assert {path: time for path, time in models(folder).items() if path in first} == first
    again = run(tmp_path)
    assert again.returncode == 1
    assert again.stdout.count("is already finished") == 3
    assert "epoch 1/1" not in again.stdout
    assert "outputs/x: 4 runs" in again.stdout
    assert again.stdout.count("│ finished │") == 3
    assert "model-inception_v3 failed: data.spec.image_size=[32,32]: type [299,299]" in again.stdout
