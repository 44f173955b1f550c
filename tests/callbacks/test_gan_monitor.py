"""What is said of two networks that stop to learn, and when."""

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


def said(
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


def test_it_is_said_when_it_has_lasted(capsys: pytest.CaptureFixture[str]):
    assert said(capsys, FINE, SATURATED, FINE, SATURATED) == []
    (text,) = said(capsys, FINE, SATURATED, SATURATED, FINE)
    assert text.startswith(
        "epoch 3: the discriminator recognizes 99.5% of real and generated images"
    )
    assert "task.discriminator_optimizer.lr=" in text
    (text,) = said(capsys, COLLAPSED, COLLAPSED)
    assert text.startswith(
        "epoch 2: the samples look alike, with 0.10 of the diversity of real images"
    )
    assert len(said(capsys, *[COLLAPSED] * 5)) == 2  # and again


def test_a_loss_that_parts_nowhere_cannot_saturate(capsys: pytest.CaptureFixture[str]):
    assert said(capsys, *[{"val/diversity": 0.9, "train/real_score": 100.0}] * 4) == []


def test_an_epoch_without_validation_says_nothing_of_samples(capsys: pytest.CaptureFixture[str]):
    (text,) = said(capsys, COLLAPSED, {"train/real_accuracy": 0.5}, COLLAPSED)
    assert text.startswith("epoch 3")


def test_it_stops_where_it_is_told_to(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(DataError, match="epoch 1: the samples look alike"):
        said(capsys, COLLAPSED, action="stop", patience=1)


def test_what_has_lasted_goes_with_a_checkpoint():
    one, other = GanMonitor(**SETTINGS), GanMonitor(**SETTINGS | {"action": "stop"})
    trainer: Any = SimpleNamespace(current_epoch=0, is_global_zero=True)
    one.on_epoch_metrics(trainer, COLLAPSED)
    other.load_state_dict(one.state_dict())
    with pytest.raises(DataError):
        other.on_epoch_metrics(trainer, COLLAPSED)
