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
