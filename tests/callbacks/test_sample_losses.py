"""The losses of all images after training, and the thumbnails of the highest ones."""

import csv
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.builders import Outcome

WORDS = (
    *("data=folder", "data.root=images", "data.spec.image_size=[16,16]", "data.num_workers=0"),
    *(
        "model.network.depth=8",
        "trainer=cpu",
        "trainer.max_epochs=1",
        "logger=none",
        "augment=none",
    ),
    *("callbacks.progress_bar=null", "callbacks.image_logger=null", "name=x"),
)


@pytest.fixture
def images(make_folder: Callable[..., Path]) -> Path:
    """40 images of two classes, of which four are held out for validation and four for testing."""
    return make_folder("images", classes=("ash", "beech"), count=20)


def read(folder: Path) -> list[dict[str, str]]:
    with (folder / "sample_losses.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.usefixtures("images")
def test_all_samples_are_listed_the_highest_losses_first(command: Callable[..., Outcome]):
    outcome = command(*WORDS)
    assert outcome.code == 0, outcome.err
    rows = read(Path("outputs/x"))
    assert Counter(row["split"] for row in rows) == {"train": 32, "val": 4, "test": 4}
    assert len({row["sample"] for row in rows}) == 40
    losses = [float(row["loss"]) for row in rows]
    assert losses == sorted(losses, reverse=True)
    for row in rows:
        assert Path(row["sample"]).parent.name == row["target"]
        confidence = float(row["confidence"])
        of_target = confidence if row["predicted"] == row["target"] else 1 - confidence
        assert float(row["loss"]) == pytest.approx(-math.log(of_target), abs=1e-4)
    sheet = Image.open("outputs/x/images/high_losses.jpg")
    assert sheet.size == (960, 4 * 96)


@pytest.mark.usefixtures("images")
def test_large_splits_are_left_out(command: Callable[..., Outcome]):
    outcome = command(*WORDS, "callbacks.sample_losses.max_samples=10")
    assert outcome.code == 0, outcome.err
    assert {row["split"] for row in read(Path("outputs/x"))} == {"val", "test"}


@pytest.mark.usefixtures("images")
def test_runs_on_a_part_of_the_data_list_no_losses(command: Callable[..., Outcome]):
    outcome = command(*WORDS, "trainer.limit_train_batches=1")
    assert outcome.code == 0, outcome.err
    assert not Path("outputs/x/sample_losses.csv").exists()
