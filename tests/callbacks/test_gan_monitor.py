"""Warnings about mode collapse and saturation, and when they are printed."""

from types import SimpleNamespace
from typing import Any

import pytest

from vision_lab.callbacks.gan_monitor import GanMonitor
from vision_lab.core.errors import DataError

SETTINGS: dict[str, Any] = {
    "action": "warn",
    "min_diversity": 0.3,
    "max_discriminator_accuracy": 0.99,
    "patience": 2,
}
FINE = {"train/real_accuracy": 0.7, "train/fake_accuracy": 1.0, "val/diversity": 0.9}
SATURATED = FINE | {"train/real_accuracy": 0.995}
COLLAPSED = FINE | {"val/diversity": 0.1}


def warnings_after(
    capsys: pytest.CaptureFixture[str], *epochs: dict[str, float], **changes: Any
) -> list[str]:
    watchdog = GanMonitor(**SETTINGS | changes)
    for number, metrics in enumerate(epochs):
        trainer: Any = SimpleNamespace(current_epoch=number, is_global_zero=True)
        watchdog.on_epoch_metrics(trainer, metrics)
    return [
        line
        for line in capsys.readouterr().out.replace("\n", " ").split("warning: ")
        if line.strip()
    ]


def test_a_lasting_collapse_is_reported(capsys: pytest.CaptureFixture[str]):
    assert warnings_after(capsys, FINE, SATURATED, FINE, SATURATED) == []
    (text,) = warnings_after(capsys, FINE, SATURATED, SATURATED, FINE)
    assert text.startswith(
        "epoch 3: the discriminator recognizes 99.5% of real and generated images"
    )
    assert "choose a smaller discriminator" in text
    (text,) = warnings_after(capsys, COLLAPSED, COLLAPSED)
    assert text.startswith(
        "epoch 2: the samples look alike, with 0.10 of the diversity of real images"
    )
    assert len(warnings_after(capsys, *[COLLAPSED] * 5)) == 2  # and again


def test_losses_without_saturation_are_not_reported(capsys: pytest.CaptureFixture[str]):
    assert warnings_after(capsys, *[{"val/diversity": 0.9, "train/real_score": 100.0}] * 4) == []


def test_an_epoch_without_validation_reports_no_collapse(capsys: pytest.CaptureFixture[str]):
    (text,) = warnings_after(capsys, COLLAPSED, {"train/real_accuracy": 0.5}, COLLAPSED)
    assert text.startswith("epoch 3")


def test_the_monitor_stops_the_run(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(DataError, match="epoch 1: the samples look alike"):
        warnings_after(capsys, COLLAPSED, action="stop", patience=1)


def test_the_number_of_failing_epochs_is_in_checkpoints():
    one, other = GanMonitor(**SETTINGS), GanMonitor(**SETTINGS | {"action": "stop"})
    trainer: Any = SimpleNamespace(current_epoch=0, is_global_zero=True)
    one.on_epoch_metrics(trainer, COLLAPSED)
    other.load_state_dict(one.state_dict())
    with pytest.raises(DataError):
        other.on_epoch_metrics(trainer, COLLAPSED)
