"""The progress bar."""

from types import SimpleNamespace

import pytest
import torch

from vision_lab.callbacks.progress_bar import ProgressBar
from vision_lab.core.batch import Batch


@pytest.mark.parametrize(
    ("max_epochs", "text"), [(12, "Epoch 3/12"), (-1, "Epoch 3"), (None, "Epoch 3")]
)
def test_epochs_are_counted_from_one(max_epochs: int | None, text: str):
    bar = ProgressBar()
    bar._trainer = SimpleNamespace(max_epochs=max_epochs)
    assert bar._get_train_description(2).rstrip() == text


@pytest.mark.parametrize("part", ["predict", "test"])
def test_predictions_are_shown_with_images_per_second(monkeypatch: pytest.MonkeyPatch, part: str):
    clock = [0.0]
    monkeypatch.setattr("vision_lab.callbacks.progress_bar.time.perf_counter", lambda: clock[0])
    bar = ProgressBar()
    trainer = SimpleNamespace(
        world_size=2,
        num_predict_batches=[9],
        num_test_batches=[9],
        predict_loop=SimpleNamespace(current_dataloader_idx=0),
        test_loop=SimpleNamespace(current_dataloader_idx=0),
        progress_bar_callback=bar,
        state=SimpleNamespace(fn=part),
    )
    bar._trainer = trainer
    getattr(bar, f"on_{part}_start")(trainer, None)
    getattr(bar, f"on_{part}_batch_start")(trainer, None, None, 0)
    for number in range(3):
        clock[0] += 0.5
        batch = (
            Batch(torch.empty(4), torch.empty(4), [None] * 4) if part == "test" else [[None] * 4]
        )
        getattr(bar, f"on_{part}_batch_end")(trainer, None, None, batch, number)
    assert bar.progress is not None
    assert bar.progress.tasks[0].description.endswith("ing  16 images/s")
    bar.progress.stop()


def test_images_per_second_are_those_of_the_last_seconds(monkeypatch: pytest.MonkeyPatch):
    """Neither a slow beginning nor a pause for validation counts."""
    clock = [0.0]
    monkeypatch.setattr("vision_lab.callbacks.progress_bar.time.perf_counter", lambda: clock[0])
    bar = ProgressBar()
    bar.record_step(8)
    assert bar.speed is None
    for seconds in (4.0, *[0.5] * 20):
        clock[0] += seconds
        bar.record_step(8)
    assert bar.speed == pytest.approx(16)
    bar.restart()  # a validation of a minute
    clock[0] += 60
    bar.record_step(8)
    assert bar.speed == pytest.approx(16)
    clock[0] += 1
    bar.record_step(8)
    assert bar.speed == pytest.approx(8)
