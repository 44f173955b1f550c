"""What the tests share: one thread a process, tiny pictures made on the spot, and the command line in this process."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vision_lab.cli.main import main
from vision_lab.core.spec import DataSpec


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Two test processes share two cores; and what a run seeds or switches on must not reach the next test."""
    torch.set_num_threads(1)
    yield
    torch.use_deterministic_algorithms(False)


@dataclass(frozen=True)
class Outcome:
    """What a command printed and returned."""

    code: int
    out: str
    err: str


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """``vision_lab`` with words, in an empty folder, in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: str) -> Outcome:
        monkeypatch.setattr("sys.argv", ["vision_lab"])
        capsys.readouterr()
        code = main(words)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


WHOLE = ("debug=fast", "trainer=cpu", "logger=none")
"""A run of seconds with all that it shows and draws."""

FAST = (*WHOLE, "callbacks.progress_bar=null", "callbacks.image_logger=null")
"""A run in half the time."""


@pytest.fixture
def spec() -> DataSpec:
    """Small colour pictures of four classes."""
    return DataSpec(
        target_type="labels",
        class_names=("ash", "beech", "cedar", "date"),
        num_classes=4,
        image_size=(32, 32),
        channels=3,
        mean=(0.5,),
        std=(0.25,),
    )


def make_shades(
    root: Path, classes: tuple[str, ...] = ("ash", "beech", "cedar"), count: int = 12
) -> None:
    """A folder of pictures with one sub-folder a class; class k is mostly of shade k, so that it can be learnt."""
    random = np.random.default_rng(0)
    for label, class_name in enumerate(classes):
        folder = root / class_name
        folder.mkdir(parents=True)
        for number in range(count):
            shade = 40 + 60 * label
            pixels = random.integers(shade - 20, shade + 20, size=(40, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number:03d}.png")


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Makes folders of shades below the test's own folder."""

    def make(
        name: str = "pictures",
        classes: tuple[str, ...] = ("ash", "beech", "cedar"),
        count: int = 12,
    ) -> Path:
        make_shades(tmp_path / name, classes, count)
        return tmp_path / name

    return make
