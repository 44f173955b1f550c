"""The progress bar."""

from types import SimpleNamespace

import pytest

from vision_lab.callbacks.progress_bar import ProgressBar


@pytest.mark.parametrize(
    ("max_epochs", "text"), [(12, "Epoch 3/12"), (-1, "Epoch 3"), (None, "Epoch 3")]
)
def test_epochs_are_counted_from_one(max_epochs: int | None, text: str):
    bar = ProgressBar()
    bar._trainer = SimpleNamespace(max_epochs=max_epochs)
    assert bar._get_train_description(2).rstrip() == text


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
