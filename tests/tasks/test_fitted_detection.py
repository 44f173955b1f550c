"""Detectors that are fitted in rounds."""

from collections.abc import Callable
from pathlib import Path

import torch

from tests.builders import Outcome

Command = Callable[..., Outcome]


def test_images_are_held_out_for_the_calibration_of_scores(command: Command, tmp_path: Path):
    outcome = command(
        *("task=detect", "model=hog_svm", "head=none", "trainer=cpu", "logger=none"),
        *(
            "data.num_images={train: 16, val: 2, test: 2}",
            "data.num_workers=0",
            "data.batch_size=4",
        ),
        *("callbacks.image_logger=null", "model.max_scale=0.7", "trainer.max_epochs=1", "name=a"),
        "model.calibration_fraction=0.5",
    )
    assert outcome.code == 0, outcome.err
    warning = "trainer.max_epochs=1 ends training before the last of model.num_rounds=4"
    assert warning in outcome.out + outcome.err
    state = torch.load(tmp_path / "outputs" / "a" / "model.pth")
    sigmoids = [value for name, value in state.items() if name.startswith("calibration")]
    assert len(sigmoids) == 5
    assert any(sigmoid.tolist() != [1.0, 0.0] for sigmoid in sigmoids)
    rows = (tmp_path / "outputs" / "a" / "metrics.csv").read_text().splitlines()
    num_negatives = float(rows[1].split(",")[2])
    assert num_negatives < 5 * 5 * 16 * 0.8  # five windows of each class in each image that is not
