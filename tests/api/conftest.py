"""Runs of each task, trained once, and copied to the working directory of a test."""

import os
import shutil
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

import pytest

from tests.builders import FAST, FAST_ANY_MODEL
from vision_lab.cli.main import main

SMALL = (*FAST_ANY_MODEL, "data.spec.image_size=[64,64]")

WORDS = {
    "classify": FAST,
    "segment": ("task=segment", *SMALL),
    "detect": ("task=detect", *SMALL, "head.channels=16", "task.report.draw_score_threshold=0.0"),
    "generate": (
        "task=generate",
        *FAST_ANY_MODEL,
        "model.conditioning=concatenation",
        "model.generator_channels=4",
        "model.discriminator_channels=4",
        "task.num_samples=60",
    ),
}


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Train a run of a task when a test first needs it."""
    folder = tmp_path_factory.mktemp("trained")

    def train(task: str) -> Path:
        with chdir(folder):
            if not (folder / "outputs" / task).is_dir():
                assert main([*WORDS[task], f"name={task}"]) == 0
        return folder / "outputs" / task

    return train


@pytest.fixture
def run_folder(
    trained: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], str]:
    monkeypatch.chdir(tmp_path)

    def copy(task: str) -> str:
        target = Path("outputs") / task
        if not target.is_dir():
            shutil.copytree(trained(task), target)
        return os.fspath(target)

    return copy
